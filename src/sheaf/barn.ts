/**
 * The barn: per cache and node, two stacks of whole sheaves, full and empty ones, under one barn->lock. A CPU
 * exchanges a sheaf here without touching the objects in it.
 *
 * How many full sheaves it takes is told in barnLimit.ts, and asked only where a CPU offers one in exchange. A sheaf
 * that has no other place to go is put whatever the limit. `barnEmpty` bounds what the end of a grace period puts
 * here, and that alone: where an empty sheaf is exchanged or put back, the kernel asks for no limit either.
 *
 * The limit is checked outside the lock: two CPUs that put at once may exceed it by one each, which costs memory for
 * one sheaf and nothing else.
 */
import type { ThisCpu } from '../cpu/index.js';
import { barnSlot, type CacheDesc } from '../slab/index.js';
import { LockClass, type LockPtr } from '../sync/index.js';
import { barnEbbed, barnLimit, barnRose, barnSpilled } from './barnLimit.js';
import { Barn, type BarnPtr } from './nodeBarn.js';
import { Sheaf, type SheafPtr } from './sheaf.js';

export { Barn, type BarnPtr } from './nodeBarn.js';

const { lock: LOCK, full: FULL, empty: EMPTY, nrFull: NR_FULL, nrEmpty: NR_EMPTY } = Barn;
const { link: LINK } = Sheaf;
const BARN_CLASS = LockClass.Barn;

export const barnOf = (cpu: ThisCpu, s: CacheDesc, node: number): BarnPtr =>
  cpu.m[barnSlot(s, node)] as BarnPtr;

export const barnLock = (barn: BarnPtr): LockPtr => (barn + LOCK) as unknown as LockPtr;

/** Pops a sheaf off one of the two stacks; lock held. */
function pop(cpu: ThisCpu, barn: BarnPtr, list: number, nr: number): SheafPtr {
  const { m } = cpu;
  const sheaf = m[barn + list] as SheafPtr;
  if (sheaf === 0) return sheaf;
  m[barn + list] = m[sheaf + LINK]!;
  m[sheaf + LINK] = 0;
  m[barn + nr] = m[barn + nr]! - 1;
  return sheaf;
}

/** Pushes a sheaf onto one of the two stacks; lock held. */
function push(cpu: ThisCpu, barn: BarnPtr, list: number, nr: number, sheaf: SheafPtr): void {
  const { m } = cpu;
  m[sheaf + LINK] = m[barn + list]!;
  m[barn + list] = sheaf;
  m[barn + nr] = m[barn + nr]! + 1;
}

/** Gives an empty sheaf, gets a full one; 0 if there is none. Kernel: `barn_replace_empty_sheaf`. */
export function barnReplaceEmptySheaf(cpu: ThisCpu, barn: BarnPtr, empty: SheafPtr): SheafPtr {
  // data race, intended: a sheaf that arrives now is found next time.
  if (cpu.m[barn + NR_FULL] === 0) return 0 as SheafPtr;
  cpu.locks.lock(barnLock(barn), BARN_CLASS);
  try {
    const full = pop(cpu, barn, FULL, NR_FULL);
    if (full !== 0) push(cpu, barn, EMPTY, NR_EMPTY, empty);
    barnEbbed(cpu.m, barn);
    return full;
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}

/** Why a full sheaf found no exchange. */
export const TOO_MANY_FULL = -1;
export const NO_EMPTY = 0;

/** Gives a full sheaf, gets an empty one; or says why not. Kernel: `barn_replace_full_sheaf`. */
export function barnReplaceFullSheaf(cpu: ThisCpu, barn: BarnPtr, full: SheafPtr): number {
  const { m } = cpu;
  // data races, intended: see the head of this file.
  if (m[barn + NR_FULL]! >= barnLimit(cpu, barn)) {
    barnSpilled(m, barn);
    return TOO_MANY_FULL;
  }
  if (m[barn + NR_EMPTY] === 0) return NO_EMPTY;
  cpu.locks.lock(barnLock(barn), BARN_CLASS);
  try {
    const empty = pop(cpu, barn, EMPTY, NR_EMPTY);
    if (empty !== 0) {
      push(cpu, barn, FULL, NR_FULL, full);
      barnRose(m, barn);
    }
    return empty;
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}

/** An empty sheaf, or 0. Kernel: `barn_get_empty_sheaf`. */
export function barnGetEmptySheaf(cpu: ThisCpu, barn: BarnPtr): SheafPtr {
  return takeOne(cpu, barn, EMPTY, NR_EMPTY);
}

/** A full sheaf, or 0; gives nothing in return. */
export function barnGetFullSheaf(cpu: ThisCpu, barn: BarnPtr): SheafPtr {
  return takeOne(cpu, barn, FULL, NR_FULL);
}

function takeOne(cpu: ThisCpu, barn: BarnPtr, list: number, nr: number): SheafPtr {
  if (cpu.m[barn + nr] === 0) return 0 as SheafPtr;
  cpu.locks.lock(barnLock(barn), BARN_CLASS);
  try {
    return pop(cpu, barn, list, nr);
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}

/** A full sheaf, else an empty one, or 0; gives nothing in return. Kernel: `barn_get_full_or_empty_sheaf`. */
export function barnGetFullOrEmptySheaf(cpu: ThisCpu, barn: BarnPtr): SheafPtr {
  // data races, intended: a sheaf that arrives now is found next time.
  if (cpu.m[barn + NR_FULL] === 0 && cpu.m[barn + NR_EMPTY] === 0) return 0 as SheafPtr;
  cpu.locks.lock(barnLock(barn), BARN_CLASS);
  try {
    const full = pop(cpu, barn, FULL, NR_FULL);
    return full !== 0 ? full : pop(cpu, barn, EMPTY, NR_EMPTY);
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}

/** {@link barnReplaceEmptySheaf} for a restricted context: 0 also when the barn's lock is not free. */
export function barnTryReplaceEmptySheaf(cpu: ThisCpu, barn: BarnPtr, empty: SheafPtr): SheafPtr {
  if (cpu.m[barn + NR_FULL] === 0 || !cpu.locks.tryLock(barnLock(barn), BARN_CLASS)) return 0 as SheafPtr;
  try {
    const full = pop(cpu, barn, FULL, NR_FULL);
    if (full !== 0) push(cpu, barn, EMPTY, NR_EMPTY, empty);
    return full;
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}

/** Whether the barn wants no more full sheaves; a data race, see the head of this file. */
export function barnIsFull(cpu: ThisCpu, barn: BarnPtr): boolean {
  return cpu.m[barn + NR_FULL]! >= barnLimit(cpu, barn);
}

/** An empty sheaf for the full one, or for nothing when that is 0; for a restricted context. 0 when there is none. */
export function barnTryReplaceFullSheaf(cpu: ThisCpu, barn: BarnPtr, full: SheafPtr): SheafPtr {
  const { m } = cpu;
  const none = 0 as SheafPtr;
  // data races, intended: see the head of this file.
  if (m[barn + NR_EMPTY] === 0 || (full !== 0 && barnIsFull(cpu, barn))) return none;
  if (!cpu.locks.tryLock(barnLock(barn), BARN_CLASS)) return none;
  try {
    const empty = pop(cpu, barn, EMPTY, NR_EMPTY);
    if (empty !== 0 && full !== 0) push(cpu, barn, FULL, NR_FULL, full);
    return empty;
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}

/** Puts a full sheaf; for recovery, so it knows no limit. */
export function barnPutFullSheaf(cpu: ThisCpu, barn: BarnPtr, full: SheafPtr): void {
  cpu.locks.lock(barnLock(barn), BARN_CLASS);
  try {
    push(cpu, barn, FULL, NR_FULL, full);
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}

/** Puts an empty sheaf; for recovery, so it knows no limit. */
export function barnPutEmptySheaf(cpu: ThisCpu, barn: BarnPtr, empty: SheafPtr): void {
  cpu.locks.lock(barnLock(barn), BARN_CLASS);
  try {
    push(cpu, barn, EMPTY, NR_EMPTY, empty);
  } finally {
    cpu.locks.unlock(barnLock(barn), BARN_CLASS);
  }
}
