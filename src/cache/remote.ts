/**
 * Other CPUs' sheaves. Whoever wants them trylocks; if a thread holds the lock for its turn, it is asked and polls.
 * One that is blocked elsewhere never answers: its CPU is skipped and reported, not waited for. Under 'op' nobody keeps
 * the lock for longer than an operation, and no thread of the CPU takes it anew while we want it.
 */
import { Pcs, type PcsPtr, pcsOf, type ThisCpu, ThreadRecord, threadRecordOf } from '../cpu/index.js';
import { LockError, type LockPolicy } from '../struct/index.js';
import {
  cmpxchg,
  futexWait,
  futexWake,
  LockClass,
  type LockClassId,
  type LockPtr,
  LockRecord,
  loadAcquire,
  OWN_WORD_LOCK_CLASSES,
  ownerThread,
  storeRelease,
} from '../sync/index.js';
import { slabMutex } from './registry.js';

/** How long an owner has to answer. It looks with every allocation, so an answer takes a microsecond or never comes. */
export const REMOTE_LIMIT_MS = 100;
const POLL_MS = 2;

/**
 * Takes the lock of another CPU's pcs, asking for it if need be; slab_mutex held. False when its owner does not answer
 * in time; with a limit of 0 it is only tried.
 */
export function lockRemotePcs(cpu: ThisCpu, pcs: PcsPtr, limitMs = REMOTE_LIMIT_MS): boolean {
  const { m } = cpu;
  if (cmpxchg(m, pcs + Pcs.lock, 0, cpu.locks.owner) === 0) return noteRemotePcs(cpu, pcs);
  if (limitMs === 0) return false;
  // One asker at a time: the end of one's request would end another's, too.
  cpu.lockdep.assertHeld(slabMutex(cpu.geometry), LockClass.SlabMutex);
  cpu.lockdep.mightSleep('a request for the sheaves of another CPU', OWN_WORD_LOCK_CLASSES);
  const deadline = performance.now() + limitMs;
  // Pairs with the plain read in trylockPcs: from when it is seen, the CPU's threads keep off the lock until we had it.
  storeRelease(m, pcs + Pcs.request, cpu.locks.owner);
  let taken = false;
  while (!taken && performance.now() < deadline) {
    const word = loadAcquire(m, pcs + Pcs.lock);
    if (word !== 0) {
      // The word says whom to ask, whichever thread of the CPU it is.
      cpu.requestThread(ownerThread(word));
      nap(cpu, pcs + Pcs.lock, word);
    }
    taken = cmpxchg(m, pcs + Pcs.lock, 0, cpu.locks.owner) === 0;
  }
  storeRelease(m, pcs + Pcs.request, 0);
  return taken && noteRemotePcs(cpu, pcs);
}

/** The lock is ours, say the statistics and lockdep. What failed is not counted, since the owner was asked instead. */
export function noteRemotePcs(cpu: ThisCpu, pcs: PcsPtr): true {
  cpu.locks.noteTry((pcs + Pcs.lock) as unknown as LockPtr, LockClass.CpuSheaves, true);
  return true;
}

/** Sleeps while the lock word at `at` is `word`, a moment at most. */
function nap(cpu: ThisCpu, at: number, word: number): void {
  try {
    futexWait(cpu.m, at, word, POLL_MS);
  } catch {
    // A thread that may not sleep looks again at once; the deadline bounds it.
  }
}

export function unlockRemotePcs(cpu: ThisCpu, pcs: PcsPtr): void {
  storeRelease(cpu.m, pcs + Pcs.lock, 0);
  futexWake(cpu.m, pcs + Pcs.lock, 1);
}

/** Runs `take` on each CPU's pcs of a slot under its lock, and `then` after it. Returns the CPUs that kept theirs. */
export function forEachPcs(
  cpu: ThisCpu,
  slot: number,
  take: (pcs: PcsPtr) => void,
  then: () => void,
): number[] {
  const skipped: number[] = [];
  for (let id = 0; id < cpu.geometry.cpus; id++) {
    const pcs = pcsOf(cpu.geometry, id, slot);
    if (!lockRemotePcs(cpu, pcs)) {
      skipped.push(id);
      continue;
    }
    try {
      take(pcs);
    } finally {
      unlockRemotePcs(cpu, pcs);
    }
    then();
  }
  return skipped;
}

/** Why a CPU did not give its lock up, and what helps. */
export function whyKept(cpu: ThisCpu, pcs: PcsPtr, policy: LockPolicy): string {
  if (policy === 'turn') return 'it is blocked within a turn; call arena.endTurn() before a thread waits';
  const holder = ownerThread(loadAcquire(cpu.m, pcs + Pcs.lock));
  return `thread slot ${holder} has their lock; if its thread is gone, call arena.cpuDead(${holder})`;
}

/**
 * Whether a CPU that did not give its lock up may have objects for kfree_rcu: in rcu_free, or on the way from there into
 * the barn, in the hands of a thread that is in an operation.
 */
export function keepsRcuObjects(cpu: ThisCpu, pcs: PcsPtr): boolean {
  const { m, geometry } = cpu;
  const word = loadAcquire(m, pcs + Pcs.lock);
  if (loadAcquire(m, pcs + Pcs.rcuFree) !== 0) return true;
  if (word === 0) return false;
  const record = threadRecordOf(geometry, ownerThread(word)) + ThreadRecord.locks;
  return m[record + LockRecord.intentDepth] !== 0;
}

/** Takes a lock that may be held long; false when it is not ours within a limit. */
export function lockWithin(cpu: ThisCpu, lock: LockPtr, cls: LockClassId, limitMs: number): boolean {
  const { locks } = cpu;
  cpu.lockdep.mightSleep('a wait for a mutex');
  const before = locks.limitMs;
  locks.limitMs = limitMs;
  try {
    // Not by tries: a sleeper outside of the line would swallow the one wake that the next in line waits for (L3).
    locks.lock(lock, cls);
    return true;
  } catch (error) {
    if (error instanceof LockError) return false;
    throw error;
  } finally {
    locks.limitMs = before;
  }
}
