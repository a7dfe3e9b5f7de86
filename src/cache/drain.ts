/** Taking memory out of a cache: shrink, destroy, and the sheaves of a CPU whose thread is gone. */
import { CpuRecord, cpuRecordOf, Pcs, type PcsPtr, pcsOf, Stat, statsOf } from '../cpu/index.js';
import { GFP_ATOMIC } from '../page/index.js';
import {
  Barn,
  barnGetEmptySheaf,
  barnGetFullSheaf,
  barnOf,
  COUNT_SHIFT,
  Sheaf,
  SIZE_MASK,
} from '../sheaf/index.js';
import { SLAB_KMALLOC } from '../slab/index.js';
import { CpuError } from '../struct/index.js';
import { cmpxchg, isOwnedBy, LockRecord } from '../sync/index.js';
import type { Caches } from './caches.js';
import { releaseCache } from './create.js';
import type { KmemCache, LeakReport, ShrinkReport } from './kmemCache.js';
import { allocatedObjects } from './objects.js';
import { publishSlot } from './registry.js';
import { forEachPcs, lockRemotePcs, unlockRemotePcs } from './remote.js';

/** Empties both lists of every barn. Kernel: `barn_shrink`. */
export function shrinkBarns(caches: Caches, cache: KmemCache): void {
  const { cpu } = caches;
  if (cache.sheafCapacity === 0) return;
  for (let node = 0; node < caches.geometry.nodes; node++) {
    const barn = barnOf(cpu, cache.desc, node);
    for (let full = barnGetFullSheaf(cpu, barn); full !== 0; full = barnGetFullSheaf(cpu, barn)) {
      cache.flushAndFreeSheaf(full);
    }
    for (let empty = barnGetEmptySheaf(cpu, barn); empty !== 0; empty = barnGetEmptySheaf(cpu, barn)) {
      caches.freeEmptySheaf(cache.desc, empty);
    }
  }
}

export function shrinkNodes(caches: Caches, cache: KmemCache): number {
  let slabs = 0;
  for (let node = 0; node < caches.geometry.nodes; node++) slabs += caches.slabs.shrinkNode(cache.desc, node);
  return slabs;
}

/** slab_mutex held. */
export function shrinkCache(caches: Caches, cache: KmemCache): ShrinkReport {
  cache.release();
  const skippedCpus = forEachPcs(
    caches.cpu,
    cache.desc.slot,
    (pcs) => cache.detachPcs(pcs),
    () => cache.flushDetachedPcs(),
  );
  shrinkBarns(caches, cache);
  return { slabs: shrinkNodes(caches, cache), skippedCpus };
}

/** slab_mutex held. Every CPU's lock is taken first and kept, so that nobody gets back in. */
export function destroyCache(caches: Caches, cache: KmemCache): LeakReport {
  const { cpu, geometry, views } = caches;
  const { desc } = cache;
  cache.release();
  lockAll(caches, cache);
  try {
    for (let id = 0; id < geometry.cpus; id++) {
      // The one place where list_lock is taken under pcs locks. They are only ever tried, so nobody waits in a circle.
      cache.detachPcs(pcsOf(geometry, id, desc.slot));
      cache.flushDetachedPcs();
    }
    shrinkBarns(caches, cache);
    if (shrinkNodes(caches, cache) > 0) {
      const objects = allocatedObjects(caches, desc);
      publishSlot(views.m, geometry, desc.slot, -desc.serial, desc.ptr);
      return { cache: desc.name, leaked: objects.length, objects };
    }
    publishSlot(views.m, geometry, desc.slot, 0, 0);
    releaseCache(caches, desc);
    return { cache: desc.name, leaked: 0, objects: [] };
  } finally {
    for (let id = 0; id < geometry.cpus; id++) unlockRemotePcs(cpu, pcsOf(geometry, id, desc.slot));
  }
}

function lockAll(caches: Caches, cache: KmemCache): void {
  const { cpu, geometry } = caches;
  for (let id = 0; id < geometry.cpus; id++) {
    if (lockRemotePcs(cpu, pcsOf(geometry, id, cache.desc.slot), id)) continue;
    for (let taken = 0; taken < id; taken++) unlockRemotePcs(cpu, pcsOf(geometry, taken, cache.desc.slot));
    throw new CpuError(
      `CPU ${id} did not give up its sheaves of ${cache.name}: it is blocked within a turn; ` +
        'call arena.endTurn() before a thread waits, and destroy again',
    );
  }
}

/**
 * Flushes what a dead thread's CPU holds of one cache; the slot is DYING and nobody else touches it. The size word is
 * always current, so nothing is lost but an operation that was under way.
 */
export function reapPcs(caches: Caches, cache: KmemCache, cpu: number, owner: number): string[] {
  const { m } = caches.views;
  const pcs = pcsOf(caches.geometry, cpu, cache.desc.slot);
  const word = m[pcs + Pcs.lock]!;
  clearRequestsOf(caches, cache, owner);
  if (word !== 0 && !isOwnedBy(word, owner)) return [`${cache.name}: its pcs lock is held by somebody else`];
  if (word !== 0 && mayHaveDiedIn(caches, cache, cpu)) return abandonPcs(caches, cache, cpu);
  if (cmpxchg(m, pcs + Pcs.lock, word, caches.cpu.locks.owner) !== word) {
    return [`${cache.name}: its pcs lock changed hands while it was reaped`];
  }
  try {
    if (word !== 0 && cache.sheafCapacity > 0) foldDead(caches, pcs);
    cache.detachPcs(pcs);
  } finally {
    unlockRemotePcs(caches.cpu, pcs);
  }
  cache.flushDetachedPcs();
  return [];
}

/** Whether the operation that the thread died in may have been at work on this pcs, whose lock it had. */
function mayHaveDiedIn(caches: Caches, { desc, sheafCapacity }: KmemCache, cpu: number): boolean {
  const { m } = caches.views;
  const record = cpuRecordOf(caches.geometry, cpu) + CpuRecord.locks;
  if (sheafCapacity === 0 || m[record + LockRecord.intentDepth] === 0) return false;
  // Sheaves come from the kmalloc caches, so an operation on any cache may be one on theirs.
  return m[record + LockRecord.intentSlot] === desc.slot || (desc.flags & SLAB_KMALLOC) !== 0;
}

/**
 * Main or spare may be in the barn by now, or on another CPU, if the thread died between the halves of an exchange.
 * Nobody can tell, so they stay where they are: what is lost is memory, where flushing them could free it twice.
 */
function abandonPcs(caches: Caches, cache: KmemCache, cpu: number): string[] {
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
  unlockRemotePcs(caches.cpu, pcs);
  return [`${cache.name}: the sheaves of CPU ${cpu} were given up, with the objects in them`];
}

/** The dead thread asked somebody for a lock: that wish died with it. */
function clearRequestsOf(caches: Caches, cache: KmemCache, owner: number): void {
  for (let id = 0; id < caches.geometry.cpus; id++) {
    const at = pcsOf(caches.geometry, id, cache.desc.slot) + Pcs.request;
    if (isOwnedBy(caches.views.m[at]!, owner)) cmpxchg(caches.views.m, at, owner, 0);
  }
}

/** Counts what the dead thread's main had counted; its objects that were pushed but still marked are free (P4). */
function foldDead(caches: Caches, pcs: PcsPtr): void {
  const { m, f64, shadow } = caches.views;
  const main = m[pcs + Pcs.main]!;
  const word = m[main + Sheaf.size]!;
  const size = word & SIZE_MASK;
  const allocs = word >>> COUNT_SHIFT;
  const stats = statsOf(pcs);
  f64[stats + Stat.ALLOC_FASTPATH] = f64[stats + Stat.ALLOC_FASTPATH]! + allocs;
  f64[stats + Stat.FREE_FASTPATH] = f64[stats + Stat.FREE_FASTPATH]! + (size - m[pcs + Pcs.base]! + allocs);
  m[main + Sheaf.size] = size;
  if (caches.check === 'none') return;
  for (let i = 0; i < size; i++) shadow[m[main + Sheaf.SIZEOF + i]! >> 3] = 0;
}

/** Figures of a cache's barns: sheaves by node. */
export function barnFigures(caches: Caches, cache: KmemCache): { full: number; empty: number } {
  const { m } = caches.views;
  let full = 0;
  let empty = 0;
  if (cache.sheafCapacity === 0) return { full, empty };
  for (let node = 0; node < caches.geometry.nodes; node++) {
    const barn = barnOf(caches.cpu, cache.desc, node);
    full += m[barn + Barn.nrFull]!;
    empty += m[barn + Barn.nrEmpty]!;
  }
  return { full, empty };
}
