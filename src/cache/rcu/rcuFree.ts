/** kfree_rcu for the objects of one cache; what becomes of them is in kfreeRcu.ts. */
import { Stat } from '../../cpu/index.js';
import { Intent } from '../../sync/index.js';
import { KmemCache } from '../kmemCache.js';
import { checkHead, HEADLESS } from './kfreeRcu.js';
import { Channel } from './kfreeRcuLists.js';

const { FREE } = Intent;
// Imported names are looked up at each use; module-local constants are folded.
const { FREE_RCU_SHEAF_FAIL } = Stat;

export abstract class RcuKmemCache extends KmemCache {
  override freeRcu(p: number, head?: number): void {
    this.assertAlive();
    const word = head === undefined ? HEADLESS : p + checkHead(head, this.objectSize);
    this.cpu.enter(FREE, this.desc.slot);
    try {
      this.takeBack(p);
      if (this.sheafCapacity > 0 && this.isLocal(p) && this.lockForRcu() && this.pushRcu(p)) return;
      this.count(FREE_RCU_SHEAF_FAIL);
      this.m[this.context.kfreeRcu.handHead] = word;
      this.m[this.context.kfreeRcu.hand] = p; // K1, with an operation on record until then
    } finally {
      if (this.context.policy === 'op') this.release();
      this.cpu.leave();
    }
    this.context.kfreeRcu.add(p, Channel.SLAB, word);
  }

  override freeRcuNolock(p: number, head: number): void {
    this.assertAlive();
    this.assertFreeable(p);
    const word = p + checkHead(head, this.objectSize);
    const begun = this.isLocal(p) ? this.beginNolock() : 'no';
    this.cpu.enterNolock(FREE, this.desc.slot);
    try {
      this.takeBack(p);
      if (begun !== 'no' && this.pushRcuNolock(p)) return;
      this.count(FREE_RCU_SHEAF_FAIL);
      this.m[this.context.kfreeRcu.handNolock] = word; // K1
      this.context.kfreeRcu.addNolock(word);
    } finally {
      this.endNolock(begun);
      this.cpu.leave();
    }
  }

  override rcuBarrier(): void {
    this.assertAlive();
    this.context.kfreeRcu.barrier(this);
  }

  override freeAfterGracePeriod(p: number): void {
    if (this.checked) this.shadow[p >> 3] = this.markOf(p);
    this.free(p);
  }

  override freeBulkAfterGracePeriod(list: Int32Array, n: number): void {
    if (this.checked) for (let i = 0; i < n; i++) this.shadow[list[i]! >> 3] = this.markOf(list[i]!);
    this.freeBulk(list, n);
  }

  protected rcuSheafWaits(): void {
    this.context.kfreeRcu.sheafWaits(this);
  }

  private lockForRcu(): boolean {
    return this.context.policy === 'turn' ? this.lockForTurn() : this.trylockPcs();
  }
}
