/**
 * Lock order. A CPU acquires downwards. 2b, 2c and 3 are taken under 2a, never under one another: a CPU keeps its own
 * pcs lock while it refills from partial slabs or flushes the spare, and under 'turn' those of other caches as well.
 * That is safe because 2a is only ever tried, or asked for up to a limit: nobody waits for it in a circle.
 *
 * | level | class          | what it protects                                       | how it is taken          |
 * |-------|----------------|--------------------------------------------------------|--------------------------|
 * | 1     | slab_mutex     | the cache registry, creation and destruction           | lock                     |
 * | 1a    | mmap_lock      | the areas of an address space, and who writes to its tree | lock                   |
 * | 1b    | ma_lock        | who writes to a maple tree; readers need none           | lock                     |
 * | 2a    | cpu_sheaves    | main, spare and rcu_free of one CPU                    | trylock only             |
 * | 2b    | barn->lock     | the two sheaf lists of one node and their counts       | lock                     |
 * | 2c    | n->list_lock   | partial list, nr_partial, SL_PARTIAL, single-object pop | lock; trylock if remote |
 * | 2d    | krcp->lock     | the addresses that one CPU's kfree_rcu has gathered     | lock                     |
 * | 3     | zone->lock     | the free areas of one node's pages                     | lock, with none of 2b-2c |
 */
export const LockClass = {
  SlabMutex: 0,
  CpuSheaves: 1,
  Barn: 2,
  ListLock: 3,
  Zone: 4,
  Krcp: 5,
  MaLock: 6,
  MmapLock: 7,
} as const;
export type LockClassId = (typeof LockClass)[keyof typeof LockClass];

/** Names as a kernel's lock_stat prints them, by class id. */
export const LOCK_CLASS_NAMES = [
  'slab_mutex',
  'cpu_sheaves->lock',
  'barn->lock',
  'n->list_lock',
  'zone->lock',
  'krcp->lock',
  'ma_lock',
  'mmap_lock',
];
export const NR_LOCK_CLASSES = LOCK_CLASS_NAMES.length;

/** Level in the order above; a class may be taken only while every held class has a lower level. */
export const LOCK_CLASS_LEVEL = [10, 20, 21, 22, 30, 23, 16, 14];
