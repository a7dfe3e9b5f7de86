/** What is thrown in the middle of an operation on an address space leaves nothing behind, and nothing locked. */
import { afterEach, expect, it, vi } from 'vitest';
import { type Arena, LockError, type Mm, SlabBugError } from '#src/index.js';
import { boot, expectSound, MiB, secondCpu } from '../cache/support/arena.js';

const PAGE = 4096;
const BASE = 0x100000;

afterEach(() => void vi.restoreAllMocks());

/** Areas of two pages with a page between them. */
function mapMany(mm: Mm, n: number): void {
  for (let i = 0; i < n; i++) expect(mm.map(2 * PAGE, { at: BASE + i * 3 * PAGE })).not.toBe(0);
}

/** Everything ends, and there is nothing left that it could not find. */
function expectNothingLost(arena: Arena, mm: Mm): void {
  expect(mm.validate()).toEqual([]);
  arena.mms.destroy(mm);
  arena.kfreeRcuBarrier();
  expectSound(arena);
  const { mms, maple } = arena;
  for (const cache of [mms.vmas, mms.mms, maple.nodes]) expect(cache.destroy().leaked, cache.name).toBe(0);
}

/** Six seconds pass each time that somebody looks. */
function hurryTime(): void {
  let now = performance.now();
  vi.spyOn(performance, 'now').mockImplementation(() => (now += 6000));
}

it('by the frees at its end: the space can be used, and gives back what it gathers', () => {
  const arena = boot({ bytes: 16 * MiB });
  const mm = arena.mms.create()!;
  mapMany(mm, 100);
  const { nodes } = arena.maple;
  const stuck: number[] = [];
  vi.spyOn(nodes, 'freeRcu').mockImplementationOnce((p) => {
    stuck.push(p);
    throw new SlabBugError('invalid-pointer', nodes.name, p, 'told to fail');
  });
  expect(() => mm.unmap(BASE, 60 * PAGE)).toThrow('told to fail');
  expect(stuck).toHaveLength(1);
  nodes.freeRcu(stuck[0]!);
  expect(mm.unmap(BASE + 60 * PAGE, 120 * PAGE)).toBe(40);
  mapMany(mm, 20);
  expectNothingLost(arena, mm);
});

it('by an area that readers keep, where it would be split: the other half is nowhere', () => {
  const arena = boot({ bytes: 16 * MiB });
  const other = secondCpu(arena);
  const mm = arena.mms.create()!;
  mapMany(mm, 30);
  const theirs = other.mms.open(mm.address);
  const pinned = theirs.startFault(BASE);
  hurryTime();
  expect(() => mm.unmap(BASE + PAGE, PAGE)).toThrow(LockError);
  expect(() => mm.protect(BASE + PAGE, PAGE, 1)).toThrow(LockError);
  vi.restoreAllMocks();
  theirs.endFault(pinned);
  other.endTurn();
  expectNothingLost(arena, mm);
});

it('by an area that readers keep, among many that are unmapped: what was gathered is let go', () => {
  const arena = boot({ bytes: 16 * MiB });
  const other = secondCpu(arena);
  const mm = arena.mms.create()!;
  mapMany(mm, 60);
  const theirs = other.mms.open(mm.address);
  const pinned = theirs.startFault(BASE + 120 * PAGE);
  hurryTime();
  expect(() => mm.unmap(BASE, 180 * PAGE)).toThrow(LockError);
  vi.restoreAllMocks();
  theirs.endFault(pinned);
  other.endTurn();
  expect(mm.mapCount).toBe(60);
  expectNothingLost(arena, mm);
});

it('by an area that readers keep, in a fork: there is no child', () => {
  const arena = boot({ bytes: 16 * MiB });
  const other = secondCpu(arena);
  const mm = arena.mms.create()!;
  mapMany(mm, 40);
  const theirs = other.mms.open(mm.address);
  const pinned = theirs.startFault(BASE + 90 * PAGE);
  hurryTime();
  expect(() => arena.mms.fork(mm)).toThrow(LockError);
  vi.restoreAllMocks();
  theirs.endFault(pinned);
  other.endTurn();
  expectNothingLost(arena, mm);
});
