/** Flushing the slot of a thread that is gone, by a survivor, as CPU hotplug does for a dead CPU. */
import type { Caches } from './cache/index.js';
import { CpuRecord, CpuState, cpuRecordOf, releaseCpu } from './cpu/index.js';
import type { GracePeriods } from './rcu/index.js';
import { CpuError } from './struct/index.js';
import {
  cmpxchg,
  fetchOr,
  futexWake,
  INTENT_NAMES,
  isOwnedBy,
  LockRecord,
  loadAcquire,
  OWNER_DIED,
  ownerWord,
  storeRelease,
} from './sync/index.js';

export interface ReapReport {
  cpu: number;
  /** Locks the thread died in, by word index: what they protect may be half done. */
  heldLocks: number[];
  /** Whatever else was not as it should be, in words. */
  notes: string[];
}

/**
 * The slot goes from ONLINE to DYING to FREE. Its sheaves are drained, its pcs locks released; locks that it died in
 * are marked, so that whoever comes next gets an error that says so instead of a wait without end.
 */
export function reapCpu(caches: Caches, gracePeriods: GracePeriods, cpu: number): ReapReport {
  caches.assertCpu(cpu);
  const { m } = caches.views;
  const record = cpuRecordOf(caches.geometry, cpu);
  if (cpu === caches.cpu.id) throw new CpuError(`CPU ${cpu} is this thread; call offline()`);
  const state = record + CpuRecord.state;
  if (cmpxchg(m, state, CpuState.ONLINE, CpuState.DYING) !== CpuState.ONLINE) {
    const now =
      loadAcquire(m, state) === CpuState.DYING ? 'is being reaped by another thread' : 'has no thread';
    throw new CpuError(`CPU ${cpu} ${now}`);
  }
  const owner = ownerWord(cpu, m[record + CpuRecord.generation]!);
  const heldLocks = markHeldLocks(caches, record + CpuRecord.locks, owner);
  const notes = intentOf(caches, record + CpuRecord.locks);
  try {
    notes.push(...caches.reap(cpu, owner));
  } catch (error) {
    // A lock that the flush needs died with the thread. The slot stays taken, and can be reaped again.
    storeRelease(m, state, CpuState.ONLINE);
    throw error;
  }
  const callbacks = gracePeriods.forget(cpu);
  if (callbacks > 0) notes.push(`${callbacks} RCU callbacks died with their thread`);
  releaseCpu(m, caches.geometry, cpu);
  return { cpu, heldLocks, notes };
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
  const where = `cache slot ${m[record + LockRecord.intentSlot]}`;
  return [`died while ${what}, ${where}${sheaf !== 0 ? `, with the sheaf at word ${sheaf} in hand` : ''}`];
}
