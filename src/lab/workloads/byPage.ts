/**
 * Bulk frees of objects that lie on different pages, the worst case of a bulk free that sorts by slab. Objects are kept
 * in lists by page, and a batch takes a number of them from one list, then from the next. Kernel: slab_bulk_test03.
 */
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, type Workload } from './workload.js';

const KEPT = 4096;
const BATCH = 64;
const LISTS = 16;

/** How many in a row come from the same list: those of the kernel's test, of which 65 is more than a batch. */
export const PAGE_RUNS: readonly number[] = [1, 2, 3, 6, 10, 65];

/** Objects by the page that they lie on, as the kernel's test hashes them. */
class PageLists {
  readonly #lists = Array.from({ length: LISTS }, () => new Int32Array(KEPT + BATCH));
  readonly #counts = new Int32Array(LISTS);
  #at = 0;

  put(batch: Int32Array, n: number): void {
    for (let i = 0; i < n; i++) {
      const list = (batch[i]! >> 12) & (LISTS - 1);
      this.#lists[list]![this.#counts[list]!++] = batch[i]!;
    }
  }

  /** Fills the batch, `run` in a row from one list, or as many as it has. */
  take(batch: Int32Array, n: number, run: number): void {
    for (let i = 0; i < n; ) {
      this.#at = (this.#at + 1) & (LISTS - 1);
      const list = this.#lists[this.#at]!;
      const take = Math.min(run, n - i, this.#counts[this.#at]!);
      for (let j = 0; j < take; j++) batch[i++] = list[--this.#counts[this.#at]!]!;
    }
  }
}

function rounds(heap: ObjectHeap, lists: PageLists, batch: Int32Array, n: number, run: number): void {
  for (let i = 0; i < n; i += BATCH) {
    lists.take(batch, BATCH, run);
    heap.freeBulk(batch, BATCH);
    if (!heap.allocBulk(batch, BATCH)) throw new OutOfArenaError();
    lists.put(batch, BATCH);
  }
}

export function byPage(run: number): Workload {
  return {
    name: `by-page-${run}`,
    about: `free ${BATCH} of ${KEPT} objects at once, ${run} in a row from one page, and allocate as many`,
    objectSize: 64,
    granule: BATCH,
    threadsPerOp: 1,
    prepare: ({ objects }, ops) => {
      const lists = new PageLists();
      const batch = new Int32Array(BATCH);
      return {
        allocs: KEPT + ops,
        frees: KEPT + ops,
        fill: () => {
          for (let i = 0; i < KEPT; i += BATCH) {
            if (!objects.allocBulk(batch, BATCH)) throw new OutOfArenaError();
            lists.put(batch, BATCH);
          }
        },
        run: () => rounds(objects, lists, batch, ops, run),
        drain: () => {
          for (let i = 0; i < KEPT; i += BATCH) {
            lists.take(batch, BATCH, BATCH);
            objects.freeBulk(batch, BATCH);
          }
        },
      };
    },
  };
}
