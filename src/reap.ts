/** Clearing up after a thread that is gone, by a survivor, as CPU hotplug does for a dead CPU. */
import { type Caches, slabMutexDied } from './cache/index.js';
import {
  beginReap,
  endReap,
  endReapsOf,
  hasOtherThread,
  lastCpuOf,
  releaseThread,
  ThreadRecord,
  threadName,
  threadRecordOf,
} from './cpu/index.js';
import type { PercpuAllocator } from './percpu/index.js';
import { CpuError, requireInteger } from './struct/index.js';
import {
  fetchOr,
  futexWake,
  INTENT_NAMES,
  isOwnedBy,
  LockRecord,
  loadAcquire,
  NO_CACHE,
  OWNER_DIED,
  ownerWord,
} from './sync/index.js';

/** What {@link Arena.cpuDead} found of the thread that is gone. */
export interface ReapReport {
  /** The CPU that it ran on. */
  cpu: number;
  /** Locks the thread died in, by word index: what they protect may be half done. */
  heldLocks: number[];
  /** Whatever else was not as it should be, in words. */
  notes: string[];
}

/**
 * The slot goes from ONLINE to DYING to FREE. Its pcs locks are released, and the sheaves drained unless other threads
 * run on the same CPU; locks that it died in are marked, so that whoever comes next gets an error that says so instead
 * of a wait without end.
 *
 * A reaper may be stopped by an error, or die, and another begins anew: each step may be done twice. What is given back
 * leaves the dead thread's record first, so that it is lost at worst, and not given back twice.
 */
export function reapThread(caches: Caches, percpu: PercpuAllocator, thread: number): ReapReport {
  const { geometry, views } = caches;
  requireInteger('thread', thread, 0, geometry.threads - 1);
  const { m } = views;
  const record = threadRecordOf(geometry, thread);
  if (thread === caches.cpu.thread) {
    throw new CpuError(`${threadName(geometry, thread)} is this thread; call offline()`);
  }
  beginReap(m, geometry, thread, caches.cpu.locks.owner);
  const ranOn = lastCpuOf(m, geometry, thread);
  const owner = ownerWord(thread, m[record + ThreadRecord.generation]!);
  const heldLocks = markHeldLocks(caches, record + ThreadRecord.locks, owner);
  const notes = intentOf(caches, record + ThreadRecord.locks);
  for (const victim of endReapsOf(m, geometry, owner)) {
    notes.push(`died while it reaped ${threadName(geometry, victim)}; call arena.cpuDead(${victim}) again`);
  }
  try {
    // First: what the caches flush may have percpu areas, which are given back under a lock that died perhaps.
    notes.push(...percpu.reap(thread, owner, ranOn));
    notes.push(...caches.reap(thread, owner));
    caches.guards.reap(thread);
    if (ranOn >= 0 && !hasOtherThread(m, geometry, ranOn, thread))
      notes.push(...percpu.counters.cpuDead(ranOn));
  } catch (error) {
    // A lock that the flush needs died with the thread. The slot stays taken, and can be reaped again. Nobody can
    // without slab_mutex: then at least no grace period waits for who reads no more.
    if (slabMutexDied(m, geometry)) caches.rcu.gracePeriods.forget(thread);
    endReap(m, geometry, thread);
    throw error;
  }
  const callbacks = caches.rcu.gracePeriods.forget(thread);
  if (callbacks > 0) notes.push(`${callbacks} RCU callbacks died with their thread`);
  releaseThread(m, geometry, thread);
  percpu.counters.updateBatch();
  return { cpu: ranOn >= 0 ? ranOn : thread % geometry.cpus, heldLocks, notes };
}

/** Marks every lock that the record names and that still names the dead owner, and wakes all who sleep on it. */
function markHeldLocks(caches: Caches, record: number, owner: number): number[] {
  const { m } = caches.views;
  const named = [m[record + LockRecord.pending]!];
  const nrHeld = Math.min(m[record + LockRecord.nrHeld]!, m.length);
  for (let i = 0; i < nrHeld; i++) named.push(m[record + LockRecord.held + i]!);
  const died: number[] = [];
  for (const lock of new Set(named)) {
    if (lock === 0 || !isOwnedBy(loadAcquire(m, lock), owner)) continue;
    fetchOr(m, lock, OWNER_DIED);
    futexWake(m, lock, Number.POSITIVE_INFINITY);
    died.push(lock);
  }
  return died;
}

/** What the thread was in the middle of: what it had in hand is lost until a repair exists. */
function intentOf(caches: Caches, record: number): string[] {
  const { m } = caches.views;
  if (m[record + LockRecord.intentDepth] === 0) return [];
  const sheaf = m[record + LockRecord.intentSheaf]!;
  const what = INTENT_NAMES[m[record + LockRecord.intentOp]!] ?? 'an unknown operation';
  const slot = m[record + LockRecord.intentSlot]!;
  const where = slot === NO_CACHE ? '' : `, cache slot ${slot}`;
  return [`died while ${what}${where}${sheaf !== 0 ? `, with the sheaf at word ${sheaf} in hand` : ''}`];
}
