/** Taking memory out of a cache: shrink, destroy, and the sheaves of a CPU whose thread is gone. */
import { Pcs, pcsOf, sharesCpus, ThreadRecord, threadRecordOf } from '../cpu/index.js';
import {
  Barn,
  barnForgetGrowth,
  barnGetEmptySheaf,
  barnGetFullSheaf,
  barnOf,
  prefilledSheaves,
} from '../sheaf/index.js';
import { type CacheDesc, SLAB_KMALLOC } from '../slab/index.js';
import { CpuError } from '../struct/index.js';
import { cmpxchg, Intent, isOwnedBy, LockRecord, loadAcquire } from '../sync/index.js';
import type { Caches } from './caches.js';
import { releaseCache } from './create.js';
import type { KmemCache } from './kmemCache.js';
import { allocatedObjects } from './objects.js';
import { type DeadThread, LAYER_REAP } from './reclaim/reapLayer.js';
import { publishSlot } from './registry.js';
import { forEachPcs, lockRemotePcs, noteRemotePcs, unlockRemotePcs, whyKept } from './remote.js';
import type { LeakReport, ShrinkReport } from './reports.js';

/** Empties both lists of every barn. Kernel: `barn_shrink`. */
export function shrinkBarns(caches: Caches, cache: KmemCache): void {
  const { cpu } = caches;
  if (cache.sheafCapacity === 0) return;
  for (let node = 0; node < caches.geometry.nodes; node++) {
    const barn = barnOf(cpu, cache.desc, node);
    barnForgetGrowth(cpu.m, barn);
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
  cache.drainQuarantine();
  const skippedCpus = forEachPcs(
    caches.cpu,
    cache.desc.slot,
    (pcs) => cache.detachPcs(pcs),
    () => cache.flushDetachedPcs(),
  );
  cache.recycleAllRcuSheaves(); // only those whose grace period is over
  shrinkBarns(caches, cache);
  return { slabs: shrinkNodes(caches, cache), skippedCpus };
}

/**
 * slab_mutex held. Every CPU's lock is taken first and kept, so that nobody gets back in. Without leaks the cache is ending
 * then: it is not live any more, and has its memory and slot until endCache. Kernel: `__kmem_cache_shutdown`.
 */
export function destroyCache(caches: Caches, cache: KmemCache): LeakReport {
  const { cpu, geometry, views } = caches;
  const { desc } = cache;
  cache.release();
  lockAll(caches, cache);
  try {
    cache.drainQuarantine();
    for (let id = 0; id < geometry.cpus; id++) {
      // list_lock under every CPU's pcs lock. Those are only ever tried, so nobody waits in a circle.
      cache.detachPcs(pcsOf(geometry, id, desc.slot));
      cache.flushDetachedPcs();
    }
    if (cache.rcuSheavesWait) {
      // Submitted between the barrier before and our taking the locks.
      caches.rcu.synchronize();
      cache.recycleAllRcuSheaves();
    }
    shrinkBarns(caches, cache);
    const sheaves = countPrefilled(caches, cache);
    const slabs = shrinkNodes(caches, cache);
    const guarded = caches.guards.live(desc);
    const leaks = slabs > 0 || sheaves > 0 || guarded.length > 0;
    const objects = leaks ? [...allocatedObjects(caches, desc), ...guarded] : [];
    publishSlot(views.m, geometry, desc.slot, -desc.serial, desc.ptr);
    if (leaks) caches.debug.leaked(cache, objects);
    else caches.guards.forget(desc);
    const report = { cache: desc.name, leaked: objects.length, objects };
    return sheaves > 0 ? { ...report, sheaves } : report;
  } finally {
    for (let id = 0; id < geometry.cpus; id++) unlockRemotePcs(cpu, pcsOf(geometry, id, desc.slot));
  }
}

/** slab_mutex held. The cache has nothing left, and nobody looks at its barns and nodes any more. Kernel: `slab_kmem_cache_release`. */
export function endCache(caches: Caches, desc: CacheDesc): void {
  publishSlot(caches.views.m, caches.geometry, desc.slot, 0, 0);
  releaseCache(caches, desc);
}

/** Sheaves of the cache that threads have borrowed: nobody but their threads may touch them. */
function countPrefilled({ geometry, views }: Caches, { desc }: KmemCache): number {
  let sheaves = 0;
  for (let id = 0; id < geometry.threads; id++) {
    sheaves += prefilledSheaves(views.m, pcsOf(geometry, id, desc.slot)).length;
  }
  return sheaves;
}

function lockAll(caches: Caches, cache: KmemCache): void {
  const { cpu, geometry } = caches;
  for (let id = 0; id < geometry.cpus; id++) {
    const pcs = pcsOf(geometry, id, cache.desc.slot);
    if (lockRemotePcs(cpu, pcs)) continue;
    const why = whyKept(cpu, pcs, caches.policy);
    for (let taken = 0; taken < id; taken++) unlockRemotePcs(cpu, pcsOf(geometry, taken, cache.desc.slot));
    throw new CpuError(
      `CPU ${id} did not give up its ${cache.layer} of ${cache.name}: ${why}, and destroy again`,
    );
  }
}

/**
 * Gives back the pcs lock that a dead thread held on one cache, and flushes the sheaves unless other threads use them.
 * The size word is always current, so nothing is lost but an operation that was under way.
 */
export function reapPcs(caches: Caches, cache: KmemCache, dead: DeadThread): string[] {
  const { m } = caches.views;
  clearRequestsOf(caches, cache, dead.owner);
  // Needs no lock: only the dead thread knew of them.
  cache.flushPrefilled(pcsOf(caches.geometry, dead.thread, cache.desc.slot));
  if (dead.cpu < 0) return [];
  if (!dead.othersStay) cache.drainQuarantine(dead.cpu);
  const pcs = pcsOf(caches.geometry, dead.cpu, cache.desc.slot);
  const word = loadAcquire(m, pcs + Pcs.lock);
  const held = isOwnedBy(word, dead.owner);
  if (held && mayHaveDiedIn(caches, cache, dead.thread)) return abandonPcs(caches, cache, dead);
  if (!held && dead.othersStay) return [];
  if (!held && word !== 0)
    return lockedByOther(caches, `${cache.name}: its pcs lock is held by somebody else`);
  if (cmpxchg(m, pcs + Pcs.lock, word, caches.cpu.locks.owner) !== word) {
    return lockedByOther(caches, `${cache.name}: its pcs lock changed hands while it was reaped`);
  }
  noteRemotePcs(caches.cpu, pcs);
  try {
    if (held) LAYER_REAP[cache.layer].fold(caches, cache, dead);
    if (!dead.othersStay) cache.detachPcs(pcs);
  } finally {
    unlockRemotePcs(caches.cpu, pcs);
  }
  if (!dead.othersStay) cache.flushDetachedPcs();
  return [];
}

/** Where CPUs are shared, a thread that came to the CPU just now: the sheaves are its own from now on. */
const lockedByOther = ({ geometry }: Caches, note: string): string[] => (sharesCpus(geometry) ? [] : [note]);

/** Whether the operation that the thread died in may have been moving sheaves of this pcs, whose lock it had. */
function mayHaveDiedIn(caches: Caches, cache: KmemCache, thread: number): boolean {
  const { desc } = cache;
  const { m } = caches.views;
  const record = threadRecordOf(caches.geometry, thread) + ThreadRecord.locks;
  const depth = m[record + LockRecord.intentDepth]!;
  if (!LAYER_REAP[cache.layer].hasState(cache) || depth === 0) return false;
  // Operations nest on any cache, a constructor's for one, and the record names only the outermost.
  if (depth > 1) return true;
  if (m[record + LockRecord.intentOp] === Intent.BULK_PUSH) return false;
  // Sheaves come from the kmalloc caches, so an operation on any cache may be one on theirs.
  return m[record + LockRecord.intentSlot] === desc.slot || (desc.flags & SLAB_KMALLOC) !== 0;
}

/**
 * Forgets what the pcs leads to, and gives its lock up. But for rcu_free: that sheaf is nowhere else at any moment, and
 * may be full, or have no object yet, which is not what its next owner expects.
 */
function abandonPcs(caches: Caches, cache: KmemCache, dead: DeadThread): string[] {
  const pcs = pcsOf(caches.geometry, dead.cpu, cache.desc.slot);
  const lost = LAYER_REAP[cache.layer].abandon(caches, cache, dead);
  cache.detachRcuSheaf(pcs);
  unlockRemotePcs(caches.cpu, pcs);
  cache.flushDetachedPcs();
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
