/**
 * Scanning of text lines as bytes. A line lies in `[start, end)` of a larger buffer; nothing here makes a
 * string or an array, because a trace has millions of lines.
 */

const TAB = 9;
const SPACE = 32;
const COLON = 58;
const DOT = 46;
const EQUALS = 61;
const OPEN_BRACKET = 91;
const CLOSE_BRACKET = 93;
const CLOSE_PAREN = 41;
const ZERO = 48;
const CPU_DIGITS_MAX = 5;

export const isDigit = (c: number): boolean => c >= ZERO && c <= ZERO + 9;

/** The first position at or after `p` that holds no blank. */
export function skipBlanks(buf: Uint8Array, p: number, end: number): number {
  while (p < end && (buf[p] === SPACE || buf[p] === TAB)) p++;
  return p;
}

/** The end of the word that starts at `p`: the next blank or control character. */
export function wordEnd(buf: Uint8Array, p: number, end: number): number {
  while (p < end && buf[p] > SPACE) p++;
  return p;
}

/** The position behind `digits[.digits]:` at `p`, or -1. */
function timestampEnd(buf: Uint8Array, p: number, end: number): number {
  let q = p;
  while (q < end && isDigit(buf[q])) q++;
  if (q === p || q >= end) return -1;
  if (buf[q] === DOT) {
    q++;
    while (q < end && isDigit(buf[q])) q++;
  }
  return q < end && buf[q] === COLON ? q + 1 : -1;
}

/** Whether the byte at `i` is the `[` of a `[cpu]`: left of it stand a pid or `(tgid)` and blanks. */
export function opensCpu(buf: Uint8Array, start: number, i: number): boolean {
  let before = i - 1;
  if (before <= start || buf[i] !== OPEN_BRACKET || buf[before] > SPACE) return false;
  while (before > start && buf[before] <= SPACE) before--;
  return isDigit(buf[before]) || buf[before] === CLOSE_PAREN;
}

/** The position of the `[` of a `[cpu]` at or after `from`, or `end`. */
export function findCpu(buf: Uint8Array, from: number, end: number): number {
  for (let i = from; i < end; i++) if (buf[i] === OPEN_BRACKET && opensCpu(buf, from, i)) return i;
  return end;
}

/** The position of the `]` of a `[cpu]` whose `[` is at `open`, or -1. */
export function cpuEnd(buf: Uint8Array, open: number, end: number): number {
  let p = open + 1;
  while (p < end && isDigit(buf[p])) p++;
  const digits = p - open - 1;
  return digits > 0 && digits <= CPU_DIGITS_MAX && p < end && buf[p] === CLOSE_BRACKET ? p : -1;
}

/** The position behind `[flags] timestamp:` at `p`, or -1. Only ftrace prints flags. */
export function skipTimestamp(buf: Uint8Array, p: number, end: number): number {
  const first = skipBlanks(buf, p, end);
  const direct = timestampEnd(buf, first, end);
  if (direct >= 0) return direct;
  return timestampEnd(buf, skipBlanks(buf, wordEnd(buf, first, end), end), end);
}

/** Whether the bytes at `p` are exactly `word`, within the line. */
export function startsWith(buf: Uint8Array, p: number, end: number, word: Uint8Array): boolean {
  if (p + word.length > end) return false;
  for (let i = 0; i < word.length; i++) if (buf[p + i] !== word[i]) return false;
  return true;
}

/**
 * A field's key with its blank and its `=`, such as ` ptr=`. Horspool's search: looks at one byte in as many as
 * the key has, which is what makes reading a line cheaper than walking over it.
 */
export class FieldKey {
  readonly #key: Uint8Array;
  readonly #shift = new Uint8Array(256);

  constructor(name: string) {
    this.#key = Uint8Array.from(Buffer.from(` ${name}=`, 'latin1'));
    const last = this.#key.length - 1;
    this.#shift.fill(this.#key.length);
    for (let i = 0; i < last; i++) this.#shift[this.#key[i]] = last - i;
  }

  /** The position behind the key's first occurrence in `[from, end)`, or -1. */
  find(buf: Uint8Array, from: number, end: number): number {
    const key = this.#key;
    const shift = this.#shift;
    const last = key.length - 1;
    for (let p = from + last; p < end; p += shift[buf[p]]) {
      if (buf[p] === EQUALS && startsWith(buf, p - last, end, key)) return p + 1;
    }
    return -1;
  }
}

/** The value of each hexadecimal digit by its character code; -1 for all others. */
export const HEX_DIGITS = new Int8Array(256).fill(-1);
for (let value = 0; value < 16; value++) {
  HEX_DIGITS[value.toString(16).charCodeAt(0)] = value;
  HEX_DIGITS[value.toString(16).toUpperCase().charCodeAt(0)] = value;
}

const LINE_SHOWN_MAX = 120;

/** The beginning of a line for an error message: printable ASCII, shortened. */
export function showLine(buf: Uint8Array, start: number, end: number): string {
  const shown = Buffer.from(buf.subarray(start, Math.min(end, start + LINE_SHOWN_MAX))).toString('latin1');
  return `"${shown.replace(/[^ -~]/g, '.')}${end - start > LINE_SHOWN_MAX ? '...' : ''}"`;
}

/** One string per distinct word, found by its bytes: a cache name is seen a million times. */
export class WordTable {
  readonly #buckets = new Map<number, { bytes: Uint8Array; text: string }[]>();

  text(buf: Uint8Array, start: number, end: number): string {
    let hash = end - start;
    for (let i = start; i < end; i++) hash = Math.imul(hash ^ buf[i], 0x01000193);
    const bucket = this.#buckets.get(hash);
    if (bucket !== undefined) {
      for (const entry of bucket) {
        if (entry.bytes.length === end - start && startsWith(buf, start, end, entry.bytes)) return entry.text;
      }
    }
    const bytes = buf.slice(start, end);
    const text = Buffer.from(bytes).toString('latin1');
    if (bucket === undefined) this.#buckets.set(hash, [{ bytes, text }]);
    else bucket.push({ bytes, text });
    return text;
  }
}
