/** A list of 32-bit words that grows, for building programs. */
const START_WORDS = 1024;

export class WordList {
  words = new Int32Array(START_WORDS);
  length = 0;

  push(word: number): void {
    if (this.length === this.words.length) this.#grow();
    this.words[this.length++] = word;
  }

  /** Removes and returns the last word; there must be one. */
  pop(): number {
    this.length--;
    return this.words[this.length];
  }

  /** The words in memory that other threads can see. */
  toShared(): Int32Array {
    const shared = new Int32Array(new SharedArrayBuffer(this.length * Int32Array.BYTES_PER_ELEMENT));
    shared.set(this.words.subarray(0, this.length));
    return shared;
  }

  #grow(): void {
    const wider = new Int32Array(this.words.length * 2);
    wider.set(this.words);
    this.words = wider;
  }
}
