/** Bytes to lines, from plain or gzip files, in bounded memory: one chunk and the line that it cut. */
import { createReadStream, type ReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { createGunzip, type Gunzip } from 'node:zlib';
import { TraceError } from './error.js';

const CHUNK_BYTES = 256 << 10;
/** Far longer than any event line; a file without newlines is no text. */
const LINE_BYTES_MAX = 64 << 10;
const NEWLINE = 10;
const CARRIAGE_RETURN = 13;
const GZIP_MAGIC = [0x1f, 0x8b];

/** Called with each line, `[start, end)` of `buf` without its line end, and its number from 1. */
type LineHandler = (buf: Buffer, start: number, end: number, line: number) => void;

const EVENT = /: (?:\w+:)?(\w+): /;
/** How a line begins: a comm, padded with blanks, its pid and CPU. */
const BEGINS = /^ {2,}\S|-\d+ +\[\d+\]/;
const ALLOCATES = /^(?:kmalloc|kmem_cache_alloc)(?:_node)?$|^percpu_alloc_percpu$/;
const FREES = /^(?:kfree|kmem_cache_free|percpu_free_percpu)$/;

/** Whether what follows the last line end lacks something that a replay needs: there may just be no newline at the end. */
function isCut(text: string): boolean {
  const name = EVENT.exec(text)?.[1];
  if (name === undefined) return BEGINS.test(text);
  if (ALLOCATES.test(name)) return !text.includes(' gfp_flags=');
  return FREES.test(name) && !/ ptr=(?:(?:0x)?[0-9a-f]{16}|\(null\))(?!\S)/.test(text);
}

/** Cuts a byte stream into lines. */
export class LineSplitter {
  /** Lines handed over so far. */
  lines = 0;
  readonly #file: string;
  readonly #onLine: LineHandler;
  #rest: Buffer = Buffer.alloc(0);

  constructor(file: string, onLine: LineHandler) {
    this.#file = file;
    this.#onLine = onLine;
  }

  push(chunk: Buffer): void {
    const buf = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let start = 0;
    for (let end = buf.indexOf(NEWLINE, 0); end >= 0; end = buf.indexOf(NEWLINE, start)) {
      this.#line(buf, start, end);
      start = end + 1;
    }
    if (buf.length - start > LINE_BYTES_MAX) {
      const problem = `not a trace: a line of more than ${LINE_BYTES_MAX} bytes`;
      throw new TraceError(this.#file, this.lines + 1, problem);
    }
    // A copy, so that the chunk itself can go.
    this.#rest = Buffer.from(buf.subarray(start));
  }

  end(): void {
    if (this.#rest.length > 0) {
      if (isCut(this.#rest.toString('latin1'))) {
        throw new TraceError(this.#file, this.lines + 1, 'the last line has no end: the file is truncated');
      }
      this.#line(this.#rest, 0, this.#rest.length);
    }
    this.#rest = Buffer.alloc(0);
  }

  #line(buf: Buffer, start: number, end: number): void {
    this.lines++;
    const stop = end > start && buf[end - 1] === CARRIAGE_RETURN ? end - 1 : end;
    this.#onLine(buf, start, stop, this.lines);
  }
}

const codeOf = (error: unknown): string => String((error as NodeJS.ErrnoException).code ?? '');

const OPEN_PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  ENOTDIR: 'no such file',
  EISDIR: 'is a directory; a trace is one file',
  EACCES: 'may not be read (permission denied)',
  EPERM: 'may not be read (permission denied)',
};

async function isGzip(file: string): Promise<boolean> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(file);
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(GZIP_MAGIC.length), 0, GZIP_MAGIC.length, 0);
    if (bytesRead === 0) throw new TraceError(file, 0, 'is empty');
    return bytesRead === GZIP_MAGIC.length && GZIP_MAGIC.every((byte, i) => buffer[i] === byte);
  } catch (cause) {
    if (cause instanceof TraceError) throw cause;
    throw new TraceError(file, 0, OPEN_PROBLEMS[codeOf(cause)] ?? `cannot be read: ${String(cause)}`, {
      cause,
    });
  } finally {
    await handle?.close();
  }
}

/** Not `pipeline`: when zlib fails, that may report its own abort instead of zlib's error. */
function unzip(input: ReadStream): Gunzip {
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  input.on('error', (error) => gunzip.destroy(error));
  return input.pipe(gunzip);
}

/** Turns what zlib reports into where the damage is. */
function explain(cause: unknown, file: string, lines: number): unknown {
  const code = codeOf(cause);
  if (code === 'Z_BUF_ERROR') {
    return new TraceError(file, lines + 1, 'the gzip data ends early: the file is truncated', { cause });
  }
  if (code.startsWith('Z_')) {
    return new TraceError(file, lines + 1, `the gzip data is damaged: ${(cause as Error).message}`, {
      cause,
    });
  }
  return cause;
}

/**
 * Hands every line of a file to `onLine`; gzip is recognised by its first bytes, whatever the name. Returns the
 * number of lines. A throwing `onLine` stops the reading and is what this rejects with.
 */
export async function forEachLine(file: string, onLine: LineHandler): Promise<number> {
  const gzip = await isGzip(file);
  const splitter = new LineSplitter(file, onLine);
  const input = createReadStream(file, { highWaterMark: CHUNK_BYTES });
  try {
    for await (const chunk of gzip ? unzip(input) : input) splitter.push(chunk);
    splitter.end();
  } catch (error) {
    throw explain(error, file, splitter.lines);
  } finally {
    input.destroy();
  }
  if (splitter.lines === 0) throw new TraceError(file, 0, 'is empty: gzip of nothing');
  return splitter.lines;
}
