/**
 * The lock of one area: readers count themselves in `refcnt`, a writer holds mmap_lock.
 *
 *  V1  A reader adds itself by a compare-exchange that fails when the count is 0 (in no tree) or VMA_WRITER is set. Only
 *      then it looks what it has: `mm`, the bounds, and `lockSeq`. The memory may have been given to another area since
 *      the tree was read, but it is an area, and while the reader counts, it stays the one it is.
 *  V2  A writer sets VMA_WRITER, waits until nobody but the tree counts, and stores the mm's `seq` into `lockSeq`: readers
 *      that come now add themselves, see that, and go away. It then clears VMA_WRITER.
 *  V3  What a writer locked it gives free all at once, by the mm's next `seq`, with mmap_lock still held.
 *  V4  An area leaves the tree locked for writing; then its count goes from 1 to 0 with VMA_WRITER set, so that nobody is
 *      left who looks at it. It may be freed at once: no grace period.
 *
 * Kernel: `vma_start_read`, `__vma_start_write`, `vma_mark_detached`, `vma_end_write_all`. A reader that dies with its
 * reference holds a writer up until the limit; the error names the area.
 */
import { LockError, type Words } from '../struct/index.js';
import {
  canSleep,
  cmpxchg,
  fetchAdd,
  fetchOr,
  futexWait,
  futexWake,
  LOCK_LIMIT_MS,
  loadAcquire,
  storeRelease,
} from '../sync/index.js';
import { type MmPtr, MmStruct, VMA_WRITER, VmArea, type VmAreaPtr } from './layout.js';

const { seq: SEQ } = MmStruct;
const { start: START, end: END, mm: MM, refcnt: REFCNT, lockSeq: LOCK_SEQ } = VmArea;
const WRITER = VMA_WRITER;
const BACKSTOP_MS = 100;

/**
 * Takes a reference in what the tree of `mm` had at `address`, if it is that mm's area there and no writer has it. In a
 * read section.
 */
export function vmaStartRead(m: Words, mm: MmPtr, vma: VmAreaPtr, address: number): boolean {
  // A hint that saves the compare-exchange: looked at again below.
  if (m[vma + LOCK_SEQ] === m[mm + SEQ]) return false;
  // V1; pairs with vmaMarkAttached. Mostly nobody else reads.
  for (let count = 1; ; ) {
    const seen = cmpxchg(m, vma + REFCNT, count, count + 1);
    if (seen === count) break;
    if (seen === 0 || (seen & WRITER) !== 0) return false;
    count = seen;
  }
  // Pairs with the store of lockSeq in vmaStartWrite and of seq in vmaEndWriteAll. The other fields do not change while
  // the area is not locked for writing, and were written before it was attached or given free.
  const locked = loadAcquire(m, vma + LOCK_SEQ) === loadAcquire(m, mm + SEQ);
  if (!locked && m[vma + MM] === mm && m[vma + START]! <= address && address < m[vma + END]!) return true;
  vmaEndRead(m, vma);
  return false;
}

/** Gives the reference back, and wakes the writer that waits for it. */
export function vmaEndRead(m: Words, vma: VmAreaPtr): void {
  const count = fetchAdd(m, vma + REFCNT, -1); // pairs with the loads in waitForReaders
  if ((count & WRITER) !== 0) futexWake(m, vma + REFCNT, 1);
}

/** With mmap_lock held: no reader has the area, or gets it, until vmaEndWriteAll. */
export function vmaStartWrite(m: Words, mm: MmPtr, vma: VmAreaPtr): void {
  const seq = m[mm + SEQ]!;
  if (m[vma + LOCK_SEQ] === seq) return;
  waitForReaders(m, vma);
  storeRelease(m, vma + LOCK_SEQ, seq); // V2; pairs with the load in vmaStartRead
  fetchAdd(m, vma + REFCNT, -WRITER);
}

/** With mmap_lock held: gives all areas free that were locked for writing. */
export function vmaEndWriteAll(m: Words, mm: MmPtr): void {
  storeRelease(m, mm + SEQ, (m[mm + SEQ]! + 1) | 0); // V3; pairs with the load in vmaStartRead
}

/** A new area, complete and locked for writing, may be counted in. */
export function vmaMarkAttached(m: Words, vma: VmAreaPtr): void {
  storeRelease(m, vma + REFCNT, 1); // pairs with the compare-exchange in vmaStartRead
}

/** An area that has left the tree, locked for writing: nobody looks at it any more. */
export function vmaMarkDetached(m: Words, vma: VmAreaPtr): void {
  waitForReaders(m, vma);
  storeRelease(m, vma + REFCNT, 0); // V4
}

/** Sets VMA_WRITER and waits until only the tree counts. Throws, with the mark taken back, after the limit. */
function waitForReaders(m: Words, vma: VmAreaPtr): void {
  let count = fetchOr(m, vma + REFCNT, WRITER) | WRITER;
  if (count === (WRITER | 1)) return;
  const deadline = performance.now() + LOCK_LIMIT_MS;
  while (count !== (WRITER | 1)) {
    if (performance.now() > deadline) {
      fetchAdd(m, vma + REFCNT, -WRITER);
      const text = `${(count & ~WRITER) - 1} readers did not give it back within ${LOCK_LIMIT_MS} ms`;
      throw new LockError(`vm_area_struct at word ${vma}: ${text}`, 'vma', -1);
    }
    if (canSleep(m)) futexWait(m, vma + REFCNT, count, BACKSTOP_MS);
    count = loadAcquire(m, vma + REFCNT); // pairs with vmaEndRead
  }
}
