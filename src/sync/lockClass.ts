/**
 * Lock order. A CPU acquires downwards: it waits for a class only while every class that it holds has a lower
 * level.
 *
 * | level | class                | what it protects                                          | how it is taken         |
 * |-------|----------------------|-----------------------------------------------------------|-------------------------|
 * | 1     | slab_mutex           | the cache registry, creation and destruction              | lock                    |
 * | 2     | pcpu_alloc_mutex     | making, ending, populating and depopulating chunks        | lock                    |
 * | 3     | cpu_sheaves->lock    | main, spare and rcu_free of one CPU                       | trylock only            |
 * | 4     | mmap_lock            | the areas of an address space, and who writes to its tree | lock                    |
 * | 5     | ma_lock              | who writes to a maple tree; readers need none             | lock                    |
 * | 6a    | barn->lock           | the two sheaf lists of one node and their counts          | lock                    |
 * | 6b    | n->list_lock         | partial list, nr_partial, SL_PARTIAL, single-object pop   | lock; trylock if remote |
 * | 6c    | krcp->lock           | the addresses that one CPU's kfree_rcu has gathered       | lock                    |
 * | 7     | zone->lock           | the free areas of one node's pages                        | lock                    |
 * | 8     | pcpu_lock            | maps, hints and lists of all chunks                       | lock                    |
 * | 8     | pcpu_areas->lock     | the areas that an area cache keeps                        | lock                    |
 * | 8     | percpu_counters_lock | the list of percpu counters                               | lock                    |
 * | 8     | fbc->lock            | the count of one percpu counter                           | lock; trylock under another of 8 |
 *
 * Of 6a to 8, only 7 is waited for under another of them, 6c; the rest never under one another. They are taken under 3:
 * a CPU keeps its own pcs lock while it refills from partial slabs or flushes the spare, and under 'turn' those of other
 * caches as well. That is safe because 3 is only ever tried, or asked for up to a limit: nobody waits for it in a circle.
 *
 * 2 comes before 3: constructors may allocate under slab_mutex, and what is done under the mutex takes pages and
 * kmallocs. 7 and 8 are leaves: nothing is waited for under them, and a destructor may take them.
 */
export const LockClass = {
  SlabMutex: 0,
  CpuSheaves: 1,
  Barn: 2,
  ListLock: 3,
  Zone: 4,
  Krcp: 5,
  PcpuAllocMutex: 6,
  PcpuLock: 7,
  PcpuAreas: 8,
  PercpuCounters: 9,
  PercpuCounter: 10,
  MaLock: 11,
  MmapLock: 12,
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
  'pcpu_alloc_mutex',
  'pcpu_lock',
  'pcpu_areas->lock',
  'percpu_counters_lock',
  'fbc->lock',
  'ma_lock',
  'mmap_lock',
];
export const NR_LOCK_CLASSES = LOCK_CLASS_NAMES.length;

/** Level in the order above; a class may be taken only while every held class has a lower level. */
export const LOCK_CLASS_LEVEL = [10, 18, 21, 22, 30, 23, 15, 40, 40, 40, 40, 20, 19];

const { SlabMutex, CpuSheaves, Barn, ListLock, Zone, Krcp } = LockClass;
const { PcpuAllocMutex, PcpuLock, PcpuAreas, PercpuCounters, PercpuCounter } = LockClass;
const { MaLock, MmapLock } = LockClass;
const PERCPU_LEAVES = [PcpuLock, PcpuAreas, PercpuCounters, PercpuCounter];

/**
 * What a CPU may wait for while it holds a lock of the class. Levels alone would let barn->lock be held around
 * n->list_lock, which nothing does: the fewer of these pairs there are, the less can close a circle. Whatever is only
 * tried is not in it. Checked by lockdep, see lockdep.ts.
 */
export const LOCK_CLASS_TAKES: Readonly<Record<LockClassId, readonly LockClassId[]>> = {
  [SlabMutex]: [PcpuAllocMutex, ...PERCPU_LEAVES, Barn, ListLock, Krcp, Zone],
  [PcpuAllocMutex]: [...PERCPU_LEAVES, Barn, ListLock, Krcp, Zone],
  // Kept for a turn, in which trees may be written to: those who want sheaves ask, and wait within a limit.
  [CpuSheaves]: [MmapLock, MaLock, ...PERCPU_LEAVES, Barn, ListLock, Krcp, Zone],
  [Barn]: [],
  [ListLock]: [],
  [Krcp]: [Zone],
  [Zone]: [],
  [PcpuLock]: [],
  [PcpuAreas]: [],
  [PercpuCounters]: [],
  [PercpuCounter]: [],
  [MaLock]: [...PERCPU_LEAVES, Barn, ListLock, Krcp, Zone],
  [MmapLock]: [MaLock, ...PERCPU_LEAVES, Barn, ListLock, Krcp, Zone],
};

/** Last in every chain: a callback may wait for one whatever its caller holds, and under it for nothing but a leaf of its line. */
export const LEAF_LOCK_CLASSES: readonly LockClassId[] = [Zone, ...PERCPU_LEAVES];

/** Mutexes: a thread may sleep for something else than a lock while it holds one. */
export const SLEEPING_LOCK_CLASSES: readonly LockClassId[] = [SlabMutex, PcpuAllocMutex, MaLock, MmapLock];

/**
 * Each lock has a word of its own for its owner, which is given up by a plain store-release that tells nobody else. Kept
 * for a turn, or for as long as a cache takes to end.
 */
export const OWN_WORD_LOCK_CLASSES: readonly LockClassId[] = [CpuSheaves];

/** Several locks of the class may be held at once: those of several caches, or of all CPUs. Kernel: nested classes. */
export const NESTED_LOCK_CLASSES: readonly LockClassId[] = [CpuSheaves];
