/**
 * One line of a trace: `comm-pid [cpu] flags timestamp: event: key=value ...`, as the kernel's ftrace prints it;
 * `trace-cmd report` has no flags, `perf script` writes `comm pid` and `kmem:event`. The comm may hold blanks,
 * dashes, slashes, colons and brackets, so the line is recognised by `pid [cpu] [flags] timestamp:`.
 */
import { KMALLOC_MAX_SIZE } from '../../index.js';
import {
  cpuEnd,
  FieldKey,
  findCpu,
  HEX_DIGITS,
  isDigit,
  opensCpu,
  skipBlanks,
  skipTimestamp,
  startsWith,
  WordTable,
  wordEnd,
} from './bytes.js';

/** What a line is. Events from `cacheAlloc` on are the ones that count. */
export const EventKind = {
  /** Not an event line. */
  foreign: 0,
  /** An event that has no part in the replay. */
  other: 1,
  /** One of the known events without the fields it must have; `problem` says which. */
  malformed: 2,
  cacheAlloc: 3,
  kmalloc: 4,
  cacheFree: 5,
  kfree: 6,
  percpuAlloc: 7,
  percpuFree: 8,
} as const;
export type EventKind = (typeof EventKind)[keyof typeof EventKind];

// Module-local, so that V8 folds them.
const FOREIGN = EventKind.foreign;
const OTHER = EventKind.other;
const MALFORMED = EventKind.malformed;
const CACHE_ALLOC = EventKind.cacheAlloc;
const PERCPU_ALLOC = EventKind.percpuAlloc;
const KMALLOC = EventKind.kmalloc;
const CACHE_FREE = EventKind.cacheFree;
const KFREE = EventKind.kfree;

/** The most that one allocation can be, of the kernel and of an arena: a block of the highest order. */
export const BYTES_MAX = KMALLOC_MAX_SIZE;
const PTR_DIGITS_MAX = 16;

const SPACE = 32;
const COLON = 58;
const LOWER_F = 102;
const LOWER_X = 120;
const ZERO = 48;

const ascii = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'latin1'));
const PTR = new FieldKey('ptr');
const NAME = new FieldKey('name');
const BYTES_REQ = new FieldKey('bytes_req');
const BYTES_ALLOC = new FieldKey('bytes_alloc');
const SIZE = new FieldKey('size');
const ALIGN = new FieldKey('align');
const IS_ATOMIC = new FieldKey('is_atomic');
const NULL_TEXT = ascii('(null)');
/** The comm that frees in another context than the recorded program's have. */
const KTHREAD = ascii('kthread');

interface KnownEvent {
  name: Uint8Array;
  kind: EventKind;
}

/** Known events by the length of their names: at most two names to compare. */
const KNOWN: readonly (readonly KnownEvent[])[] = (() => {
  const table: KnownEvent[][] = Array.from({ length: 32 }, () => []);
  const add = (kind: EventKind, ...names: string[]): void => {
    for (const name of names) table[name.length].push({ name: ascii(name), kind });
  };
  add(EventKind.cacheAlloc, 'kmem_cache_alloc', 'kmem_cache_alloc_node');
  add(EventKind.kmalloc, 'kmalloc', 'kmalloc_node', 'kmalloc_large', 'kmalloc_large_node');
  add(EventKind.cacheFree, 'kmem_cache_free');
  add(EventKind.kfree, 'kfree');
  add(EventKind.percpuAlloc, 'percpu_alloc_percpu');
  add(EventKind.percpuFree, 'percpu_free_percpu');
  return table;
})();

/** A field's value: kernels print it behind the pointer (`next`), where the search starts; else anywhere. */
function find(key: FieldKey, buf: Uint8Array, from: number, next: number, end: number): number {
  const found = key.find(buf, next, end);
  return found >= 0 ? found : key.find(buf, from, end);
}

export interface ParserOptions {
  /**
   * Kernels before 6.1 do not print which cache an object came from. `'error'` (default) refuses such lines;
   * `'bySize'` makes one cache per object size of them.
   */
  namelessCaches?: 'error' | 'bySize' | undefined;
}

/**
 * Parses lines. The fields describe the line last parsed and are overwritten by the next one; those that an
 * event does not have keep no meaning.
 */
export class TraceEvent {
  kind: EventKind = FOREIGN;
  /** Its number in the file, from 1. */
  line = 0;
  /** The kernel's CPU number. */
  cpu = 0;
  /** The pointer as two words: an identity, which may be a hash, not an address. */
  ptrHigh = 0;
  ptrLow = 0;
  /** 0 where the event does not say. */
  bytesReq = 0;
  bytesAlloc = 0;
  /** Of a percpuAlloc only: bytes of one copy, how they are aligned, and whether the caller could not sleep. */
  percpuSize = 0;
  percpuAlign = 1;
  percpuAtomic = false;
  /** Name of the cache, of a cacheAlloc only. */
  name = '';
  /** Whether the comm is `kthread`; of a free only. */
  isKthread = false;
  /** Why the line is malformed. */
  problem = '';

  readonly #names = new WordTable();
  readonly #bySize: boolean;
  /** Where the last line had its `[cpu]`. */
  #cpuColumn = 0;

  constructor(options: ParserOptions = {}) {
    this.#bySize = options.namelessCaches === 'bySize';
  }

  /** Whether the event has a NULL pointer: a failed allocation, or kfree(NULL). */
  get isNull(): boolean {
    return this.ptrLow === 0 && this.ptrHigh === 0;
  }

  /** Parses the line in `[start, end)`, without its newline. */
  parse(buf: Uint8Array, start: number, end: number): EventKind {
    const after = this.#prefix(buf, start, end);
    this.kind = after < 0 ? FOREIGN : this.#event(buf, skipBlanks(buf, after, end), end);
    if (this.kind === CACHE_FREE || this.kind === KFREE) {
      this.isKthread = startsWith(buf, skipBlanks(buf, start, end), end, KTHREAD);
    }
    return this.kind;
  }

  /** Reads the CPU; returns the position behind the timestamp, or -1 where this is no event line. */
  #prefix(buf: Uint8Array, start: number, end: number): number {
    // Printers align their columns, so this line's CPU mostly stands where the last one's did.
    const likely = start + this.#cpuColumn;
    if (likely < end && opensCpu(buf, start, likely)) {
      const after = this.#cpuAt(buf, likely, end);
      if (after >= 0) return after;
    }
    // More than one try where the comm has brackets.
    for (let open = findCpu(buf, start, end); open < end; open = findCpu(buf, open + 1, end)) {
      const after = this.#cpuAt(buf, open, end);
      if (after < 0) continue;
      this.#cpuColumn = open - start;
      return after;
    }
    return -1;
  }

  /** Reads `[cpu] flags timestamp:` at `open`; returns the position behind it, or -1. */
  #cpuAt(buf: Uint8Array, open: number, end: number): number {
    const close = cpuEnd(buf, open, end);
    const after = close < 0 ? -1 : skipTimestamp(buf, close + 1, end);
    if (after < 0) return -1;
    let cpu = 0;
    for (let i = open + 1; i < close; i++) cpu = cpu * 10 + buf[i] - ZERO;
    this.cpu = cpu;
    return after;
  }

  /** Reads `event:` or `system:event:` at `p` and, of a known event, the fields. */
  #event(buf: Uint8Array, p: number, end: number): EventKind {
    let name = p;
    let q = p;
    while (q < end && buf[q] > SPACE) {
      if (buf[q] === COLON) {
        if (q + 1 >= end || buf[q + 1] <= SPACE) break;
        name = q + 1;
      }
      q++;
    }
    if (q >= end || buf[q] !== COLON || q - name >= KNOWN.length) return OTHER;
    for (const known of KNOWN[q - name]) {
      if (startsWith(buf, name, end, known.name)) return this.#fields(buf, q + 1, end, known.kind);
    }
    return OTHER;
  }

  #fields(buf: Uint8Array, from: number, end: number, kind: EventKind): EventKind {
    this.name = '';
    this.bytesReq = 0;
    this.bytesAlloc = 0;
    this.problem = '';
    const ptr = PTR.find(buf, from, end);
    if (ptr < 0) return this.#malformed('has no ptr=');
    const next = this.#ptr(buf, ptr, end);
    if (kind === CACHE_ALLOC || kind === KMALLOC) this.#sizes(buf, from, next, end);
    else if (kind === PERCPU_ALLOC) this.#percpu(buf, from, end);
    if (this.problem !== '') return MALFORMED;
    return kind === CACHE_ALLOC ? this.#named(buf, from, next, end) : kind;
  }

  #sizes(buf: Uint8Array, from: number, next: number, end: number): void {
    const requested = find(BYTES_REQ, buf, from, next, end);
    if (requested >= 0) this.bytesReq = this.#bytes(buf, requested, end, 'bytes_req');
    const allocated = find(BYTES_ALLOC, buf, from, next, end);
    if (allocated < 0) {
      this.problem ||= 'has no bytes_alloc=';
      return;
    }
    this.bytesAlloc = this.#bytes(buf, allocated, end, 'bytes_alloc');
    if (this.bytesAlloc === 0 && !this.isNull) this.problem ||= 'has bytes_alloc=0 for an object';
  }

  #percpu(buf: Uint8Array, from: number, end: number): void {
    const size = SIZE.find(buf, from, end);
    const align = ALIGN.find(buf, from, end);
    const atomic = IS_ATOMIC.find(buf, from, end);
    if (size < 0) this.problem ||= 'has no size=';
    else this.percpuSize = this.#bytes(buf, size, end, 'size');
    this.percpuAlign = align < 0 ? 1 : this.#bytes(buf, align, end, 'align');
    // Printed as 0 and 1, or as words.
    this.percpuAtomic = atomic >= 0 && buf[atomic] !== ZERO && buf[atomic] !== LOWER_F;
  }

  #named(buf: Uint8Array, from: number, next: number, end: number): EventKind {
    const start = find(NAME, buf, from, next, end);
    if (start >= 0) {
      const stop = wordEnd(buf, start, end);
      if (stop === start) return this.#malformed('has an empty name=');
      this.name = this.#names.text(buf, start, stop);
      return CACHE_ALLOC;
    }
    if (!this.#bySize) {
      return this.#malformed(
        "has no name= (kernels before 6.1 print none; namelessCaches: 'bySize' reads them)",
      );
    }
    this.name = `size-${this.bytesAlloc}`;
    return CACHE_ALLOC;
  }

  #malformed(problem: string): EventKind {
    this.problem = problem;
    return MALFORMED;
  }

  /** Reads a pointer: hexadecimal digits, with or without 0x, or the `(null)` that kernels pad with blanks. */
  #ptr(buf: Uint8Array, p: number, end: number): number {
    let q = skipBlanks(buf, p, end);
    this.ptrHigh = 0;
    this.ptrLow = 0;
    if (startsWith(buf, q, end, NULL_TEXT)) return q + NULL_TEXT.length;
    if (buf[q] === ZERO && q + 1 < end && buf[q + 1] === LOWER_X) q += 2;
    const first = q;
    const hex = HEX_DIGITS;
    let high = 0;
    let low = 0;
    for (; q < end; q++) {
      const digit = hex[buf[q]];
      if (digit < 0) break;
      high = (high << 4) | (low >>> 28);
      low = (low << 4) | digit;
    }
    if (q === first || q - first > PTR_DIGITS_MAX || (q < end && buf[q] > SPACE)) {
      this.problem = `has ptr=${this.#word(buf, p, end)}, which is not a hexadecimal number of 64 bits`;
    }
    this.ptrHigh = high;
    this.ptrLow = low;
    return q;
  }

  #bytes(buf: Uint8Array, p: number, end: number, field: string): number {
    let q = p;
    let value = 0;
    for (; q < end && isDigit(buf[q]); q++) value = value * 10 + buf[q] - ZERO;
    if (q === p || (q < end && buf[q] > SPACE)) {
      this.problem ||= `has ${field}=${this.#word(buf, p, end)}, which is not a decimal number`;
    } else if (value > BYTES_MAX) {
      this.problem ||= `has ${field}=${this.#word(buf, p, end)}, which is more than ${BYTES_MAX}`;
    }
    return value;
  }

  #word(buf: Uint8Array, p: number, end: number): string {
    return Buffer.from(buf.subarray(p, Math.min(wordEnd(buf, p, end), p + 40))).toString('latin1');
  }
}
