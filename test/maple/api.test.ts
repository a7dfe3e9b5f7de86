/** What a maple tree refuses, how two threads share one, and what a death leaves. */
import { describe, expect, it } from 'vitest';
import { LockError, MAPLE_MAX } from '#src/index.js';
import { boot, expectSound, MiB, secondCpu } from '../cache/support/arena.js';
import { LEAF_META, leafOf } from './nodes.js';

describe('a maple tree', () => {
  it('refuses what is no key, no range, no entry', () => {
    const tree = boot().maple.create()!;
    expect(() => tree.store(-1, 5, 1)).toThrow(/first is -1; it must be an integer from 0 to 2147483647/);
    expect(() => tree.store(5, 4, 1)).toThrow(/last is 4; it must be an integer from 5/);
    expect(() => tree.store(0, MAPLE_MAX + 1, 1)).toThrow(RangeError);
    expect(() => tree.store(0, 1, 0)).toThrow(/entry is 0; .* use erase/);
    expect(() => tree.store(0, 1, 1.5)).toThrow(/entry is 1.5/);
    expect(() => tree.alloc(1, 0)).toThrow(/size is 0/);
    expect(() => tree.cursor(-1)).toThrow(/key is -1/);
    expect(tree.isEmpty).toBe(true);
  });

  it('finds no empty areas without gaps', () => {
    const tree = boot().maple.create({ gaps: false })!;
    expect(() => tree.emptyArea(5)).toThrow(/without gaps; make it with { gaps: true }/);
  });

  it('takes preallocated stores under its lock only, which nests', () => {
    const tree = boot().maple.create()!;
    expect(() => tree.preallocate(1, 2, 3)).toThrow(/has not locked/);
    expect(() => tree.storePrealloc(1, 2, 3)).toThrow(/has not locked/);
    expect(() => tree.unlock()).toThrow(/has not locked/);
    tree.lock();
    tree.lock();
    expect(tree.store(1, 2, 3)).toBe(true);
    tree.unlock();
    expect(tree.isLocked).toBe(true);
    tree.unlock();
    expect(tree.load(2)).toBe(3);
  });

  it('is opened by its address, and destroyed once', () => {
    const arena = boot({ bytes: 16 * MiB });
    const other = secondCpu(arena);
    const tree = arena.maple.create()!;
    expect(tree.store(10, 19, 7)).toBe(true);
    const theirs = other.maple.open(tree.address);
    expect(theirs.load(15)).toBe(7);
    expect(theirs.store(15, 25, 8)).toBe(true);
    expect(tree.ranges()).toEqual([
      { first: 10, last: 14, entry: 7 },
      { first: 15, last: 25, entry: 8 },
    ]);
    arena.endTurn();
    other.offline();
    arena.maple.destroy(tree);
    expect(() => arena.maple.destroy(tree)).toThrow(/BUG/);
    arena.kfreeRcuBarrier();
    expectSound(arena);
  });

  it('goes up and down by a cursor', () => {
    const tree = boot().maple.create()!;
    for (let i = 0; i < 100; i++) tree.store(i * 10, i * 10 + 4, i + 1);
    const cursor = tree.cursor(500);
    expect([cursor.prev(), cursor.first, cursor.last]).toEqual([50, 490, 494]);
    expect(cursor.next()).toBe(51);
    expect(cursor.next(509)).toBe(0);
    cursor.set(502);
    expect([cursor.next(), cursor.first]).toEqual([51, 500]);
    expect(cursor.walk(507)).toBe(0);
    expect([cursor.first, cursor.last]).toEqual([505, 509]);
    cursor.set(0);
    expect(cursor.prev()).toBe(0);
    cursor.set(MAPLE_MAX);
    expect(cursor.next()).toBe(0);
    expect(cursor.prev()).toBe(100);
  });
});

describe('a reader that finds a leaf half written', () => {
  it('asks for it under the lock, and learns there that the writer has died; other leaves are read on', () => {
    const arena = boot({ bytes: 16 * MiB, lockdep: false });
    const tree = arena.maple.create()!;
    for (let i = 0; i < 100; i++) tree.store(i * 10, i * 10 + 9, i + 1);
    const leaf = leafOf(arena, tree, 15);
    const other = secondCpu(arena);
    other.maple.open(tree.address).lock();
    arena.i32[leaf + LEAF_META]! += 0x100; // it had begun to move a boundary
    arena.cpuDead(1);
    expect(() => tree.load(15)).toThrow(LockError);
    expect(() => tree.load(15)).toThrow(/ma_lock .* its owner died/);
    expect(tree.load(905)).toBe(91);
    expect(() => tree.store(905, 906, 1)).toThrow(LockError);
  });
});

const LAST_SLOT = -1;

describe('validate', () => {
  it.each([
    ['a pivot out of order', 2 + 3, 0, /pivot 3 is/],
    ['a parent word', 0, 0x20, /the parent word is/],
    ['a free range at the end', LAST_SLOT, 0, /it ends with a free range|are both free/],
    ['an odd sequence', 1, 0x10f, /its sequence is odd/],
    ['too few slots', 1, 3, /4 slots are used, at least 14 must be|the last pivot/],
  ])('finds %s', (_what, word, value, finding) => {
    const arena = boot({ bytes: 16 * MiB });
    const tree = arena.maple.create()!;
    for (let i = 0; i < 100; i++) tree.store(i * 10, i * 10 + 9, i + 1);
    expect(tree.validate()).toEqual([]);
    const leaf = leafOf(arena, tree, 15);
    const at = word === LAST_SLOT ? 33 + (arena.i32[leaf + LEAF_META]! & 0xff) : word;
    arena.i32[leaf + at] = value;
    expect(tree.validate().join('\n')).toMatch(finding);
  });

  it('finds a gap that is not the longest', () => {
    const arena = boot({ bytes: 16 * MiB });
    const tree = arena.maple.create()!;
    for (let i = 0; i < 100; i++) tree.store(i * 10, i * 10 + 4, i + 1);
    const root = arena.i32[(tree.address >> 2) + 2]!;
    arena.i32[((root >> 8) << 6) + 2 + 40]! += 1;
    expect(tree.validate().join('\n')).toMatch(/gap 0 is 6; below it is 5/);
  });
});
