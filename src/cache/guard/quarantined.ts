/**
 * Caches with a quarantine: what is freed waits, poisoned, in a ring of its CPU (quarantine.ts) until as much has been
 * freed after it. A class of its own: other caches' paths do not know of it. Kernel: the quarantine of KASAN.
 */

import { POISON_END, POISON_FREE, SLAB_CTOR, SLAB_DTOR, SLAB_POISON } from '../../slab/index.js';
import { INIT_ON_FREE, LockError } from '../../struct/index.js';
import { Intent, LOCK_CLASS_NAMES, LockClass } from '../../sync/index.js';
import type { BulkKmemCache } from '../bulk.js';
import type { CacheContext } from '../context.js';
import type { KmemCacheClass } from '../kmemCache.js';
import { checkHead, HEADLESS } from '../rcu/kfreeRcu.js';
import { Channel } from '../rcu/kfreeRcuLists.js';
import { Quarantine } from './quarantine.js';

const { FREE } = Intent;
const LIST_LOCK = LOCK_CLASS_NAMES[LockClass.ListLock];

const made = new WeakMap<KmemCacheClass, KmemCacheClass>();

/** The same class with a quarantine behind its frees; made once for each. */
export function withQuarantine(base: KmemCacheClass): KmemCacheClass {
  const known = made.get(base);
  if (known !== undefined) return known;
  // Every layer's class is one of these; what makes them says less.
  const fresh = quarantinedClass(base as unknown as typeof BulkKmemCache);
  made.set(base, fresh);
  return fresh;
}

function quarantinedClass(Base: typeof BulkKmemCache): KmemCacheClass {
  return class QuarantinedKmemCache extends Base {
    private readonly quarantine: Quarantine;
    /** What is written into an object that waits: bytes, and the last one. Constructed objects stay as they are. */
    private readonly poison: number;
    private readonly last: number;
    private readonly poisoned: number;
    private readonly one = new Int32Array(1);

    constructor(context: CacheContext, slot: number) {
      super(context, slot);
      const { flags, ptr, objectSize, inuse } = this.desc;
      this.quarantine = new Quarantine(this.m, ptr);
      // With initOnFree, zeroes are poison enough, and what leaves is as it must be.
      const wiped = (context.geometry.init & INIT_ON_FREE) !== 0 && (flags & SLAB_POISON) === 0;
      this.poison = wiped ? 0 : POISON_FREE;
      this.last = wiped ? 0 : POISON_END;
      this.poisoned = (flags & (SLAB_CTOR | SLAB_DTOR)) !== 0 ? 0 : wiped ? inuse : objectSize;
    }

    override free(p: number): void {
      this.assertAlive();
      this.cpu.enter(FREE, this.desc.slot);
      try {
        if (this.m[this.request]! < 0) this.cpu.serveRequests();
        this.takeBack(p);
        this.hold(p);
      } finally {
        this.cpu.leave();
      }
    }

    override freeBulk(list: Int32Array, n: number): void {
      this.freeBulkSlow(list, n);
    }

    /** Their marks are gone. */
    protected override freeAll(list: Int32Array, n: number): void {
      for (let i = 0; i < n; i++) this.hold(list[i]!);
    }

    /** Past the sheaf for kfree_rcu, whose objects would never come by here. */
    override freeRcu(p: number, head?: number): void {
      this.assertAlive();
      const word = head === undefined ? HEADLESS : p + checkHead(head, this.objectSize);
      this.takeBack(p);
      this.m[this.context.kfreeRcu.handHead] = word;
      this.m[this.context.kfreeRcu.hand] = p; // K1
      this.context.kfreeRcu.add(p, Channel.SLAB, word);
    }

    override freeRcuNolock(p: number, head: number): void {
      this.assertAlive();
      const word = p + checkHead(head, this.objectSize);
      this.takeBack(p);
      this.m[this.context.kfreeRcu.handNolock] = word; // K1
      this.context.kfreeRcu.addNolock(word);
    }

    override freeAfterGracePeriod(p: number): void {
      this.one[0] = p;
      this.freeBulkAfterGracePeriod(this.one, 1);
    }

    override get freesSingly(): boolean {
      return true;
    }

    /** Not marked as allocated in between, as in other caches: a second free is refused all the time. */
    override freeBulkAfterGracePeriod(list: Int32Array, n: number): void {
      this.cpu.enter(FREE, this.desc.slot);
      try {
        for (let i = 0; i < n; i++) this.hold(list[i]!);
      } finally {
        this.cpu.leave();
      }
    }

    override flushThisCpu(): void {
      this.drainQuarantine(this.cpu.id);
      super.flushThisCpu();
    }

    override drainQuarantine(cpu?: number): void {
      if (cpu === undefined) {
        for (let id = 0; id < this.context.geometry.cpus; id++) this.drainQuarantine(id);
        return;
      }
      for (let slot = 0; slot < this.quarantine.capacity; slot++) {
        const p = this.quarantine.take(cpu, slot);
        if (p !== 0) this.freeDrained(cpu, slot, p);
      }
    }

    /** Straight to its slab: nobody drains to fill sheaves. A list_lock that is stuck leaves it waiting. */
    private freeDrained(cpu: number, slot: number, p: number): void {
      try {
        this.checkPoison(p);
        this.freeToSlab(p);
      } catch (error) {
        // list_lock comes before the push. When zone->lock is stuck, the object is free and its slab has ended.
        if (error instanceof LockError && error.lockClass === LIST_LOCK)
          this.quarantine.putBack(cpu, slot, p);
        throw error;
      }
    }

    override forEachCached(visit: (p: number, place: string) => void): void {
      super.forEachCached(visit);
      for (let id = 0; id < this.context.geometry.cpus; id++) {
        this.quarantine.forEach(id, (p) => visit(p, `the quarantine of CPU ${id}`));
      }
    }

    private hold(p: number): void {
      if (this.poisoned !== 0) this.fillPoison(p);
      const oldest = this.quarantine.put(this.cpu.id, p);
      if (oldest === 0) return;
      this.checkPoison(oldest);
      this.one[0] = oldest;
      super.freeAll(this.one, 1);
    }

    private fillPoison(p: number): void {
      const { u8 } = this.context.views;
      u8.fill(this.poison, p, p + this.poisoned - 1);
      u8[p + this.poisoned - 1] = this.last;
    }

    /** Somebody has written into an object that waited: reports it, and the object goes its way. */
    private checkPoison(p: number): void {
      const { u8 } = this.context.views;
      const end = p + this.poisoned - 1;
      if (this.poisoned === 0) return;
      let from = p;
      while (from < end && u8[from] === this.poison) from++;
      if (from === end && u8[end] === this.last) return;
      let to = end + 1;
      if (u8[end] === this.last) for (to = end; u8[to - 1] === this.poison; to--);
      this.reportDamage(p, from, to);
    }

    private reportDamage(p: number, from: number, to: number): void {
      const { desc, slabs } = this;
      const { sink } = slabs.checks;
      const expected = from === p + this.poisoned - 1 ? this.last : this.poison;
      const found = this.context.views.u8[from]!;
      const damage = { area: 'Quarantine', from, to, expected, found };
      sink.bug(desc, { what: 'Quarantine overwritten', page: slabs.slabOf(p), object: p, damage });
      this.fillPoison(p);
      sink.fix(desc, `Restoring Quarantine 0x${from.toString(16)}-0x${(to - 1).toString(16)}`);
      sink.flush();
    }
  };
}
