/**
 * The words that the threads of one pool share besides the arena: ranks, the barrier, and the flag by which a thread
 * that failed tells the others not to wait for it. Every wait here is bounded, and looks at that flag.
 */
import { GranaryError, LINE_WORDS } from '../struct/index.js';
import { fetchAdd, futexWait, futexWake, loadAcquire, storeRelease } from '../sync/index.js';

// Each on a line of its own: a waiting thread reads one of them all the time.
const RANKS = 0;
const ABORT = 1 * LINE_WORDS;
const ENTERED = 2 * LINE_WORDS;
const ARRIVED = 3 * LINE_WORDS;
const EPOCH = 4 * LINE_WORDS;
const CONTROL_WORDS = 5 * LINE_WORDS;

/** About 20 us of loads: threads with a core each leave a barrier within a microsecond of each other. */
const SPINS = 3000;
/** A sleeper looks at the abort flag this often; a wake comes at once. */
const LOOK_MS = 20;
/** The other side of a queue wakes nobody, since that would cost it a call: it is asked again so soon. */
const NAP_MS = 0.02;

/** Another thread of the pool failed, so this one stopped waiting for it. */
export class AbortedError extends GranaryError {
  override name = 'AbortedError';
}

/** A thread of the pool did not come within the limit. */
class LabTimeoutError extends GranaryError {
  override name = 'LabTimeoutError';
}

export function controlWords(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(CONTROL_WORDS * Int32Array.BYTES_PER_ELEMENT));
}

export class Control {
  readonly words: Int32Array;
  readonly limitMs: number;

  constructor(words: Int32Array, limitMs: number) {
    this.words = words;
    this.limitMs = limitMs;
  }

  /** Makes ready for the next run; only while no thread is in one. Ranks stay. */
  reset(): void {
    for (const word of [ABORT, ENTERED, ARRIVED, EPOCH]) storeRelease(this.words, word, 0);
  }

  /** A number for this thread, from 0; for as long as the pool lives. */
  takeRank(): number {
    return fetchAdd(this.words, RANKS, 1);
  }

  get aborted(): boolean {
    return loadAcquire(this.words, ABORT) !== 0;
  }

  /** Ends all waits, now and until the next reset. */
  abort(): void {
    storeRelease(this.words, ABORT, 1);
    futexWake(this.words, EPOCH, Number.POSITIVE_INFINITY);
    futexWake(this.words, ENTERED, Number.POSITIVE_INFINITY);
  }

  /** Says that this thread has got its task. */
  enter(): void {
    fetchAdd(this.words, ENTERED, 1);
    futexWake(this.words, ENTERED, Number.POSITIVE_INFINITY);
  }

  /** Returns when all `size` threads of the pool have got theirs. */
  awaitAllEntered(size: number): void {
    for (let seen = loadAcquire(this.words, ENTERED); seen < size; ) {
      seen = this.awaitChange(
        this.words,
        ENTERED,
        seen,
        LOOK_MS,
        'a thread of the pool has not got its task',
      );
    }
  }

  /** Returns when `parties` threads are here. The caller has ended its turn. */
  barrier(parties: number): void {
    const { words } = this;
    // Pairs with the add below: whoever leaves sees what was written before the others arrived.
    const epoch = loadAcquire(words, EPOCH);
    if (fetchAdd(words, ARRIVED, 1) + 1 < parties) {
      this.awaitChange(words, EPOCH, epoch, LOOK_MS, `one of ${parties} threads did not come to the barrier`);
      return;
    }
    storeRelease(words, ARRIVED, 0);
    fetchAdd(words, EPOCH, 1);
    futexWake(words, EPOCH, Number.POSITIVE_INFINITY);
  }

  /** The word's value once it is no longer `seen`; for words whose writer does not wake. */
  poll(words: Int32Array, index: number, seen: number): number {
    return this.awaitChange(words, index, seen, NAP_MS, 'the other side of a queue stands still');
  }

  private awaitChange(
    words: Int32Array,
    index: number,
    seen: number,
    napMs: number,
    problem: string,
  ): number {
    for (let spin = 0; spin < SPINS; spin++) {
      const now = loadAcquire(words, index);
      if (now !== seen) return now;
    }
    const deadline = performance.now() + this.limitMs;
    for (;;) {
      if (this.aborted) throw new AbortedError('another thread of the pool failed');
      futexWait(words, index, seen, napMs);
      const now = loadAcquire(words, index);
      if (now !== seen) return now;
      if (performance.now() > deadline) throw new LabTimeoutError(`${problem} within ${this.limitMs} ms`);
    }
  }
}
