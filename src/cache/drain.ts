/** Taking memory out of a cache: shrink, destroy, and the sheaves of a CPU whose thread is gone. */
import { CpuRecord, cpuRecordOf, Pcs, pcsOf } from '../cpu/index.js';
import { Barn, barnGetEmptySheaf, barnGetFullSheaf, barnOf } from '../sheaf/index.js';
import { SLAB_KMALLOC } from '../slab/index.js';
import { CpuError } from '../struct/index.js';
import { cmpxchg, isOwnedBy, LockRecord } from '../sync/index.js';
import type { Caches } from './caches.js';
import { releaseCache } from './create.js';
import type { KmemCache, LeakReport, ShrinkReport } from './kmemCache.js';
import { allocatedObjects } from './objects.js';
import { LAYER_REAP } from './reapLayer.js';
import { publishSlot } from './registry.js';
import { forEachPcs, lockRemotePcs, unlockRemotePcs } from './remote.js';

/** Empties both lists of every barn. Kernel: `barn_shrink`. */
function shrinkBarns(caches: Caches, cache: KmemCache): void {
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

function shrinkNodes(caches: Caches, cache: KmemCache): number {
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
 * Flushes what a dead thread's CPU holds of one cache; the slot is DYING and nobody else touches it. Size words and
 * freelists are always current, so nothing is lost but an operation that was under way.
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
    if (word !== 0) LAYER_REAP[cache.layer].fold(caches, cache, pcs);
    cache.detachPcs(pcs);
  } finally {
    unlockRemotePcs(caches.cpu, pcs);
  }
  cache.flushDetachedPcs();
  return [];
}

/** Whether the operation that the thread died in may have been at work on this pcs, whose lock it had. */
function mayHaveDiedIn(caches: Caches, cache: KmemCache, cpu: number): boolean {
  const { desc } = cache;
  const { m } = caches.views;
  const record = cpuRecordOf(caches.geometry, cpu) + CpuRecord.locks;
  if (!LAYER_REAP[cache.layer].hasState(cache) || m[record + LockRecord.intentDepth] === 0) return false;
  // Sheaves come from the kmalloc caches, so an operation on any cache may be one on theirs.
  return m[record + LockRecord.intentSlot] === desc.slot || (desc.flags & SLAB_KMALLOC) !== 0;
}

/** Forgets what the pcs leads to, and gives its lock up. */
function abandonPcs(caches: Caches, cache: KmemCache, cpu: number): string[] {
  const lost = LAYER_REAP[cache.layer].abandon(caches, cache, cpu);
  unlockRemotePcs(caches.cpu, pcsOf(caches.geometry, cpu, cache.desc.slot));
  return [`${cache.name}: ${lost}`];
}

/** The dead thread asked somebody for a lock: that wish died with it. */
function clearRequestsOf(caches: Caches, cache: KmemCache, owner: number): void {
  for (let id = 0; id < caches.geometry.cpus; id++) {
    const at = pcsOf(caches.geometry, id, cache.desc.slot) + Pcs.request;
    if (isOwnedBy(caches.views.m[at]!, owner)) cmpxchg(caches.views.m, at, owner, 0);
  }
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
