import { describe, expect, it } from 'vitest';
import { GFP_ATOMIC, GFP_KERNEL, PCPU_MIN_UNIT_SIZE, SlabBugError } from '#src/index.js';
import { expectRefused, expectSound, footprint, secondCpu } from '../cache/support/arena.js';
import { bootPercpu, expectMarked, freeAll, info, KiB, mark, words } from './support.js';

describe('an area', () => {
  it('has a zeroed copy for every CPU slot, aligned as asked', () => {
    const arena = bootPercpu();
    for (const [size, align] of [
      [1, 1],
      [4, 4],
      [24, 64],
      [100, 4096],
      [4096, 8],
      [PCPU_MIN_UNIT_SIZE, 4096],
    ] as const) {
      const p = arena.allocPercpu(size, align);
      const copies = [0, 1, 2].map((cpu) => arena.perCpuPtr(p, cpu));
      expect(new Set(copies).size).toBe(3);
      for (const [cpu, at] of copies.entries()) {
        expect(at % Math.max(align, 4)).toBe(0);
        expect(words(arena, p, cpu, Math.ceil(size / 4)).every((word) => word === 0)).toBe(true);
      }
      mark(arena, p, size, 1);
      arena.freePercpu(p);
      expect(words(arena, arena.allocPercpu(size, align), 1, Math.ceil(size / 4)).every((w) => w === 0)).toBe(
        true,
      );
    }
    expectSound(arena);
  });

  it('is seen by other threads of the arena, and freed by them', () => {
    const arena = bootPercpu();
    const other = secondCpu(arena);
    const p = arena.allocPercpu(8);
    expect(other.perCpuPtr(p, 2)).toBe(arena.perCpuPtr(p, 2));
    expect(other.percpu.thisCpuPtr(p)).toBe(arena.perCpuPtr(p, 1));
    other.freePercpu(p);
    expect(info(arena).nrAlloc).toBe(0);
    expectSound(arena);
  });

  it('takes its size in words, and whole pages above a page', () => {
    const arena = bootPercpu();
    const free = (): number => info(arena).freeBytes;
    arena.allocPercpu(4);
    const before = free();
    arena.allocPercpu(5);
    expect(before - free()).toBe(8);
    arena.allocPercpu(4097);
    expect(before - free()).toBe(8 + 8192);
  });

  it('of several pages is one run of addresses in each unit, also where single pages were populated before', () => {
    const arena = bootPercpu();
    const small = [1, 2, 3, 4, 5, 6].map(() => arena.allocPercpu(4096));
    freeAll(arena, small.slice(1));
    const p = arena.allocPercpu(5 * 4096);
    expect(info(arena).nrChunks).toBe(1);
    mark(arena, p, 5 * 4096, 7);
    mark(arena, small[0]!, 4096, 8);
    expectMarked(arena, p, 5 * 4096, 7);
    expectSound(arena);
  });

  it('goes to the first place that fits in the fullest chunk', () => {
    const arena = bootPercpu();
    const chunks = [0, 1].map(() => Array.from({ length: 8 }, () => arena.allocPercpu(4 * KiB)));
    // Two that are full, and one whose empty pages are ready.
    expect(info(arena).nrChunks).toBe(3);
    freeAll(arena, chunks[0]!.slice(2));
    freeAll(arena, chunks[1]!.slice(7));
    expect(arena.allocPercpu(4 * KiB)).toBe(chunks[1]![7]);
    expect(arena.allocPercpu(16)).toBe(chunks[0]![2]);
    expectSound(arena);
  });

  it('never crosses a page border unless it has more than a page', () => {
    const arena = bootPercpu();
    arena.allocPercpu(4 * KiB - 16);
    const p = arena.allocPercpu(32);
    const q = arena.allocPercpu(16);
    expect([p, q].map((each) => each % (4 * KiB))).toEqual([0, 4 * KiB - 16]);
  });
});

describe('pages', () => {
  it('are populated when an area needs them, in every unit, and a chunk begins with none', () => {
    const arena = bootPercpu();
    const used = (): number => arena.meminfo().usedPages;
    arena.kfree(arena.kmalloc(4096));
    const before = used();
    arena.allocPercpu(16);
    const { nrPopulated, nrChunks } = info(arena);
    expect(nrChunks).toBe(1);
    // One for the area and four that are kept empty.
    expect(nrPopulated).toBe(5);
    expect(used() - before).toBeGreaterThanOrEqual(nrPopulated * 3);
  });

  it('come from the node of their CPU', () => {
    const arena = bootPercpu({ cpus: 4, nodes: 2 });
    const p = arena.allocPercpu(16);
    const half = (arena.geometry.firstPfn + arena.geometry.endPfn) / 2;
    const nodes = [0, 1, 2, 3].map((cpu) => (arena.perCpuPtr(p, cpu) / 4096 < half ? 0 : 1));
    expect(nodes).toEqual([0, 0, 1, 1]);
  });

  it('go back with the chunks, but for one free chunk', () => {
    const arena = bootPercpu();
    const before = footprint(arena);
    const areas = Array.from({ length: 40 }, () => arena.allocPercpu(4 * KiB));
    expect(info(arena).nrChunks).toBe(6);
    freeAll(arena, areas);
    arena.percpu.balance();
    expect(info(arena)).toMatchObject({ nrChunks: 1, nrAlloc: 0 });
    const after = footprint(arena);
    const kept = info(arena).nrPopulated * 3;
    expect(after['pages outside of slabs']! - before['pages outside of slabs']!).toBe(kept);
    expectSound(arena);
  });
});

describe('an allocation that may not sleep', () => {
  it('takes no mutex and finds populated pages only', () => {
    const arena = bootPercpu({ lockStat: 'contended' });
    expect(arena.allocPercpu(16, 8, GFP_ATOMIC)).toBe(0);
    expect(arena.lastOom).toMatch(
      /out of percpu memory: CPU 0 wanted 16 bytes aligned to 8 on 3 CPUs, of populated pages only/,
    );
    arena.percpu.balance();
    const taken = (): number =>
      arena.lockStat().find(({ name }) => name === 'pcpu_alloc_mutex')!.acquisitions;
    const before = taken();
    for (let i = 0; i < 4; i++) expect(arena.allocPercpu(4 * KiB, 8, GFP_ATOMIC)).not.toBe(0);
    expect(arena.allocPercpu(4, 4, GFP_ATOMIC)).toBe(0);
    expect(taken()).toBe(before);
    expect(info(arena)).toMatchObject({ nrPopulated: 4, nrEmptyPop: 0 });
    expectSound(arena);
  });

  it('that failed is made up for by the next balance: four more pages', () => {
    const arena = bootPercpu();
    arena.allocPercpu(4 * KiB);
    const before = info(arena).nrPopulated;
    while (arena.allocPercpu(8 * KiB, 8, GFP_ATOMIC) !== 0);
    // The next that may sleep does the balance work.
    arena.allocPercpu(4);
    expect(info(arena).nrPopulated).toBeGreaterThan(before);
    expectSound(arena);
  });
});

describe('out of memory', () => {
  it('is 0, leaves a report and nothing half done, and freeing helps', () => {
    const arena = bootPercpu({ bytes: 4 << 20 });
    const areas: number[] = [];
    for (let p = arena.allocPercpu(32 * KiB); p !== 0; p = arena.allocPercpu(32 * KiB)) areas.push(p);
    expect(arena.lastOom).toMatch(/out of percpu memory/);
    expectSound(arena);
    freeAll(arena, areas.splice(0, 2));
    const p = arena.allocPercpu(32 * KiB);
    expect(p).not.toBe(0);
    freeAll(arena, [p, ...areas]);
    arena.percpu.balance();
    expectSound(arena);
  });

  it('reclaims first, without the mutex', () => {
    const arena = bootPercpu({ bytes: 4 << 20 });
    const kept: number[] = [];
    for (let p = arena.allocPages(0); p !== 0; p = arena.allocPages(0)) kept.push(p);
    let held = -1;
    const end = arena.registerShrinker({
      name: 'kept',
      count: () => kept.length,
      scan: (n) => {
        held = arena.cpu.locks.held;
        for (const page of kept.splice(0, n)) arena.freePages(page, 0);
        return n;
      },
    });
    expect(arena.allocPercpu(4 * KiB)).not.toBe(0);
    expect(held).toBe(0);
    end();
  });

  it.each([1, 2, 3, 5, 7])('every %i-th page request refused leaves the structures sound', (every) => {
    const arena = bootPercpu();
    arena.failPageAlloc(every);
    const areas = [16, 4096, 9000, 32768, 64, 5000].map((size) => arena.allocPercpu(size));
    const { refused } = arena.failPageAlloc(0);
    expect(refused).toBeGreaterThan(0);
    expectSound(arena);
    freeAll(arena, areas);
    arena.percpu.balance();
    expect(info(arena).nrAlloc).toBe(0);
    expectSound(arena);
  });
});

describe('misuse is refused', () => {
  const arena = bootPercpu();
  const p = arena.allocPercpu(64, 64);
  const freed = arena.allocPercpu(16);
  arena.freePercpu(freed);

  it.each([
    ['size 0', () => arena.allocPercpu(0), /size is 0; it must be an integer from 1 to 32768/],
    ['a size above 32 KiB', () => arena.allocPercpu(32769), /size is 32769/],
    [
      'an alignment above a page',
      () => arena.allocPercpu(8, 8192),
      /align is 8192; it must be an integer from 1 to 4096/,
    ],
    [
      'an alignment that is no power of 2',
      () => arena.allocPercpu(8, 12),
      /align is 12; it must be a power of 2/,
    ],
    ['flags that go not together', () => arena.allocPercpu(8, 8, 1 << 6), /__GFP_NOFAIL but may not wait/],
    ['a CPU that is none', () => arena.perCpuPtr(p, 3), /cpu is 3; it must be an integer from 0 to 2/],
  ])('%s', (_, action, message) => expectRefused(arena, action, RangeError, message));

  it.each([
    ['a second free', () => arena.freePercpu(freed), 'double-free', /is in no area: it was freed already/],
    ['the middle of an area', () => arena.freePercpu(p + 4), 'misaligned', /is not the start of an area/],
    ['no word', () => arena.freePercpu(p + 1), 'misaligned', /is not the start of an area/],
    [
      'an address of the heap',
      () => arena.freePercpu(arena.perCpuPtr(p, 1)),
      'invalid-pointer',
      /is no percpu address/,
    ],
    ['an address of no chunk', () => arena.freePercpu(p + (1 << 20)), 'invalid-pointer', /no chunk has it/],
    ['no number', () => arena.freePercpu('p' as never), 'invalid-pointer', /"p" is no percpu address/],
    [
      'the copy of what is no area',
      () => arena.perCpuPtr(12, 0),
      'invalid-pointer',
      /0xc is no percpu address/,
    ],
    ['the copy of NaN', () => arena.perCpuPtr(Number.NaN, 0), 'invalid-pointer', /is no percpu address/],
  ])('%s', (_, action, kind, message) => {
    expectRefused(arena, action, SlabBugError, message);
    try {
      action();
    } catch (error) {
      expect((error as SlabBugError).kind).toBe(kind);
    }
  });

  it('but freeing 0 is nothing', () => {
    arena.freePercpu(0);
    expectSound(arena);
  });
});

describe('options', () => {
  it.each([
    [{ unitPages: 12 }, /percpu\.unitPages is 12; it must be a power of 2/],
    [{ unitPages: 4 }, /percpu\.unitPages is 4; it must be an integer from 8 to 128/],
    [{ areaCache: 65 }, /percpu\.areaCache is 65/],
    [{ areaBatch: 0 }, /percpu\.areaBatch is 0/],
    [{ cpusPerAreaCache: 257 }, /percpu\.cpusPerAreaCache is 257; it must be an integer from 1 to 256/],
  ])('%j is refused', (percpu, message) => {
    expect(() => bootPercpu({ percpu })).toThrow(message);
  });

  it('larger units hold more areas in a chunk', () => {
    const arena = bootPercpu({ percpu: { unitPages: 128 } });
    for (let i = 0; i < 100; i++) arena.allocPercpu(4 * KiB);
    expect(info(arena)).toMatchObject({ nrChunks: 1, unitBytes: 512 * KiB });
    expectSound(arena);
  });
});

it('GFP_KERNEL is what an allocation asks with unless it says otherwise', () => {
  const arena = bootPercpu();
  expect(arena.allocPercpu(16)).toBe(arena.allocPercpu(16, 8, GFP_KERNEL) - 16);
});
