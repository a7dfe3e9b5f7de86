/**
 * The objects that are alive at one moment of a trace, by their 64-bit pointer: an open-addressing hash table of
 * plain words, as large as the trace's peak and no larger. A Map would need a string or a rounded double as key.
 */

const ENTRY_WORDS = 4;
const LOW = 0;
const HIGH = 1;
const OP = 2;
const CPU = 3;
const START_BITS = 10;
const EMPTY = -1;

export class PtrTable {
  #words: Int32Array;
  #bits = START_BITS;
  #size = 0;

  constructor() {
    this.#words = new Int32Array(ENTRY_WORDS << START_BITS);
    for (let at = OP; at < this.#words.length; at += ENTRY_WORDS) this.#words[at] = EMPTY;
  }

  get size(): number {
    return this.#size;
  }

  /** The entry of a pointer, or -1. Valid until the next `insert` or `remove`. */
  find(low: number, high: number): number {
    const words = this.#words;
    const mask = words.length - 1;
    let at = this.#home(low, high);
    while (words[at + OP] !== EMPTY) {
      if (words[at + LOW] === low && words[at + HIGH] === high) return at;
      at = (at + ENTRY_WORDS) & mask;
    }
    return -1;
  }

  /** Adds a pointer that is not in the table. `op` is where its allocation stands, `cpu` who made it. */
  insert(low: number, high: number, op: number, cpu: number): void {
    if (this.#size * 2 >= 1 << this.#bits) this.#grow();
    this.#place(low, high, op, cpu);
    this.#size++;
  }

  op(entry: number): number {
    return this.#words[entry + OP];
  }

  cpu(entry: number): number {
    return this.#words[entry + CPU];
  }

  /** Removes an entry and closes the gap, so that no markers of deletion pile up. */
  remove(entry: number): void {
    const words = this.#words;
    const mask = words.length - 1;
    let gap = entry;
    let at = entry;
    for (;;) {
      at = (at + ENTRY_WORDS) & mask;
      if (words[at + OP] === EMPTY) break;
      const home = this.#home(words[at + LOW], words[at + HIGH]);
      // An entry may move back to the gap unless that lies before its home.
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      words.copyWithin(gap, at, at + ENTRY_WORDS);
      gap = at;
    }
    words[gap + OP] = EMPTY;
    this.#size--;
  }

  /** Calls `visit` with op and CPU of every object that is still alive. */
  forEach(visit: (op: number, cpu: number) => void): void {
    const words = this.#words;
    for (let at = 0; at < words.length; at += ENTRY_WORDS) {
      if (words[at + OP] !== EMPTY) visit(words[at + OP], words[at + CPU]);
    }
  }

  #home(low: number, high: number): number {
    const hash = Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1);
    return (hash >>> (32 - this.#bits)) * ENTRY_WORDS;
  }

  #place(low: number, high: number, op: number, cpu: number): void {
    const words = this.#words;
    const mask = words.length - 1;
    let at = this.#home(low, high);
    while (words[at + OP] !== EMPTY) at = (at + ENTRY_WORDS) & mask;
    words[at + LOW] = low;
    words[at + HIGH] = high;
    words[at + OP] = op;
    words[at + CPU] = cpu;
  }

  #grow(): void {
    const old = this.#words;
    this.#bits++;
    this.#words = new Int32Array(ENTRY_WORDS << this.#bits);
    for (let at = OP; at < this.#words.length; at += ENTRY_WORDS) this.#words[at] = EMPTY;
    for (let at = 0; at < old.length; at += ENTRY_WORDS) {
      if (old[at + OP] !== EMPTY) this.#place(old[at + LOW], old[at + HIGH], old[at + OP], old[at + CPU]);
    }
  }
}
