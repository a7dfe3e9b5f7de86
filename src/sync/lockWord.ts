/**
 * The lock word. It names its owner from the compare-exchange that takes it, because a thread may die between
 * any two shared-memory effects and must never hold a lock that does not say so.
 *
 * | bits  | meaning                                                                            |
 * |-------|------------------------------------------------------------------------------------|
 * | 0-15  | owner: thread slot + 1; 0 when free                                                |
 * | 16-28 | generation of the owner's slot: a later thread in the slot is somebody else        |
 * | 29    | OWNER_DIED: set by whoever reaps the slot; the next to come must repair, not enter |
 * | 30    | WAITERS: somebody may be asleep on the word, unlock has to wake                    |
 */
export const OWNER_MASK = 0xffff;
export const GENERATION_SHIFT = 16;
export const GENERATION_MASK = 0x1fff;
export const OWNER_DIED = 1 << 29;
export const WAITERS = 1 << 30;
export const UNLOCKED = 0;

/** What the thread in slot `thread`, in the slot's `generation`-th life, writes into a lock it takes. */
export function ownerWord(thread: number, generation: number): number {
  return (thread + 1) | ((generation & GENERATION_MASK) << GENERATION_SHIFT);
}

/** The thread slot that a lock word names, or -1 when it is free. */
export function ownerThread(word: number): number {
  return (word & OWNER_MASK) - 1;
}

/** Whether the word names this owner, whatever its flags say. */
export function isOwnedBy(word: number, owner: number): boolean {
  return (word & ~(WAITERS | OWNER_DIED)) === owner;
}
