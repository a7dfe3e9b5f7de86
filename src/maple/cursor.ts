/** Iteration, from a key up or down. */

import { checkKey } from './keys.js';
import { MAPLE_MAX } from './node.js';
import type { MapleReader } from './reader.js';

/**
 * A place in a tree: the range that was found last. It holds on to nothing, so it may be kept from one read section to
 * the next; each step finds the range that follows at that moment. Kernel: `struct ma_state`, MA_STATE.
 */
export class MapleCursor {
  private readonly reader: MapleReader;
  /** The range that was found last. */
  first = 0;
  last = -1;
  entry = 0;

  constructor(reader: MapleReader, key = 0) {
    this.reader = reader;
    this.set(key);
  }

  /** Puts the cursor before `key`: `next` finds what is there or above, `prev` what is below. Kernel: `mas_set`. */
  set(key: number): void {
    this.first = checkKey('key', key);
    this.last = key - 1;
    this.entry = 0;
  }

  /** The entry at `key`, or 0; `first` and `last` are then its range, or the free one. Kernel: `mas_walk`. */
  walk(key: number): number {
    this.entry = this.reader.lookup(checkKey('key', key));
    this.first = this.reader.first;
    this.last = this.reader.last;
    return this.entry;
  }

  /** The next entry that begins, or goes on, at or below `max`; 0 when there is none. Kernel: `mas_find`, `mas_next`. */
  next(max = MAPLE_MAX): number {
    checkKey('max', max);
    for (let key = this.last + 1; key <= max; key = this.last + 1) {
      if (this.walk(key) !== 0) return this.entry;
    }
    this.entry = 0;
    return 0;
  }

  /** The one before, that ends at or above `min`; 0 when there is none. Kernel: `mas_prev`, `mas_find_rev`. */
  prev(min = 0): number {
    checkKey('min', min);
    for (let key = this.first - 1; key >= min; key = this.first - 1) {
      if (this.walk(key) !== 0) return this.entry;
    }
    this.entry = 0;
    return 0;
  }
}
