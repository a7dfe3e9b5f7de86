/** Reads the events of a trace, from a file or from text, and says what else the trace held. */
import { isDigit, showLine, skipBlanks } from './bytes.js';
import { TraceError } from './error.js';
import { EventKind, type ParserOptions, TraceEvent } from './event.js';
import { forEachLine, LineSplitter } from './lines.js';

const HASH = 35;
const UPPER_C = 67;

/** `CPU:1 [LOST 12 EVENTS]` of the kernel, `CPU:1 [12 EVENTS DROPPED]` of trace-cmd; the count may be missing. */
const LOSS = /^\s*CPU[: ]\s*\d+ \[(?:LOST(?: (\d+))? EVENTS?|(?:(\d+) )?EVENTS? DROPPED)\]/;

/** What a trace held. */
export interface ReadCounts {
  lines: number;
  /** Lines of known events. */
  events: number;
  /** Events that have no part in a replay. */
  otherEvents: number;
  /** Lines that are neither an event nor a header nor a loss report, such as the frames of a call chain. */
  foreignLines: number;
  /** Events that the recorder dropped; a report without a number counts as one. */
  lostEvents: number;
}

export type EventHandler = (event: TraceEvent) => void;

/** Takes lines, hands out events. One per trace. */
class TraceReader {
  readonly counts: ReadCounts = { lines: 0, events: 0, otherEvents: 0, foreignLines: 0, lostEvents: 0 };
  readonly #file: string;
  readonly #onEvent: EventHandler;
  readonly #event: TraceEvent;
  #firstForeign = 0;
  #firstForeignShown = '';

  constructor(file: string, onEvent: EventHandler, options: ParserOptions = {}) {
    this.#file = file;
    this.#onEvent = onEvent;
    this.#event = new TraceEvent(options);
  }

  line(buf: Uint8Array, start: number, end: number, line: number): void {
    const event = this.#event;
    const kind = event.parse(buf, start, end);
    if (kind >= EventKind.cacheAlloc) {
      this.counts.events++;
      event.line = line;
      this.#onEvent(event);
    } else if (kind === EventKind.other) this.counts.otherEvents++;
    else if (kind === EventKind.malformed) {
      const problem = `a known event that ${event.problem}: ${showLine(buf, start, end)}`;
      throw new TraceError(this.#file, line, problem);
    } else this.#foreign(buf, start, end, line);
  }

  /** The end of the trace: there must have been events. */
  end(lines: number): ReadCounts {
    const { counts } = this;
    counts.lines = lines;
    if (counts.events > 0) return counts;
    if (counts.otherEvents > 0) {
      const problem = `no kmem or percpu events among the ${counts.otherEvents} events of this trace`;
      throw new TraceError(this.#file, lines, problem);
    }
    if (this.#firstForeign === 0) throw new TraceError(this.#file, lines, 'a trace without any event');
    const expected = 'expected lines like "comm-pid [cpu] flags time: event: key=value"';
    const problem = `not a trace: ${expected}, found ${this.#firstForeignShown}`;
    throw new TraceError(this.#file, this.#firstForeign, problem);
  }

  #foreign(buf: Uint8Array, start: number, end: number, line: number): void {
    const first = skipBlanks(buf, start, end);
    if (first >= end || buf[start] === HASH) return;
    if (buf[first] === UPPER_C && this.#loss(buf, start, end)) return;
    // No printer of traces writes NUL: better to stop here than to read gigabytes of something else.
    const nul = buf.subarray(start, end).indexOf(0);
    if (nul >= 0)
      throw new TraceError(this.#file, line, `not a trace: binary data, ${showLine(buf, start, end)}`);
    this.counts.foreignLines++;
    if (this.#firstForeign > 0) return;
    this.#firstForeign = line;
    this.#firstForeignShown = showLine(buf, start, end);
  }

  #loss(buf: Uint8Array, start: number, end: number): boolean {
    const text = Buffer.from(buf.subarray(start, end)).toString('latin1');
    const found = LOSS.exec(text);
    if (found === null) return false;
    const count = found[1] ?? found[2] ?? '';
    this.counts.lostEvents += count !== '' && isDigit(count.charCodeAt(0)) ? Number(count) : 1;
    return true;
  }
}

/**
 * Reads a trace file, plain or gzip, in bounded memory. `onEvent` gets one and the same object each time, with
 * the fields of the next event. Rejects with a {@link TraceError} naming file and line.
 */
export async function readTrace(
  file: string,
  onEvent: EventHandler,
  options: ParserOptions = {},
): Promise<ReadCounts> {
  const reader = new TraceReader(file, onEvent, options);
  const lines = await forEachLine(file, (buf, start, end, line) => reader.line(buf, start, end, line));
  return reader.end(lines);
}

/** Reads a trace that is already in memory; `file` is the name that errors give it. */
export function readTraceText(
  text: string | Uint8Array,
  onEvent: EventHandler,
  options: ParserOptions = {},
  file = '<text>',
): ReadCounts {
  if (text.length === 0) throw new TraceError(file, 0, 'is empty');
  const reader = new TraceReader(file, onEvent, options);
  const splitter = new LineSplitter(file, (buf, start, end, line) => reader.line(buf, start, end, line));
  splitter.push(
    typeof text === 'string'
      ? Buffer.from(text, 'utf8')
      : Buffer.from(text.buffer, text.byteOffset, text.length),
  );
  splitter.end();
  return reader.end(splitter.lines);
}
