import { describe, expect, it } from 'vitest';
import {
  __GFP_ZERO,
  type Arena,
  type ArenaOptions,
  GFP_KERNEL,
  SLAB_ACCOUNT,
  SLAB_HWCACHE_ALIGN,
  SLAB_NO_MERGE,
  SLAB_RECLAIM_ACCOUNT,
  SlabBugError,
} from '#src/index.js';
import {
  allocMany,
  boot,
  expectRefused,
  expectSound,
  footprint,
  freeMany,
  secondCpu,
} from '../cache/support/arena.js';

const MODES: Array<Partial<ArenaOptions>> = (['kernel', 'primary'] as const).flatMap((merge) =>
  (['turn', 'op'] as const).map((lockPolicy) => ({ merge, lockPolicy })),
);
const infoOf = (arena: Arena, name: string) => arena.cacheInfo().find(({ names }) => names.includes(name))!;

describe('caches of an arena that does not merge', () => {
  it('are on their own', () => {
    const arena = boot();
    const a = arena.createCache('a', { size: 64 });
    const b = arena.createCache('b', { size: 64 });
    expect(b.desc.slot).not.toBe(a.desc.slot);
    expect(infoOf(arena, 'b')).toMatchObject({ name: 'b', sysfs_id: 'b', names: ['b'], aliases: 0 });
  });
});

describe.each(MODES)('caches that suit each other, merge $merge, policy $lockPolicy', (mode) => {
  it('share their slabs and are listed once, with all their names', () => {
    const arena = boot(mode);
    const a = arena.createCache('a', { size: 64 });
    const b = arena.createCache('b', { size: 60 });
    const c = arena.createCache('c', { size: 64, flags: SLAB_RECLAIM_ACCOUNT });
    const p = a.alloc();
    const q = b.alloc();
    expect(Math.floor(p / 4096)).toBe(Math.floor(q / 4096));
    expect(infoOf(arena, 'b')).toMatchObject({
      name: 'a',
      sysfs_id: ':0000064',
      names: ['a', 'b'],
      aliases: 1,
    });
    expect(infoOf(arena, 'c')).toMatchObject({ sysfs_id: ':a-0000064', names: ['c'], aliases: 0 });
    expect(arena.cacheNames()).toEqual(expect.arrayContaining(['a', 'b', 'c']));
    expect(arena.slabinfo().match(/^b /m)).toBeNull();
    b.free(p);
    a.free(q);
    c.free(c.alloc());
    expectSound(arena);
  });

  it('are found by any of their names, in any thread', () => {
    const arena = boot(mode);
    const a = arena.createCache('a', { size: 64 });
    arena.createCache('b', { size: 64 });
    const other = secondCpu(arena);
    const theirs = other.openCache('b');
    const objects = allocMany(theirs, 200);
    other.endTurn();
    freeMany(a, objects);
    freeMany(other.openCache('a'), allocMany(a, 100));
    other.endTurn();
    arena.endTurn();
    other.offline();
    expectSound(arena);
  });

  it('live until the last name has gone, and then give everything back', () => {
    const arena = boot(mode);
    const before = footprint(arena);
    const a = arena.createCache('a', { size: 64 });
    const b = arena.createCache('b', { size: 64 });
    const c = arena.createCache('c', { size: 64 });
    const objects = allocMany(c, 100);
    expect(a.destroy()).toEqual({ cache: 'a', leaked: 0, objects: [], users: 2 });
    expect(b.destroy()).toMatchObject({ leaked: 0, users: 1 });
    freeMany(c, objects);
    expect(c.destroy()).toMatchObject({ leaked: 0, objects: [] });
    expect(c.isAlive).toBe(false);
    expect(arena.cacheNames()).not.toEqual(expect.arrayContaining(['c']));
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('leak together: what the last of them finds may be of any', () => {
    const arena = boot(mode);
    const a = arena.createCache('a', { size: 64 });
    const b = arena.createCache('b', { size: 64 });
    const p = a.alloc();
    a.destroy();
    expect(b.destroy()).toMatchObject({ leaked: 1, objects: [p] });
    expectSound(arena);
  });

  it('keep to themselves when they ask for something of their own', () => {
    const arena = boot(mode);
    const options = [
      { size: 64 },
      { size: 64, flags: SLAB_NO_MERGE },
      { size: 64, sheafCapacity: 32 },
      { size: 64, layer: 'none' as const },
      { size: 64, usersize: 8 },
      { size: 64, flags: SLAB_ACCOUNT },
      { size: 60, flags: SLAB_ACCOUNT },
      { size: 72 },
    ];
    const slots = options.map((option, i) => arena.createCache(`c${i}`, option).desc.slot);
    expect(new Set(slots).size).toBe(options.length);
    expect(arena.cacheInfo().filter(({ names }) => names.length !== 1)).toEqual([]);
  });

  it('are zeroed as far as the largest of their objects goes', () => {
    const arena = boot(mode);
    const small = arena.createCache('small', { size: 40, flags: SLAB_HWCACHE_ALIGN });
    const [first] = allocMany(small, 1);
    arena.u8.fill(0xff, first, first! + 64);
    small.free(first!);
    const large = arena.createCache('large', { size: 64 });
    const p = large.alloc(GFP_KERNEL | __GFP_ZERO);
    expect(p).toBe(first);
    expect(arena.u8.subarray(p, p + 64).every((byte) => byte === 0)).toBe(true);
    const theirs = secondCpu(arena).openCache('large');
    const q = theirs.alloc();
    arena.u8.fill(0xff, q, q + 64);
    theirs.free(q);
    expect(theirs.alloc(GFP_KERNEL | __GFP_ZERO)).toBe(q);
    expect(arena.u8.subarray(q, q + 64).every((byte) => byte === 0)).toBe(true);
  });

  it('hold a name once: the name of a cache cannot be given again', () => {
    const arena = boot(mode);
    arena.createCache('a', { size: 64 });
    expectRefused(
      arena,
      () => arena.createCache('a', { size: 64 }),
      RangeError,
      /a cache of that name exists/,
    );
  });

  it('make nothing when memory is out', () => {
    const arena = boot({ ...mode, bytes: 1 << 20, cpus: 1 });
    arena.createCache('a', { size: 64 });
    const rest: number[] = [];
    for (let p = arena.kmalloc(4096); p !== 0; p = arena.kmalloc(4096)) rest.push(p);
    for (const size of [512, 192, 128, 64]) {
      for (let p = arena.kmalloc(size); p !== 0; p = arena.kmalloc(size)) rest.push(p);
    }
    let made = 0;
    try {
      for (; made < 150; made++) arena.createCache(`alias-${made}`, { size: 64 });
    } catch (error) {
      expect((error as Error).name).toBe('OutOfMemoryError');
    }
    expect(made).toBeLessThan(150);
    expect(infoOf(arena, 'a').aliases).toBe(made);
    for (const p of rest) arena.kfree(p);
    expect(infoOf(arena, 'a').aliases).toBe(made);
    expectSound(arena);
  });
});

describe("merge 'kernel'", () => {
  it('gives the one handle for every name, and the cache its first name for good', () => {
    const arena = boot({ merge: 'kernel' });
    const a = arena.createCache('a', { size: 40, flags: SLAB_HWCACHE_ALIGN });
    expect(arena.createCache('b', { size: 60 })).toBe(a);
    expect(a.name).toBe('a');
    expect(a.objectSize).toBe(60);
    a.destroy();
    // Nobody can tell whose end that was: both names stay until the last.
    expect(arena.cacheNames()).toEqual(expect.arrayContaining(['a', 'b']));
    expect(a.isAlive).toBe(true);
    a.destroy();
    expect(a.isAlive).toBe(false);
    expect(() => arena.openCache('b')).toThrow('no cache is named "b"');
  });

  it('takes a link that a user left behind for the next of that name', () => {
    const arena = boot({ merge: 'kernel' });
    const a = arena.createCache('a', { size: 64 });
    arena.createCache('b', { size: 64 });
    a.destroy();
    expect(arena.createCache('b', { size: 64 })).toBe(a);
    expect(infoOf(arena, 'a')).toMatchObject({ aliases: 1, names: ['a', 'b'] });
    a.destroy();
    const other = arena.createCache('b', { size: 128 });
    expect(arena.openCache('b')).toBe(other);
    expect(infoOf(arena, 'a').names).toEqual(['a']);
  });

  it('lets a name of the layer sheaves take no part in another layer', () => {
    const arena = boot({ merge: 'kernel', layer: 'none' });
    const a = arena.createCache('a', { size: 64 });
    expect(arena.createCache('b', { size: 64 })).toBe(a);
    expect(arena.createCache('c', { size: 64, layer: 'sheaves' })).not.toBe(a);
  });
});

describe("merge 'primary'", () => {
  it('gives each its own handle, name and size, and sends what they do to the primary', () => {
    const arena = boot({ merge: 'primary' });
    const a = arena.createCache('a', { size: 64 });
    const b = arena.createCache('b', { size: 60 });
    expect([a.name, b.name, a.objectSize, b.objectSize]).toEqual(['a', 'b', 64, 60]);
    expect(b.primary).toBe(a);
    expect(a.primary).toBe(a);
    const out = new Int32Array(100);
    expect(b.allocBulk(out, 100)).toBe(true);
    b.freeBulk(out, 100);
    const sheaf = b.prefill(12)!;
    const held = [sheaf.alloc(), b.allocNode(0), b.allocOrThrow()];
    b.return(sheaf);
    freeMany(a, held);
    b.freeRcu(b.alloc());
    b.rcuBarrier();
    b.minPartial = 3;
    expect(a.minPartial).toBe(3);
    expect(b.stats()).toEqual(a.stats());
    expect(b.shrink()).toMatchObject({ slabs: 0 });
    expectSound(arena);
  });

  it('ends a name for its holder and no other: even the first, whose slabs the rest goes on using', () => {
    const arena = boot({ merge: 'primary' });
    const a = arena.createCache('a', { size: 64 });
    const b = arena.createCache('b', { size: 64 });
    const c = arena.createCache('c', { size: 64 });
    const p = b.alloc();
    expect(a.destroy().users).toBe(2);
    expect(() => arena.openCache('a')).toThrow('no cache is named "a"');
    expect(arena.cacheNames()).not.toContain('a');
    expect(infoOf(arena, 'b')).toMatchObject({ names: ['b', 'c'], aliases: 1 });
    b.destroy();
    for (const use of [() => b.alloc(), () => b.free(p), () => b.stats(), () => b.destroy()]) {
      expect(use).toThrow(SlabBugError);
    }
    c.free(p);
    // The name is free for anybody, and what it names merges with those that are left.
    const again = arena.createCache('a', { size: 64 });
    expect(again.primary).toBe(c.primary);
    c.destroy();
    again.free(again.alloc());
    expect(again.destroy()).toEqual({ cache: 'a', leaked: 0, objects: [] });
    expectSound(arena);
  });

  it('frees with kfree and finds errors for an object, whichever name it was made for', () => {
    const arena = boot({ merge: 'primary' });
    const a = arena.createCache('a', { size: 64 });
    const b = arena.createCache('b', { size: 64 });
    arena.kfree(b.alloc());
    const p = b.alloc();
    b.free(p);
    expectRefused(arena, () => b.free(p), SlabBugError, /^BUG a: Object already free/);
    a.free(a.alloc());
    expectSound(arena);
  });

  it('leaves nothing behind when a thread goes offline with aliases open', () => {
    const arena = boot({ merge: 'primary' });
    arena.createCache('a', { size: 64 });
    arena.createCache('b', { size: 64 });
    const other = secondCpu(arena);
    const theirs = other.openCache('b');
    freeMany(theirs, allocMany(theirs, 300));
    other.offline();
    expectSound(arena);
    expect(arena.openCache('b').shrink()).toMatchObject({ slabs: 0 });
  });
});
