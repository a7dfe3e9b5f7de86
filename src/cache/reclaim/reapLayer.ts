/** What a dead thread's CPU has in front of the slabs of one cache, by layer. Its pcs lock was the dead thread's. */
import { CpuSlab, countersOf, Pcs, pcsOf, Stat } from '../../cpu/index.js';
import { GFP_ATOMIC } from '../../page/index.js';
import { COUNT_SHIFT, Sheaf, SIZE_MASK } from '../../sheaf/index.js';
import { MAX_OBJS_PER_SLAB, readFreePointer } from '../../slab/index.js';
import { CpuError, type Layer } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import type { KmemCache } from '../kmemCache.js';

/** A thread that is gone; its slot is DYING and nobody else writes what is the thread's. */
export interface DeadThread {
  thread: number;
  /** Its owner word. */
  owner: number;
  /** The CPU it ran on; -1 when it died before it had one. */
  cpu: number;
  /** Other threads run on that CPU: the sheaves are theirs as well, and stay. */
  othersStay: boolean;
}

interface LayerReap {
  /** Whether a CPU's block holds anything that an operation may have left half done. */
  hasState(cache: KmemCache): boolean;
  /**
   * Counts what the dead thread's fast paths had counted, and clears the marks of objects that are free already (P4,
   * C4). It died between two operations: its block is sound.
   */
  fold(caches: Caches, cache: KmemCache, dead: DeadThread): void;
  /**
   * It died within an operation on this cache, and nobody can tell how far it came. What the block leads to is left
   * alone and forgotten: what is lost is memory, where giving it back could give it back twice. Returns what was lost.
   */
  abandon(caches: Caches, cache: KmemCache, dead: DeadThread): string;
}

/** Main or spare may be in the barn by now, or on another CPU, if the thread died between the halves of an exchange. */
const sheaves: LayerReap = {
  hasState: ({ sheafCapacity }) => sheafCapacity > 0,

  fold: foldMain,

  abandon(caches, cache, { cpu }) {
    const { m } = caches.views;
    const pcs = pcsOf(caches.geometry, cpu, cache.desc.slot);
    const fresh = caches.allocEmptySheaf(cache.desc, cache.sheafCapacity, GFP_ATOMIC);
    if (fresh === 0) {
      throw new CpuError(
        `no memory for a sheaf of ${cache.name}, which CPU ${cpu} needs; free some and reap again`,
      );
    }
    m[pcs + Pcs.main] = fresh;
    m[pcs + Pcs.spare] = 0;
    m[pcs + Pcs.base] = 0;
    return `the sheaves of CPU ${cpu} were given up, with the objects in them`;
  },
};

/** An array is whole at any moment: it is drained like a living one's. */
const arrays: LayerReap = { hasState: () => false, fold: foldMain, abandon: () => 'nothing' };

/** Main, or the array in its place: what it counted; and objects that were pushed, also on rcu_free, but are still marked (P4). */
function foldMain(caches: Caches, { desc, mainCapacity, counters }: KmemCache, dead: DeadThread): void {
  if (mainCapacity === 0) return;
  const { m, f64, shadow } = caches.views;
  const pcs = pcsOf(caches.geometry, dead.cpu, desc.slot);
  const main = m[pcs + Pcs.main]!;
  const word = m[main + Sheaf.size]!;
  const size = word & SIZE_MASK;
  const allocs = word >>> COUNT_SHIFT;
  const stats = countersOf(caches.geometry, dead.thread, desc.slot);
  f64[stats + counters.alloc] = f64[stats + counters.alloc]! + allocs;
  f64[stats + counters.free] = f64[stats + counters.free]! + (size - m[pcs + Pcs.base]! + allocs);
  m[main + Sheaf.size] = size;
  if (caches.check === 'none') return;
  for (let i = 0; i < size; i++) shadow[m[main + Sheaf.SIZEOF + i]! >> 3] = 0;
  const rcuFree = m[pcs + Pcs.rcuFree]!;
  const waiting = rcuFree === 0 ? 0 : m[rcuFree + Sheaf.size]!;
  for (let i = 0; i < waiting; i++) shadow[m[rcuFree + Sheaf.SIZEOF + i]! >> 3] = 0;
}

/**
 * The cpu slab may have been unfrozen by now, and be another CPU's, if the thread died between a compare-exchange and
 * the store that follows it. Slabs that stay frozen without an owner take frees, and are never allocated from again.
 */
const cpuSlab: LayerReap = {
  hasState: () => true,

  fold(caches, cache, dead) {
    const { m, shadow } = caches.views;
    const pcs = pcsOf(caches.geometry, dead.cpu, cache.desc.slot);
    foldCpuSlab(caches, cache, dead);
    if (caches.check === 'none') return;
    let left = MAX_OBJS_PER_SLAB;
    for (let p = m[pcs + CpuSlab.freelist]!; p !== 0 && left-- > 0; p = readFreePointer(m, cache.desc, p)) {
      shadow[p >> 3] = 0;
    }
  },

  abandon(caches, cache, dead) {
    const { m } = caches.views;
    const { cpu } = dead;
    const pcs = pcsOf(caches.geometry, cpu, cache.desc.slot);
    const slabs = m[pcs + CpuSlab.nrPartial]! + (m[pcs + CpuSlab.slabStart] !== 0 ? 1 : 0);
    foldCpuSlab(caches, cache, dead);
    cache.detachPcs(pcs);
    cache.forgetDetachedPcs();
    return `the slabs of CPU ${cpu}, ${slabs} of them, were given up, with the free objects in them`;
  },
};

function foldCpuSlab(caches: Caches, { desc }: KmemCache, { cpu, thread }: DeadThread): void {
  const { m, f64 } = caches.views;
  const pcs = pcsOf(caches.geometry, cpu, desc.slot);
  const stats = countersOf(caches.geometry, thread, desc.slot);
  const { ALLOC_FASTPATH, FREE_FASTPATH } = Stat;
  f64[stats + ALLOC_FASTPATH] = f64[stats + ALLOC_FASTPATH]! + (m[pcs + CpuSlab.allocs]! >>> 0);
  f64[stats + FREE_FASTPATH] = f64[stats + FREE_FASTPATH]! + (m[pcs + CpuSlab.frees]! >>> 0);
  m[pcs + CpuSlab.allocs] = 0;
  m[pcs + CpuSlab.frees] = 0;
}

const none: LayerReap = { hasState: () => false, fold: () => {}, abandon: () => 'nothing' };

export const LAYER_REAP: Readonly<Record<Layer, LayerReap>> = {
  sheaves,
  'percpu-array': arrays,
  'cpu-slab': cpuSlab,
  none,
};
