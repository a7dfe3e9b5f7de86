/**
 * Frees that had to be put off, per CPU: a list that any CPU may push to its own of and any CPU may take whole.
 *
 * `deferred` of the CPU record is the address of the first object, each object holds the address of the next in a word
 * that its kind decides. `draining` is what its CPU took and has yet to free. Kernel: `defer_free_objects`, an llist.
 *
 *  DL1  push: the link is written, then the head exchanged. A head that went and came back in between is still the one
 *       that the link names, so no tag is needed.
 *  DL2  take: one exchange with 0, by the list's own CPU, by one that shrinks or destroys, or by the reaper. Whoever
 *       gets the chain frees it.
 *  DL3  `draining` moves on to the next object before one is freed: a thread that dies loses at most the one it was at.
 */
import type { Words } from '../struct/index.js';
import { cmpxchg, exchange, loadAcquire } from '../sync/index.js';
import { ThreadRecord, type ThreadRecordPtr } from './threadSlot.js';

const { deferred: DEFERRED, draining: DRAINING } = ThreadRecord;

/** Whether a CPU has anything to free; a hint while others may take it. */
export const hasDeferred = (m: Words, record: ThreadRecordPtr): boolean =>
  (m[record + DEFERRED]! | m[record + DRAINING]!) !== 0;

/** Puts an object in front; `link` is the word in it that will name the next. */
export function pushDeferred(m: Words, record: ThreadRecordPtr, p: number, link: number): void {
  const at = record + DEFERRED;
  for (let head = loadAcquire(m, at); ; ) {
    m[link] = head;
    // Pairs with the exchange in takeDeferred: whoever takes the chain sees its links.
    const seen = cmpxchg(m, at, head, p);
    if (seen === head) return;
    head = seen;
  }
}

/** Takes the whole list into the hands of the CPU of `mine`, which has nothing there. False when it was empty. */
export function takeDeferred(m: Words, record: ThreadRecordPtr, mine: ThreadRecordPtr): boolean {
  // No call between the two: a thread does not die there.
  const chain = exchange(m, record + DEFERRED, 0);
  m[mine + DRAINING] = chain;
  return chain !== 0;
}

/** Inherits what a dead CPU had taken; the caller's CPU has nothing in hand. False when there was nothing. */
export function inheritDraining(m: Words, dead: ThreadRecordPtr, mine: ThreadRecordPtr): boolean {
  const chain = m[dead + DRAINING]!;
  m[dead + DRAINING] = 0;
  m[mine + DRAINING] = chain;
  return chain !== 0;
}

/** The next object that this CPU has to free, or 0. */
export const drainingHead = (m: Words, mine: ThreadRecordPtr): number => m[mine + DRAINING]!;

/** Says that the head is about to be freed and `next` follows (DL3). */
export function advanceDraining(m: Words, mine: ThreadRecordPtr, next: number): void {
  m[mine + DRAINING] = next;
}
