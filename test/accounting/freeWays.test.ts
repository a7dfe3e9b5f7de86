/** Charges of objects that come and go by other ways than alloc and free: kfree_rcu by a word, restricted contexts. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ACCOUNT,
  type Arena,
  GFP_KERNEL,
  type LockPolicy,
  type MemoryGroup,
  SLAB_ACCOUNT,
  SlabBugError,
} from '#src/index.js';
import { allocMany, boot, expectRefused, expectSound, secondCpu } from '../cache/support/arena.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];
const SIZE = 64;

/** Exactly what is charged once no turn is open. */
function settled(arena: Arena, group: MemoryGroup): number {
  arena.endTurn();
  return group.usage;
}

describe('kfree_rcu of an accounted object', () => {
  it('links it through the word that it is given where there is no page, and waits for nobody', () => {
    const arena = boot();
    const other = secondCpu(arena);
    const cache = arena.createCache('charged', { size: SIZE, layer: 'none', flags: SLAB_ACCOUNT });
    const group = arena.groups.create('g');
    arena.groups.workFor(group);
    const objects = allocMany(cache, 10);
    arena.rcu.limitMs = 50;
    arena.failPageAlloc(1);
    other.rcu.readLock();
    // Without the word it would wait for the reader, in vain, and then need a callback for each.
    for (const p of objects) cache.freeRcu(p, 8);
    expect(arena.rcu.pending).toBe(0);
    expect(arena.failPageAlloc(0).refused).toBeGreaterThan(0);
    expect(settled(arena, group), 'counts as freed at once').toBe(0);
    expectSound(arena);
    other.rcu.readUnlock();
    other.endTurn();
    cache.rcuBarrier();
    expect(settled(arena, group), 'and once').toBe(0);
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('leaves its charge as it was when it is refused', () => {
    const arena = boot();
    const cache = arena.createCache('charged', { size: SIZE, flags: SLAB_ACCOUNT });
    const group = arena.groups.create('g');
    arena.groups.workFor(group);
    const [p] = allocMany(cache, 1) as [number];
    const held = settled(arena, group);
    expectRefused(arena, () => cache.freeRcu(p, 3), RangeError, /head is 3/);
    expectRefused(arena, () => arena.kfreeRcuNolock(p, 3), RangeError, /head is 3/);
    expect(cache.destroy().leaked).toBe(1);
    expectRefused(arena, () => cache.freeRcu(p), SlabBugError, /destroyed/);
    expect(settled(arena, group)).toBe(held);
  });
});

describe.each(POLICIES)('an accounted object in a restricted context, policy %s', (lockPolicy) => {
  function setup(limit?: number): { arena: Arena; group: MemoryGroup } {
    const arena = boot({ lockPolicy, kmalloc: { types: ['cgroup'] } });
    const group = arena.groups.create('g', limit === undefined ? {} : { limit });
    arena.groups.workFor(group);
    return { arena, group };
  }

  it('is charged when it comes and given back when it goes, in whatever way', () => {
    const { arena, group } = setup();
    const ways: [string, () => number, (p: number) => void][] = [
      [
        'kmalloc, kfreeNolock',
        () => arena.kmalloc(SIZE, GFP_KERNEL | __GFP_ACCOUNT),
        (p) => arena.kfreeNolock(p),
      ],
      ['kmallocNolock, kfree', () => arena.kmallocNolock(SIZE, __GFP_ACCOUNT), (p) => arena.kfree(p)],
      [
        'kmallocNolock, kfreeNolock',
        () => arena.kmallocNolock(SIZE, __GFP_ACCOUNT),
        (p) => arena.kfreeNolock(p),
      ],
      [
        'kmallocNolock, kfreeRcuNolock',
        () => arena.kmallocNolock(SIZE, __GFP_ACCOUNT),
        (p) => arena.kfreeRcuNolock(p, 0),
      ],
    ];
    for (const [name, take, give] of ways) {
      const p = take();
      expect(settled(arena, group), name).toBeGreaterThanOrEqual(SIZE);
      give(p);
      expect(settled(arena, group), name).toBe(0);
      arena.kfreeRcuBarrier();
      expect(settled(arena, group), name).toBe(0);
    }
    expectSound(arena);
  });

  it('is not to be had beyond the limit', () => {
    const { arena, group } = setup(SIZE);
    expect(arena.kmallocNolock(SIZE, __GFP_ACCOUNT), 'with the word for its group it is larger').toBe(0);
    expect(settled(arena, group)).toBe(0);
    expectSound(arena);
  });
});
