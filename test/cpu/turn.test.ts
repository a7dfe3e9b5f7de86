/** A turn: what a thread holds from its first call until it returns to the event loop. */

import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf, ThreadRecord, ThreadState, threadRecordOf } from '#src/cpu/index.js';
import { Arena } from '#src/index.js';
import { isOwnedBy, ownerWord } from '#src/sync/index.js';
import { allocMany, boot, expectSound, freeMany, secondCpu } from '../cache/support/arena.js';

const lockOf = (arena: ReturnType<typeof boot>, slot: number, cpu = 0) =>
  arena.i32[pcsOf(arena.geometry, cpu, slot) + Pcs.lock]!;

describe("the 'turn' policy", () => {
  const setup = () => {
    const arena = boot();
    const [a, b] = ['a', 'b'].map((name) => arena.createCache(name, { size: 64 })) as [
      ReturnType<typeof arena.openCache>,
      ReturnType<typeof arena.openCache>,
    ];
    return { arena, a, b, locks: () => [lockOf(arena, a.desc.slot) !== 0, lockOf(arena, b.desc.slot) !== 0] };
  };

  it('keeps the locks that an operation took, under this CPU and life', () => {
    const { arena, a, locks } = setup();
    expect(locks()).toEqual([false, false]);
    a.alloc();
    expect(locks()).toEqual([true, false]);
    const generation = arena.i32[threadRecordOf(arena.geometry, 0) + ThreadRecord.generation]!;
    expect(isOwnedBy(lockOf(arena, a.desc.slot), ownerWord(0, generation))).toBe(true);
    expect(arena.cpu.locks.held, 'a trylock of its own, not one of the held list').toBe(0);
  });

  it('gives them back in the microtask that ends the synchronous run', async () => {
    const { a, b, locks } = setup();
    a.free(a.alloc());
    b.free(b.alloc());
    expect(locks()).toEqual([true, true]);
    await Promise.resolve();
    expect(locks()).toEqual([false, false]);
  });

  it('does so after each run anew', async () => {
    const { arena, a, locks } = setup();
    for (let i = 0; i < 5; i++) {
      a.free(a.alloc());
      expect(locks()[0]).toBe(true);
      await null;
      expect(locks()[0]).toBe(false);
    }
    setTimeout(() => a.free(a.alloc()));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(locks()[0]).toBe(false);
    expectSound(arena);
  });

  it('does so when the run ends with an exception', async () => {
    const { a, locks } = setup();
    const run = async () => {
      a.alloc();
      throw new Error('on purpose');
    };
    await expect(run()).rejects.toThrow('on purpose');
    await null;
    expect(locks()[0]).toBe(false);
  });

  it('gives them back at once with endTurn, as often as it is called', async () => {
    const { arena, a, b, locks } = setup();
    for (let i = 0; i < 3; i++) {
      a.alloc();
      b.alloc();
      arena.endTurn();
      expect(locks()).toEqual([false, false]);
      arena.endTurn();
    }
    a.alloc();
    await null;
    expect(locks()).toEqual([false, false]);
  });

  it('a microtask that was queued for a former turn ends the present one early, and no harm is done', async () => {
    const { arena, a, locks } = setup();
    a.alloc();
    arena.endTurn();
    a.alloc();
    expect(locks()[0]).toBe(true);
    await null;
    expect(locks()[0]).toBe(false);
    a.alloc();
    await null;
    expect(locks()[0]).toBe(false);
    expectSound(arena);
  });

  it('statistics, shrink, validate and offline end the turn of what they look at', () => {
    const { arena, a, locks } = setup();
    for (const look of [
      () => a.stats(),
      () => a.shrink(),
      () => arena.validate(),
      () => arena.slabinfo(),
      () => arena.cacheInfo(),
    ]) {
      a.free(a.alloc());
      expect(locks()[0]).toBe(true);
      look();
      expect(locks()[0]).toBe(false);
    }
    a.free(a.alloc());
    arena.offline();
    expect(locks()[0]).toBe(false);
  });
});

describe("the 'op' policy", () => {
  it('holds nothing between operations', () => {
    const arena = boot({ lockPolicy: 'op', cpus: 2, nodes: 2 });
    const cache = arena.createCache('c', { size: 64 });
    const out = new Int32Array(10);
    const operations = [
      () => cache.free(cache.alloc()),
      () => cache.allocBulk(out, 10),
      () => cache.freeBulk(out, 10),
      () => cache.free(cache.allocNode(0)),
      () => cache.free(cache.allocNode(1)),
      () => arena.kfree(arena.kmalloc(10)),
      () => freeMany(cache, allocMany(cache, 1000)),
    ];
    for (const operation of operations) {
      operation();
      for (const name of arena.cacheNames()) expect(lockOf(arena, arena.openCache(name).desc.slot)).toBe(0);
    }
    expectSound(arena);
  });

  it('gives the lock back even when an operation fails', () => {
    const arena = boot({ lockPolicy: 'op' });
    const cache = arena.createCache('c', { size: 64 });
    arena.failPageAlloc(1);
    expect(cache.alloc()).toBe(0);
    expect(cache.allocBulk(new Int32Array(5), 5)).toBe(false);
    expect(cache.allocNode(0)).toBe(0);
    expect(() => cache.free(4096)).toThrow();
    expect(lockOf(arena, cache.desc.slot)).toBe(0);
  });
});

describe('a CPU slot', () => {
  it('goes from free to online and back, a generation further each time', () => {
    const arena = boot({ cpus: 3 });
    const record = threadRecordOf(arena.geometry, 2);
    const read = () => [arena.i32[record + ThreadRecord.state], arena.i32[record + ThreadRecord.generation]];
    expect(read()).toEqual([ThreadState.FREE, 0]);
    for (let life = 1; life <= 3; life++) {
      const other = secondCpu(arena, 2);
      expect(read()).toEqual([ThreadState.ONLINE, life]);
      expect(arena.onlineCpus).toEqual([0, 2]);
      other.offline();
      expect(read()).toEqual([ThreadState.FREE, life]);
    }
  });

  it('is the lowest free one by default', () => {
    const arena = boot({ cpus: 4 });
    const third = secondCpu(arena, 2);
    const taken = [1, 3].map(() => {
      const other = Arena.attach(arena.handle);
      other.online();
      return other.cpu.id;
    });
    expect([...taken, third.cpu.id]).toEqual([1, 3, 2]);
  });

  it('keeps the number that the thread gives itself', () => {
    const arena = boot();
    arena.offline();
    arena.online({ cpu: 1, tid: 4711 });
    expect(arena.i32[threadRecordOf(arena.geometry, 1) + ThreadRecord.tid]).toBe(4711);
  });

  it('wraps its generation without ever writing an owner word of 0', () => {
    const arena = boot({ cpus: 1, bytes: 2 << 20, maxCaches: 16 });
    const record = threadRecordOf(arena.geometry, 0);
    arena.offline();
    arena.i32[record + ThreadRecord.generation] = 0x1fff;
    arena.online();
    expect(arena.i32[record + ThreadRecord.generation]).toBe(0);
    expect(arena.cpu.locks.owner).toBe(1);
    arena.kfree(arena.kmalloc(8));
    expectSound(arena);
  });
});
