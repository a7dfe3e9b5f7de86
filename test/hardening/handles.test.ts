/** Handles: an access to an object that was freed, or is somebody else's by now, throws. */
import { describe, expect, it } from 'vitest';
import {
  type Arena,
  type CacheHandles,
  GFP_KERNEL,
  joinHandle,
  type KmemCache,
  SlabBugError,
  splitHandle,
} from '#src/index.js';
import { KmemCacheStruct } from '#src/slab/index.js';
import { Control } from '#workers/litmus/control.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  footprint,
  freeMany,
  secondCpu,
} from '../cache/support/arena.js';
import { launch, runTeam, until } from '../litmus/support/team.js';
import { takePages } from '../pressure/support.js';

function thrown(action: () => unknown): SlabBugError {
  try {
    action();
  } catch (error) {
    if (error instanceof SlabBugError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

const setup = (options = {}, size = 64) => {
  const arena = boot(options);
  const cache = arena.createCache('c', { size });
  return { arena, cache, handles: cache.handles() };
};

describe('a handle', () => {
  it('leads to its object until that is freed, and never again', () => {
    const { arena, cache, handles } = setup();
    const h = handles.alloc();
    const p = handles.at(h);
    cache.assertAllocated(p);
    handles.free(h);
    expect(thrown(() => handles.at(h))).toMatchObject({ kind: 'use-after-free', address: p, cache: 'c' });
    expect(thrown(() => handles.at(h)).message).toMatch(/was freed as number 1, and is free/);
    const again = handles.alloc();
    expect(handles.at(again)).toBe(p); // the sheaf gives the same place out
    expect(again).not.toBe(h);
    expect(thrown(() => handles.at(h)).message).toMatch(/has been allocated 1 times since/);
    expect([handles.has(h), handles.has(again)]).toEqual([false, true]);
    expectRefused(arena, () => handles.free(h), SlabBugError, /already free/);
    expect(thrown(() => handles.free(h)).kind).toBe('double-free');
    handles.free(again);
    expect(cache.destroy().leaked).toBe(0);
  });

  it.each([8, 24, 64, 100, 192, 1000, 4096, 5000, 9000])(
    'of objects of %d bytes is one of its own',
    (size) => {
      const { arena, cache, handles } = setup({ bytes: 16 << 20 }, size);
      const all = Array.from({ length: 150 }, () => handles.alloc());
      const places = all.map((h) => handles.at(h));
      expect(new Set(all).size).toBe(150);
      expect(new Set(places).size).toBe(150);
      for (const p of places) cache.assertAllocated(p);
      for (const h of all.slice(0, 75)) handles.free(h);
      expect(all.map((h) => handles.has(h))).toEqual(all.map((_, i) => i >= 75));
      for (const h of all.slice(75)) handles.free(h);
      expectSound(arena);
      expect(cache.destroy().leaked).toBe(0);
    },
  );

  it('is void when its slab has been another cache and come back', () => {
    const { arena, cache, handles } = setup({}, 512);
    const all = Array.from({ length: 100 }, () => handles.alloc());
    for (const h of all) handles.free(h);
    cache.shrink();
    const other = arena.createCache('other', { size: 32 });
    const theirs = allocMany(other, 4000);
    for (const h of all) expect(thrown(() => handles.at(h)).kind).toBe('use-after-free');
    freeMany(other, theirs);
    other.destroy();
    const fresh = Array.from({ length: 200 }, () => handles.alloc());
    expect(fresh.filter((h) => all.includes(h))).toEqual([]);
    expect(all.filter((h) => handles.has(h))).toEqual([]);
    for (const h of fresh) handles.free(h);
    expectSound(arena);
  });

  it.each([0, -1, 1.5, Number.NaN, 2 ** 53, 7, 2 ** 40, '5' as unknown as number])('is not %s', (value) => {
    const { arena, handles } = setup();
    handles.alloc();
    arena.endTurn();
    expectRefused(arena, () => handles.at(value), SlabBugError, /Invalid handle/);
    expectRefused(arena, () => handles.free(value), SlabBugError, /Invalid handle/);
  });

  it('is not one whose generation is still to come, nor an address within the object', () => {
    const { handles } = setup({}, 96);
    const h = handles.alloc();
    const span = 2 ** (32 - Math.clz32(((8 << 20) - 1) >>> 5));
    expect(thrown(() => handles.at(h + span)).message).toMatch(
      /given out 1 times, and this would be number 2/,
    );
    expect(thrown(() => handles.at(h + 1)).kind).toBe('misaligned'); // 32 bytes into it
  });

  it('knows when its object was freed past it', () => {
    const { arena, cache, handles } = setup();
    const h = handles.alloc();
    const p = handles.at(h);
    cache.free(p);
    expect(thrown(() => handles.at(h)).kind).toBe('use-after-free');
    expect(thrown(() => handles.free(h)).kind).toBe('double-free');
    const next = handles.alloc();
    expect(handles.at(next)).toBe(p);
    expect(thrown(() => handles.at(h)).kind).toBe('use-after-free');
    handles.free(next);
    arena.endTurn();
    expectSound(arena);
  });

  it('ends with its cache', () => {
    const { cache, handles } = setup();
    const h = handles.alloc();
    handles.free(h);
    cache.destroy();
    expect(thrown(() => handles.at(h)).kind).toBe('cache-destroyed');
    expect(thrown(() => handles.alloc()).kind).toBe('cache-destroyed');
  });

  it('goes through two words of shared memory', () => {
    const { handles } = setup();
    const words = new Int32Array(2);
    for (const h of [handles.alloc(), handles.alloc(), 2 ** 53 - 1, 2 ** 32 - 1, 2 ** 31]) {
      words.set(splitHandle(h));
      expect(joinHandle(words[0]!, words[1]!)).toBe(h);
    }
  });
});

/** Sets how often the place of a handle's object has been given out. */
function ageTo({ arena, cache, handles }: Heap, h: number, uses: number): number {
  const words = (handles as unknown as { words: { find(p: number): number } }).words;
  arena.i32[words.find(handles.at(h))] = 2 * uses - 1;
  cache.assertAlive();
  const span = (handles as unknown as { span: number }).span;
  return (h % span) + uses * span;
}

interface Heap {
  arena: Arena;
  cache: KmemCache;
  handles: CacheHandles;
}

describe('generations', () => {
  it('are retired with the last handle of a place, and its object is free when the cache is destroyed', () => {
    const heap = setup();
    const { arena, cache, handles } = heap;
    expect(handles.generations).toBe(2 ** 30 - 1);
    const last = ageTo(heap, handles.alloc(), handles.generations);
    expect(Number.isSafeInteger(last)).toBe(true);
    const p = handles.at(last);
    handles.free(last);
    expect(handles.retired).toBe(1);
    expect(thrown(() => handles.at(last)).kind).toBe('use-after-free');
    const more = Array.from({ length: 200 }, () => handles.alloc());
    expect(more.map((h) => handles.at(h)).includes(p)).toBe(false);
    for (const h of more) handles.free(h);
    arena.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('are safe integers in the largest arena with the smallest objects', () => {
    const arena = boot({ bytes: 2 ** 31, check: 'none' });
    const heap = { arena, cache: arena.createCache('c', { size: 8 }) };
    const handles = heap.cache.handles();
    expect(handles.generations).toBe(2 ** 25 - 1);
    const last = ageTo({ ...heap, handles }, handles.alloc(), handles.generations);
    expect(Number.isSafeInteger(last)).toBe(true);
    handles.free(last);
    expect(handles.has(last)).toBe(false);
  });

  it('cost nothing until they are asked for, and go with the cache', () => {
    const arena = boot();
    arena.createCache('c', { size: 64 }).destroy();
    const before = footprint(arena);
    const cache = arena.createCache('c', { size: 64 });
    expect(arena.i32[cache.desc.ptr + KmemCacheStruct.generations]).toBe(0);
    const handles = cache.handles();
    const all = Array.from({ length: 300 }, () => handles.alloc());
    for (const h of all) handles.free(h);
    expect(cache.destroy().leaked).toBe(0);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('are not to be had without memory: nothing is lost', () => {
    const { arena, cache, handles } = setup();
    const taken = takePages(arena, GFP_KERNEL);
    const all: number[] = [];
    for (let h = handles.alloc(); h !== 0; h = handles.alloc()) all.push(h);
    for (const p of taken) arena.freePages(p, 0);
    for (const h of all) handles.free(h);
    arena.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });
});

describe('with other options', () => {
  it.each([
    { layer: 'none' },
    { layer: 'cpu-slab' },
    { layer: 'percpu-array' },
    { check: 'full' },
    { lockPolicy: 'op' },
    { slabDebug: 'FZPU,c' },
    { quarantine: 4096 },
    { nodes: 2 },
  ] as const)('%o', (options) => {
    const { arena, cache, handles } = setup({ ...options }, 60);
    const all = Array.from({ length: 200 }, () => handles.alloc());
    for (const h of all) arena.i32[handles.at(h) >> 2] = 1;
    for (const h of all) handles.free(h);
    expect(all.filter((h) => handles.has(h))).toEqual([]);
    arena.endTurn();
    expectSound(arena);
    expect(cache.destroy().leaked).toBe(0);
  });

  it("with merge 'primary' they are those of the storage", () => {
    const arena = boot({ merge: 'primary' });
    const first = arena.createCache('first', { size: 64 });
    const second = arena.createCache('second', { size: 64 });
    const h = second.handles().alloc();
    expect(first.handles().at(h)).toBe(second.handles().at(h));
    second.handles().free(h);
    expect(first.handles().has(h)).toBe(false);
    second.destroy();
    expect(first.destroy().leaked).toBe(0);
  });
});

describe('real threads', () => {
  it('share handles; of those that free one at once, one does', async () => {
    const arena = boot({ cpus: 3, bytes: 16 << 20 });
    const cache = arena.createCache('c', { size: 64 });
    const control = new Control();
    arena.endTurn();
    const tasks = [1, 2].map((cpu) => ({ cpu, seed: cpu, rounds: 20_000 }));
    const results = await runTeam<{ freed: number }>('tradeHandles', arena.handle, tasks, control);
    const handles = cache.handles();
    const shared = [...new Float64Array(control.buffer, 4096, 8)];
    const left = shared.filter((h) => h !== 0 && handles.has(h));
    for (const h of left) handles.free(h);
    arena.endTurn();
    expectSound(arena);
    // What two threads stored over at once is lost: it leaks. What both freed at once was freed once.
    const freed = results[0]!.freed + results[1]!.freed + left.length;
    expect(freed).toBeGreaterThan(20_000);
    expect(cache.destroy().leaked).toBe(40_000 - freed);
    expectSound(arena);
  });

  it('see the handles of one that died, and may free them', async () => {
    const arena = boot({ cpus: 2 });
    const cache = arena.createCache('c', { size: 64 });
    const control = new Control();
    arena.endTurn();
    const args = { cpu: 1, seed: 1, rounds: 1 << 30 };
    const { worker, exited } = launch('tradeHandles', { control, handle: arena.handle, args });
    const shared = new Float64Array(control.buffer, 4096, 8);
    control.open();
    await until(() => shared.every((h) => h !== 0));
    await worker.terminate();
    await exited;
    const { notes } = arena.cpuDead(1);
    const handles = cache.handles();
    for (const h of shared) if (handles.has(h)) handles.free(h);
    for (const h of shared) expect(handles.has(h)).toBe(false);
    arena.endTurn();
    const findings = arena.validate();
    expect(notes.length > 0 || findings.length === 0, JSON.stringify({ notes, findings })).toBe(true);
  });

  it('a second CPU has the same', () => {
    const { arena, handles } = setup();
    const other = secondCpu(arena);
    const theirs = other.openCache('c').handles();
    const h = handles.alloc();
    expect(theirs.at(h)).toBe(handles.at(h));
    theirs.free(h);
    expect(handles.has(h)).toBe(false);
    other.offline();
    arena.endTurn();
    expectSound(arena);
  });
});
