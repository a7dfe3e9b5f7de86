/**
 * Objects that are freed after a grace period, a sheaf of them at a time. A CPU gathers them in its rcu_free sheaf; a full
 * one waits in the barn of that CPU's node, whoever submits it, for a grace period, and then is an ordinary full sheaf: the objects go out
 * again without having been in a slab.
 *
 * The queue lies in the barn, so whichever CPU of the node looks first brings a ripe sheaf back, and none is lost with
 * a thread. A sheaf is submitted before its pcs lock is given up: a barrier that comes after finds it.
 */
import { Pcs, Stat, type ThisCpu } from '../cpu/index.js';
import { GracePeriods } from '../rcu/index.js';
import { LockClass } from '../sync/index.js';
import {
  Barn,
  type BarnPtr,
  barnGetEmptySheaf,
  barnIsFull,
  barnLock,
  barnOf,
  barnPutEmptySheaf,
  barnPutFullSheaf,
} from './barn.js';
import { barnLimit } from './barnLimit.js';
import { PcsLayer } from './pcs.js';
import { SHEAF_OBJECTS, Sheaf, type SheafPtr } from './sheaf.js';

const { spare: SPARE, rcuFree: RCU_FREE } = Pcs;
const { link: LINK, size: SIZE, node: GRACE_PERIOD } = Sheaf;
const { rcuHead: HEAD, rcuTail: TAIL, nrFull: NR_FULL, nrEmpty: NR_EMPTY } = Barn;
const { FREE_RCU_SHEAF, BARN_PUT, BARN_PUT_FAIL } = Stat;

/** Appends a sheaf to those that wait. */
function barnPutRcuSheaf(cpu: ThisCpu, barn: BarnPtr, sheaf: SheafPtr): void {
  const { m } = cpu;
  cpu.locks.lock(barnLock(barn), LockClass.Barn);
  try {
    m[sheaf + LINK] = 0;
    if (m[barn + TAIL] === 0) m[barn + HEAD] = sheaf;
    else m[m[barn + TAIL]! + LINK] = sheaf;
    m[barn + TAIL] = sheaf;
  } finally {
    cpu.locks.unlock(barnLock(barn), LockClass.Barn);
  }
}

/** The sheaf that waits longest, if its grace period is over; else 0. */
function barnGetRipeSheaf(cpu: ThisCpu, barn: BarnPtr, gracePeriods: GracePeriods): SheafPtr {
  const { m } = cpu;
  // data race, intended: a sheaf that arrives now is not ripe.
  if (m[barn + HEAD] === 0) return 0 as SheafPtr;
  cpu.locks.lock(barnLock(barn), LockClass.Barn);
  try {
    const sheaf = m[barn + HEAD] as SheafPtr;
    if (sheaf === 0 || !gracePeriods.poll(m[sheaf + GRACE_PERIOD]!)) return 0 as SheafPtr;
    m[barn + HEAD] = m[sheaf + LINK]!;
    if (m[barn + HEAD] === 0) m[barn + TAIL] = 0;
    m[sheaf + LINK] = 0;
    return sheaf;
  } finally {
    cpu.locks.unlock(barnLock(barn), LockClass.Barn);
  }
}

export abstract class RcuSheaves extends PcsLayer {
  private readonly gracePeriods = new GracePeriods(this.m, this.cpu.geometry);

  /**
   * Lock held, of a cache with sheaves. Puts an object into rcu_free, which may have to be found first. False, with the lock given up, when there
   * is no sheaf for it. Kernel: `__kfree_rcu_sheaf`.
   */
  protected pushRcu(p: number): boolean {
    const { m, pcs } = this;
    let sheaf = m[pcs + RCU_FREE] as SheafPtr;
    if (sheaf === 0) {
      if (!this.installRcuSheaf()) return false;
      sheaf = m[pcs + RCU_FREE] as SheafPtr;
    }
    const size = m[sheaf + SIZE]!;
    m[sheaf + SHEAF_OBJECTS + size] = p;
    m[sheaf + SIZE] = size + 1;
    this.count(FREE_RCU_SHEAF);
    if (size + 1 === this.sheafCapacity) {
      this.cpu.inHand(sheaf);
      m[pcs + RCU_FREE] = 0;
      this.submitRcuSheaf(sheaf, this.cpu.node);
      this.cpu.inHand(0);
    }
    return true;
  }

  /** Lock held: an empty spare, an empty sheaf of the barn, or a new one, for which the lock is given up meanwhile. */
  private installRcuSheaf(): boolean {
    const { m, pcs, cpu, desc } = this;
    const spare = m[pcs + SPARE] as SheafPtr;
    if (spare !== 0 && m[spare + SIZE] === 0) {
      m[pcs + SPARE] = 0;
      m[pcs + RCU_FREE] = spare;
      return true;
    }
    const barn = barnOf(cpu, desc, cpu.node);
    const empty = barnGetEmptySheaf(cpu, barn);
    if (empty !== 0) {
      m[pcs + RCU_FREE] = empty;
      return true;
    }
    this.unlockPcs();
    const fresh = this.sheaves.allocEmptySheaf(desc, this.sheafCapacity);
    if (fresh === 0) return false;
    if (!this.trylockPcs()) {
      barnPutEmptySheaf(cpu, barn, fresh);
      return false;
    }
    this.holdForTurn();
    // Somebody may have installed one while we were away: a callback, or the allocation of the sheaf itself.
    if (m[pcs + RCU_FREE] !== 0) barnPutEmptySheaf(cpu, barn, fresh);
    else m[pcs + RCU_FREE] = fresh;
    return true;
  }

  protected submitRcuSheaf(sheaf: SheafPtr, node: number): void {
    const { m, cpu, desc } = this;
    const barn = barnOf(cpu, desc, node);
    m[sheaf + GRACE_PERIOD] = this.gracePeriods.request();
    barnPutRcuSheaf(cpu, barn, sheaf);
    this.rcuSheafWaits();
  }

  /** A sheaf waits now: whoever knows how sees to it that somebody looks when its grace period is over. */
  protected abstract rcuSheafWaits(): void;

  /** In the middle of an allocation: only as many as the barn takes, since to flush one may free its sheaf. */
  protected recycleRcuSheaves(barn: BarnPtr): boolean {
    const { m, cpu } = this;
    while (this.barnTakesFull(barn)) {
      const ripe = barnGetRipeSheaf(cpu, barn, this.gracePeriods);
      if (ripe === 0) break;
      cpu.inHand(ripe);
      this.recycleRcuSheaf(barn, ripe);
      cpu.inHand(0);
    }
    return m[barn + NR_FULL]! > 0;
  }

  private barnTakesFull(barn: BarnPtr): boolean {
    return !barnIsFull(this.cpu, barn) && this.barnHasRoom(barn);
  }

  /** These sheaves come from outside: without this, each would leave an empty one more, since exchanges know no limit. */
  private barnHasRoom(barn: BarnPtr): boolean {
    const { m, cpu } = this;
    return m[barn + NR_FULL]! + m[barn + NR_EMPTY]! < barnLimit(cpu, barn) + cpu.geometry.barnEmpty;
  }

  /** Its grace period is over. Kernel: `rcu_free_sheaf`. */
  private recycleRcuSheaf(barn: BarnPtr, sheaf: SheafPtr): void {
    const { m, cpu } = this;
    m[sheaf + GRACE_PERIOD] = 0;
    // data races, intended: see the head of barn.ts.
    if (this.barnTakesFull(barn)) {
      this.count(BARN_PUT);
      barnPutFullSheaf(cpu, barn, sheaf);
      return;
    }
    this.count(BARN_PUT_FAIL);
    this.flushSheaf(sheaf);
    if (m[barn + NR_EMPTY]! < cpu.geometry.barnEmpty && this.barnHasRoom(barn))
      barnPutEmptySheaf(cpu, barn, sheaf);
    else this.sheaves.freeEmptySheaf(this.desc, sheaf);
  }

  /** Brings back what is ripe in the barns of all nodes; between operations. @internal */
  recycleAllRcuSheaves(): void {
    if (this.sheafCapacity === 0) return;
    const { cpu, desc } = this;
    for (let node = 0; node < desc.nodes; node++) {
      const barn = barnOf(cpu, desc, node);
      for (;;) {
        const ripe = barnGetRipeSheaf(cpu, barn, this.gracePeriods);
        if (ripe === 0) break;
        cpu.inHand(ripe);
        this.recycleRcuSheaf(barn, ripe);
        cpu.inHand(0);
      }
    }
  }

  /** Whether any barn has sheaves that wait. @internal */
  get rcuSheavesWait(): boolean {
    if (this.sheafCapacity === 0) return false;
    for (let node = 0; node < this.desc.nodes; node++) {
      if (this.m[barnOf(this.cpu, this.desc, node) + HEAD] !== 0) return true;
    }
    return false;
  }
}
