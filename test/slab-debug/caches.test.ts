/** What a debug cache does: past the sheaves, full lists, tracks, quarantine, traces, injected failures. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import type { KmemCache } from '#src/cache/index.js';
import {
  __GFP_NOWARN,
  type Arena,
  formatTraces,
  SLAB_NO_MERGE,
  SlabBugError,
  type SlabReport,
} from '#src/index.js';
import { Page } from '#src/page/index.js';
import { KmemCacheNode, nodeOf } from '#src/slab/index.js';
import {
  allocMany,
  boot,
  expectSound,
  freeMany,
  moved,
  nodeCounts,
  partialList,
  secondCpu,
} from '../cache/support/arena.js';

function setup(slabDebug: string, size = 64) {
  const arena = boot({ slabDebug });
  const reports: SlabReport[] = [];
  arena.onSlabReport((report) => reports.push(report));
  return { arena, cache: arena.createCache('c', { size, sheafCapacity: 32 }), reports };
}

/** Pages of the node's full slabs. */
function fullList(arena: Arena, cache: KmemCache): number[] {
  const found: number[] = [];
  const n = nodeOf(arena.i32, cache.desc, 0);
  for (let page = arena.i32[n + KmemCacheNode.full]!; page !== 0; page = arena.i32[page + Page.next]!) {
    found.push(page);
    if (found.length > 1000) throw new Error('the full list is a cycle');
  }
  return found;
}

describe('a debug cache', () => {
  it('has no sheaves, whatever it asked for: every operation is one of a slab', () => {
    const { cache } = setup('F');
    expect(cache.sheafCapacity).toBe(0);
    const steps = moved(cache, () => freeMany(cache, allocMany(cache, 10)));
    expect(steps).toMatchObject({ ALLOC_SLOWPATH: 10, FREE_SLOWPATH: 10, ALLOC_SLAB: 1 });
    expect(steps.ALLOC_FASTPATH ?? 0).toBe(0);
  });

  it('keeps its full slabs on a list when it keeps tracks, and only then', () => {
    for (const slabDebug of ['FU', 'F']) {
      const { arena, cache } = setup(slabDebug);
      const objects = allocMany(cache, 3 * cache.objsPerSlab);
      expect(nodeCounts(arena, cache)).toMatchObject({ partial: 0, slabs: 3 });
      expect(fullList(arena, cache).length).toBe(slabDebug === 'FU' ? 3 : 0);
      expect(cache.debug.validate()).toEqual({ slabs: slabDebug === 'FU' ? 3 : 0, errors: 0 });
      cache.free(objects.pop()!);
      expect(nodeCounts(arena, cache).partial).toBe(1);
      expect(fullList(arena, cache).length).toBe(slabDebug === 'FU' ? 2 : 0);
      expectSound(arena);
      freeMany(cache, objects);
      expectSound(arena);
      expect(cache.destroy().leaked).toBe(0);
    }
  });

  it('gives empty slabs back beyond min_partial, and looks them over before', () => {
    const { arena, cache, reports } = setup('FP');
    cache.minPartial = 0;
    const p = cache.alloc();
    const q = cache.alloc();
    cache.free(p);
    arena.u8[p + 5] = 1;
    expect(moved(cache, () => cache.free(q))).toMatchObject({ FREE_SLAB: 1, FREE_REMOVE_PARTIAL: 1 });
    expect(reports.map(({ what }) => what)).toEqual([
      'Poison overwritten',
      expect.stringMatching(/^Restoring Poison 0x[0-9a-f]+-0x[0-9a-f]+=0x6b$/),
    ]);
    expectSound(arena);
  });

  it('serves bulk calls, prefilled sheaves, restricted contexts and kfree_rcu', () => {
    const { arena, cache, reports } = setup('FZPU');
    const objects = new Int32Array(100);
    expect(cache.allocBulk(objects, 100)).toBe(true);
    cache.freeBulk(objects, 100);
    const sheaf = cache.prefill(5)!;
    const some = [sheaf.alloc(), sheaf.alloc(1)];
    expect(arena.u8.subarray(some[1]!, some[1]! + 64).every((byte) => byte === 0)).toBe(true);
    cache.return(sheaf);
    for (const p of some) cache.freeRcu(p);
    cache.rcuBarrier();
    cache.freeNolock(cache.allocNolock(0));
    arena.endTurn();
    expect(cache.debug.validate().errors).toBe(0);
    expect(reports).toEqual([]);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it.each([
    ['sheaves', 'turn'],
    ['sheaves', 'op'],
    ['percpu-array', 'turn'],
    ['cpu-slab', 'op'],
    ['none', 'turn'],
  ] as const)('works in an arena of layer %s, policy %s, on two nodes, kmalloc too', (layer, lockPolicy) => {
    const arena = boot({ bytes: 16 << 20, cpus: 4, nodes: 2, layer, lockPolicy, slabDebug: 'FZPU' });
    arena.onSlabReport(({ text }) => expect.unreachable(text));
    const cache = arena.createCache('c', { size: 40 });
    const objects = [...allocMany(cache, 100), cache.allocNode(1), cache.allocNode(0)];
    const blocks = Array.from({ length: 200 }, (_, i) => arena.kmalloc(1 + i * 7));
    blocks.forEach((p, i) => {
      arena.u8.fill(i, p, p + 1 + i * 7);
    });
    expect(blocks.every((p) => p !== 0)).toBe(true);
    for (const p of blocks) arena.kfree(p);
    freeMany(cache, objects);
    for (const name of arena.cacheNames()) {
      const each = arena.openCache(name);
      if (name.startsWith('kmalloc-')) expect(each.debug.validate().errors).toBe(0);
      each.shrink();
    }
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('returns 0 when out of memory, and has everything back afterwards', () => {
    const arena = boot({ bytes: 4 << 20, slabDebug: 'FZPU,c' });
    const cache = arena.createCache('c', { size: 1000 });
    const objects: number[] = [];
    for (let p = cache.alloc(__GFP_NOWARN); p !== 0; p = cache.alloc(__GFP_NOWARN)) objects.push(p);
    expect(objects.length).toBeGreaterThan(1000);
    const list = new Int32Array(100);
    freeMany(cache, objects.splice(0, 50));
    expect(cache.allocBulk(list, 100, __GFP_NOWARN), 'all or nothing').toBe(false);
    expect(cache.debug.validate().errors).toBe(0);
    freeMany(cache, objects);
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it('gets no array in front of its slabs later', () => {
    const arena = boot({ slabDebug: 'F,c' });
    const cache = arena.createCache('c', { size: 64, layer: 'none', flags: SLAB_NO_MERGE });
    expect(() => cache.setupPercpuArray(16)).toThrow(/cannot get a percpu array: it has debug flags/);
  });

  it('is validated while others work; without debug flags only the arena is', () => {
    const { arena } = setup('F');
    const plain = boot().createCache('plain', { size: 64 });
    expect(() => plain.debug.validate()).toThrow(/cache plain: validate needs a cache with debug flags/);
    expect(() => arena.openCache('c').debug.allocTraces()).toThrow(
      /traces need a cache with SLAB_STORE_USER/,
    );
  });
});

describe('a slab that fails a check', () => {
  it('is put where it does no harm: frozen, all of its objects in use', () => {
    const { arena, cache, reports } = setup('FP');
    const [p, q] = allocMany(cache, 2) as [number, number];
    cache.free(q);
    cache.free(p); // the next to be handed out
    const bad = partialList(arena, cache)[0]!.address;
    arena.u8[p] = 0x13;
    const next = cache.alloc();
    expect(next).not.toBe(0);
    expect(next & ~0xfff).not.toBe(bad);
    expect(reports.map(({ kind, what }) => `${kind} ${what.replace(/0x\w+/g, '0x')}`)).toEqual([
      'bug Poison overwritten',
      'fix Restoring Poison 0x-0x=0x',
      'fix Marking all objects used',
    ]);
    expect(cache.debug.validate().errors).toBe(0);
    expect(nodeCounts(arena, cache)).toMatchObject({ slabs: 2, partial: 1 });
    cache.free(next);
  });

  it('takes no free any more', () => {
    const { arena, cache, reports } = setup('FP');
    const [kept, p] = allocMany(cache, 2) as [number, number];
    cache.free(p);
    arena.u8[p] = 0x13;
    cache.alloc();
    reports.length = 0;
    cache.free(kept);
    expect(reports.map(({ what }) => what)).toEqual([
      'Slab disabled since SLUB metadata consistency check failed',
      `Object at 0x${kept.toString(16)} not freed`,
    ]);
    expect(cache.destroy().leaked).toBeGreaterThan(0);
  });
});

describe('tracks', () => {
  it('tell who allocated and who freed, on which CPU, and when', () => {
    const { arena, cache } = setup('FU');
    const other = secondCpu(arena);
    function allocator(): number {
      return cache.alloc();
    }
    const p = allocator();
    const { allocated, freed } = cache.debug.tracks(p);
    expect(allocated).toMatchObject({ cpu: 0, thread: 0, tid: 0 });
    expect(allocated!.stack[0]).toMatch(/allocator .*caches\.test\.ts/);
    expect(allocated!.age).toBeLessThan(5000);
    expect(freed).toBeUndefined();
    other.openCache('c').free(p);
    const again = cache.alloc();
    expect(again).toBe(p);
    expect(cache.debug.tracks(p).freed).toMatchObject({ cpu: 1, thread: 1 });
  });

  it('are summed up as alloc_traces and free_traces', () => {
    const { cache } = setup('U');
    expect(formatTraces(cache.debug.allocTraces())).toBe('No data\n');
    const often = () => cache.alloc();
    const objects = Array.from({ length: 70 }, often);
    const once = cache.alloc();
    const [first, second] = cache.debug.allocTraces();
    expect([first!.count, second!.count]).toEqual([70, 1]);
    expect(first).toMatchObject({ cpus: [0], nodes: [0], tids: { min: 0, max: 0 } });
    expect(formatTraces([first!])).toMatch(/^ {5}70 often.* age=[\d/]+ pid=0 cpus=0 nodes=0\n {8}at often/);
    expect(cache.debug.freeTraces()).toMatchObject([{ count: 71, stack: [] }]);
    expect(formatTraces(cache.debug.freeTraces())).toMatch(/^ {5}71 <not-available> nodes=0\n/);
    freeMany(cache, [...objects, once]);
  });

  it('of kmalloc tell what was wasted', () => {
    const arena = boot({ slabDebug: 'U,kmalloc-*' });
    const p = arena.kmalloc(100);
    const group = arena
      .openCache('kmalloc-128')
      .debug.allocTraces()
      .find(({ waste }) => waste === 28);
    expect(group).toMatchObject({ count: 1 });
    expect(formatTraces([group!])).toContain(' waste=28/28 ');
    arena.kfree(p);
  });

  it('of one thread are read by another: the stacks are in the arena', async () => {
    const { arena, cache } = setup('FU');
    const code = `
      const { workerData } = require('node:worker_threads');
      import(workerData.module).then(({ Arena }) => {
        const arena = Arena.attach(workerData.handle);
        arena.online({ tid: 77 });
        function inTheWorker() { return arena.openCache('c').alloc(); }
        const p = inTheWorker();
        arena.openCache('c').free(p);
        arena.offline();
        process.exit();
      });`;
    const module = new URL('../../dist/src/index.js', import.meta.url).href;
    await once(new Worker(code, { eval: true, workerData: { module, handle: arena.handle } }), 'exit');
    const p = cache.alloc();
    const { freed } = cache.debug.tracks(p);
    expect(freed).toMatchObject({ tid: 77, cpu: 1 });
    expect(freed!.stack.join('\n')).toContain('[worker eval]');
  });
});

describe('threads', () => {
  it('work on one debug cache at once, while it is validated: nothing is reported', async () => {
    const { arena, cache, reports } = setup('FZPU,c');
    arena.offline();
    arena.online({ cpu: 1 });
    const code = `
      const { workerData } = require('node:worker_threads');
      import(workerData.module).then(({ Arena }) => {
        const arena = Arena.attach(workerData.handle);
        arena.online();
        arena.onSlabReport((report) => { throw new Error(report.text); });
        const cache = arena.openCache('c');
        for (let round = 0; round < 30; round++) {
          const objects = Array.from({ length: 50 }, () => cache.alloc());
          for (const p of objects) arena.u8.fill(round, p, p + 64);
          for (const p of objects) if (arena.u8[p + 63] !== round) throw new Error('somebody else has it, too');
          for (const p of objects) cache.free(p);
        }
        arena.offline();
      });`;
    const module = new URL('../../dist/src/index.js', import.meta.url).href;
    const worker = new Worker(code, { eval: true, workerData: { module, handle: arena.handle } });
    let exit: number | undefined;
    worker.on('exit', (status) => {
      exit = status;
    });
    const mine = arena.openCache('c');
    let validated = 0;
    while (exit === undefined) {
      const objects = allocMany(mine, 20);
      validated += mine.debug.validate().slabs;
      freeMany(mine, objects);
      await new Promise((done) => setTimeout(done, 1));
    }
    expect([exit, reports]).toEqual([0, []]);
    expect(validated).toBeGreaterThan(0);
    expect(() => cache.alloc()).toThrow(/has left CPU/);
    expectSound(arena);
    expect(mine.destroy().leaked).toBe(0);
  });
});

describe('T', () => {
  it('tells of every object that comes and goes', () => {
    const { cache, reports } = setup('T');
    const p = cache.alloc();
    cache.free(p);
    expect(reports.map(({ kind, what }) => `${kind} ${what}`)).toEqual(['trace alloc', 'trace free']);
    expect(reports[0]!.text).toMatch(new RegExp(`^TRACE c alloc 0x${p.toString(16)} inuse=1 fp=0x`));
    expect(reports[1]!.text).toMatch(/\nObject {3}[0-9a-f]{8}: /);
    expect(cache.debug.errors).toBe(0);
  });
});

describe('A', () => {
  it('fails the nth allocation of a marked cache, with or without sheaves', () => {
    for (const slabDebug of ['A,c', 'FA,c']) {
      const { arena, cache } = setup(slabDebug);
      expect(cache.sheafCapacity).toBe(slabDebug === 'A,c' ? 60 : 0);
      const fault = arena.failslab({ nth: 3 });
      const objects = [cache.alloc(), cache.alloc(), cache.alloc(), cache.alloc()];
      expect(objects.map((p) => p === 0)).toEqual([false, false, true, false]);
      expect([fault.pending, fault.injected]).toEqual([false, 1]);
      const list = new Int32Array(5);
      arena.failslab({ nth: 1 });
      expect(cache.allocBulk(list, 5)).toBe(false);
      expect(cache.allocBulk(list, 5)).toBe(true);
      arena.failslab({ interval: 2, space: 1, times: 2 });
      const more = Array.from({ length: 8 }, () => cache.alloc());
      expect(more.map((p) => p === 0)).toEqual([false, false, true, false, true, false, false, false]);
      arena.failslab({});
      freeMany(
        cache,
        [...objects, ...list, ...more].filter((p) => p !== 0),
      );
      expect(cache.destroy().leaked).toBe(0);
      expectSound(arena);
    }
  });

  it('goes through all failures of an operation', () => {
    const { arena, cache } = setup('A,c');
    const work = (): boolean => {
      const objects: number[] = [];
      for (let i = 0; i < 4; i++) {
        const p = cache.alloc();
        if (p === 0) break;
        objects.push(p);
      }
      freeMany(cache, objects);
      return objects.length === 4;
    };
    const results: boolean[] = [];
    for (let nth = 1, more = true; more; nth++) {
      const fault = arena.failslab({ nth });
      results.push(work());
      more = !fault.pending;
    }
    expect(results).toEqual([false, false, false, false, true]);
  });

  it('leaves other caches, and allocations that must not fail, alone', () => {
    const arena = boot({ slabDebug: 'A,marked' });
    const marked = arena.createCache('marked', { size: 64 });
    const other = arena.createCache('other', { size: 64 });
    arena.failslab({ interval: 1 });
    expect([marked.alloc(), other.alloc() === 0]).toEqual([0, false]);
    expect(() => arena.failslab({ nth: -1 })).toThrow(/nth is -1/);
  });
});

describe('a report', () => {
  it('goes to the console when nobody else wants it, and to handlers else', () => {
    const arena = boot({ slabDebug: 'FZ' });
    const cache = arena.createCache('c', { size: 64 });
    const printed: string[] = [];
    const { error } = console;
    console.error = (text: string) => printed.push(text);
    try {
      const p = cache.alloc();
      arena.u8[p + 64] = 1;
      cache.debug.validate();
      const end = arena.onSlabReport(() => {});
      arena.u8[p + 64] = 1;
      cache.debug.validate();
      end();
    } finally {
      console.error = error;
    }
    expect(printed.length).toBe(2);
    expect(printed[0]).toMatch(/^={77}\nBUG c \(Not tainted\): Right Redzone overwritten\n-{77}\n/);
    expect(printed[1]).toMatch(/^FIX c: Restoring Right Redzone 0x\w+-0x\w+=0xcc$/);
    expect(cache.debug.errors).toBe(4);
  });

  it('has the form of the kernel`s', () => {
    const { arena, cache, reports } = setup('FZPU', 30);
    const p = cache.alloc();
    arena.u8[p + 30] = 0x41;
    cache.free(p);
    const [bug, fix, kept] = reports;
    const address = p.toString(16);
    expect(bug!.text).toMatch(
      /\[Right Redzone overwritten\] 0x\w+-0x\w+ @offset=38\. First byte 0x41 instead of 0xcc\n/,
    );
    expect(bug!.text).toMatch(/\nAllocated in .* age=\d+ cpu=0 pid=0\n at .*caches\.test\.ts/);
    expect(bug!.text).toMatch(/\nSlab 0x\w+ objects=34 used=1 fp=0x\w+ flags=0x\w+\n/);
    expect(bug!.text).toContain(`\nObject 0x${address} @offset=8 fp=0x`);
    expect(bug!.text).toMatch(/\nRedzone {2}[0-9a-f]{8}: cc cc cc cc cc cc cc cc {2,}\.{8}\n/);
    expect(bug!.text).toMatch(/\nPadding {2}[0-9a-f]{8}: 5a/);
    expect(bug!.text).toMatch(/\nCPU: 0 thread: 0\nCall Trace:\n at /);
    expect(bug!.object).toMatchObject({ address: p, offset: 8 });
    expect(bug!.object!.dumps.map(({ name, bytes }) => `${name} ${bytes.length}`)).toEqual([
      'Redzone 8',
      'Object 30',
      'Redzone 2',
      'Padding 8',
    ]);
    expect(bug!.damage).toEqual({
      area: 'Right Redzone',
      from: p + 30,
      to: p + 31,
      expected: 0xcc,
      found: 0x41,
    });
    expect([fix!.kind, kept!.text]).toEqual(['fix', `FIX c: Object at 0x${address} not freed`]);
    cache.free(p); // it was restored and stayed allocated: now it can be freed
    expect(reports.length).toBe(3);
    expectSound(arena);
  });

  it('leaves a damaged object allocated that was to be freed later', () => {
    const { arena, cache, reports } = setup('FZPU', 30);
    const p = cache.alloc();
    arena.u8[p + 30] = 0x41;
    arena.kfreeNolock(p);
    expectSound(arena);
    cache.alloc(); // which frees what was put off
    expect(reports.map(({ what }) => what)).toContain('Right Redzone overwritten');
    expectSound(arena);
    cache.free(p);
    expectSound(arena);
  });

  it('comes before the error of a refused free, and nothing changes', () => {
    const { arena, cache, reports } = setup('FU');
    const p = cache.alloc();
    cache.free(p);
    expect(() => cache.free(p)).toThrow(SlabBugError);
    expect(reports.map(({ what }) => what)).toEqual([
      `Object already free: 0x${p.toString(16)}`,
      `Object at 0x${p.toString(16)} not freed`,
    ]);
    expect(reports[0]!.object!.freed!.stack[0]).toContain('caches.test.ts');
    expectSound(arena);
  });
});
