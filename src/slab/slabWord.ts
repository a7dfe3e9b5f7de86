/**
 * The slab word: freelist head, number of objects in use, and frozen, in one 32-bit word that is compared and
 * exchanged at once. It stands for the kernel's double-width (freelist, counters).
 *
 * | bits  | meaning                                                  |
 * |-------|----------------------------------------------------------|
 * | 0-14  | freelist: index of the first free object + 1, 0 if none  |
 * | 15-29 | inuse: objects that are not on the freelist              |
 * | 30    | frozen: one CPU has the slab, see cpuSlabs.ts            |
 *
 * Why no ABA tag is needed:
 *  F1  Single objects are popped only under n->list_lock, so at most one CPU pops a given slab at a time.
 *  F2  Without the lock there are two operations: push (a chain in front of the freelist) and take-all (freelist
 *      to 0, inuse to all). A push makes inuse smaller, a take-all empties the list.
 *  F3  So while a popper looks at (head, next(head)), the word can only change by pushes and cannot come back to
 *      the value it read. The words of a free object's link are written before the push that publishes it.
 */
const INDEX_BITS = 15;
const INDEX_MASK = (1 << INDEX_BITS) - 1;
/** Belongs to one CPU, as its cpu slab or on its partial list: frees into it take no lock and move it nowhere. */
export const FROZEN = 1 << 30;

/** More objects than this fit in no slab; bounded by the width of the fields above. */
export const MAX_OBJS_PER_SLAB = INDEX_MASK;

export const packSlabWord = (freelist: number, inuse: number): number => freelist | (inuse << INDEX_BITS);
/** Index + 1 of the first free object, 0 when there is none. */
export const freelistOf = (word: number): number => word & INDEX_MASK;
export const inuseOf = (word: number): number => (word >> INDEX_BITS) & INDEX_MASK;
export const isFrozen = (word: number): boolean => (word & FROZEN) !== 0;
