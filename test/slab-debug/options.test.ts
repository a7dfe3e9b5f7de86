/** The slabDebug option as the kernel reads slab_debug, and what it makes of a cache's layout. */
import { describe, expect, it } from 'vitest';
import {
  Arena,
  SLAB_CONSISTENCY_CHECKS,
  SLAB_FAILSLAB,
  SLAB_NO_USER_FLAGS,
  SLAB_NOLEAKTRACE,
  SLAB_POISON,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TRACE,
} from '#src/index.js';
import {
  calculateSizes,
  debugFlagsFor,
  parseSlabDebug,
  SLAB_KMALLOC,
  SLAB_TYPESAFE_BY_RCU,
} from '#src/slab/index.js';
import { boot, expectSound, inside } from '../cache/support/arena.js';

const [F, Z, P, U] = [SLAB_CONSISTENCY_CHECKS, SLAB_RED_ZONE, SLAB_POISON, SLAB_STORE_USER];
const [T, A] = [SLAB_TRACE, SLAB_FAILSLAB];
const flagsOf = (text: string, name: string, own = 0): number =>
  debugFlagsFor(parseSlabDebug(text), name, own);

describe('slabDebug', () => {
  it.each([
    ['', 'x', 0],
    ['F', 'x', F],
    ['fzputa', 'x', F | Z | P | U | T | A],
    ['FZ-U', 'x', U],
    ['-', 'x', 0],
    [',dentry', 'dentry', F | Z | P | U],
    [',dentry', 'x', 0],
    ['Z,dentry,inode', 'inode', Z],
    ['Z,dentry,inode', 'inode_cache', 0],
    ['P,kmalloc-*', 'kmalloc-64', P],
    ['P,kmalloc-*', 'kmalloc', 0],
    ['F;Z,dentry', 'dentry', Z],
    ['F;Z,dentry', 'x', F],
    ['Z,dentry;F', 'x', F],
    ['F;;U', 'x', U],
    ['Z,a*;P,ab', 'ab', Z],
    ['-,quiet;FZPU', 'quiet', 0],
  ])('%j for a cache named %s', (text, name, flags) => {
    expect(flagsOf(text, name)).toBe(flags);
  });

  it('passes caches by that want no user flags', () => {
    expect(flagsOf('FZPU', 'x', SLAB_NO_USER_FLAGS)).toBe(0);
  });

  it('keeps no tracks of a cache with SLAB_NOLEAKTRACE, unless a block names it', () => {
    expect(flagsOf('FU', 'x', SLAB_NOLEAKTRACE)).toBe(SLAB_CONSISTENCY_CHECKS);
    expect(flagsOf('F;FU,x', 'x', SLAB_NOLEAKTRACE)).toBe(SLAB_CONSISTENCY_CHECKS | SLAB_STORE_USER);
    const arena = Arena.create({ bytes: 8 << 20, slabDebug: 'FU' });
    arena.online();
    const cache = arena.createCache('x', { size: 64, flags: SLAB_NOLEAKTRACE });
    expect(cache.desc.flags & SLAB_STORE_USER).toBe(0);
    arena.offline();
  });

  it('refuses what is no letter, no string and too long', () => {
    const make = (slabDebug: never) => () => Arena.create({ bytes: 8 << 20, slabDebug });
    expect(make('FQ' as never)).toThrow(/slabDebug is "FQ"; 'Q' is none of F, Z, P, U, T, A, O and -/);
    expect(make(7 as never)).toThrow(/slabDebug is 7; it must be a boolean, or a string/);
    expect(make(`F,${'x'.repeat(1030)}` as never)).toThrow(
      /slabDebug has 1032 bytes; it must have at most 1024/,
    );
  });

  it('is the same in every thread that attaches', () => {
    const arena = boot({ slabDebug: 'FZ,first*;U,second' });
    const other = Arena.attach(arena.handle);
    other.online({ cpu: 1 });
    expect(other.createCache('first-of-many', { size: 40 }).desc.flags & (F | Z | P | U)).toBe(F | Z);
    expect(other.createCache('second', { size: 40 }).desc.flags & (F | Z | P | U)).toBe(U);
    expect(other.createCache('third', { size: 40 }).desc.flags & (F | Z | P | U)).toBe(0);
  });

  it('O leaves a cache alone whose order it would raise, but not the checks', () => {
    const arena = boot({ slabDebug: 'FZPUO' });
    // 4096 bytes fit a page of their own; with red zones they need two.
    expect(arena.createCache('page', { size: 4096 }).desc.flags & (F | Z | P | U)).toBe(F);
    expect(arena.createCache('small', { size: 64 }).desc.flags & (F | Z | P | U)).toBe(F | Z | P | U);
  });

  it('true is FZPU for all caches, the arena`s own kmalloc caches too', () => {
    const arena = boot({ bytes: 16 << 20, slabDebug: true });
    expect(arena.openCache('kmalloc-64').desc.flags & (F | Z | P | U)).toBe(F | Z | P | U);
    const info = arena.cacheInfo().find(({ name }) => name === 'kmalloc-8')!;
    expect(info).toMatchObject({
      red_zone: 1,
      poison: 1,
      store_user: 1,
      sanity_checks: 1,
      trace: 0,
      failslab: 0,
    });
    expect(info).toMatchObject({ sheaf_capacity: 0, slab_errors: 0, layer: 'none' });
    arena.kfree(arena.kmalloc(100));
    expectSound(arena);
  });
});

describe('the layout of a slot', () => {
  const sizes = (objectSize: number, flags: number, more: object = {}) =>
    calculateSizes({
      objectSize,
      flags,
      cpus: 2,
      typesafeByRcu: (flags & SLAB_TYPESAFE_BY_RCU) !== 0,
      ...more,
    });

  it.each([
    // what, size, flags, more: left red zone, inuse, offset, size
    ['a red zone on both sides', 64, Z, {}, 8, 72, 32, 88],
    ['a red zone in the padding', 60, Z, {}, 8, 64, 24, 80],
    ['an object below a word', 4, Z, {}, 8, 8, 8, 32],
    ['an aligned left red zone', 64, Z, { align: 64 }, 64, 72, 32, 192],
    ['poison', 64, P, {}, 0, 64, 64, 72],
    ['two tracks', 64, U, {}, 0, 64, 32, 128],
    ['two tracks and the requested size', 64, U | SLAB_KMALLOC, {}, 0, 64, 32, 136],
    ['a red zone and the requested size', 64, U | Z | SLAB_KMALLOC, {}, 8, 72, 72, 168],
    ['everything', 64, F | Z | P | U, {}, 8, 72, 72, 160],
    ['a constructor and poison', 64, P, { hasCtor: true, freeptrOffset: 8 }, 0, 64, 64, 72],
    [
      'SLAB_TYPESAFE_BY_RCU with its own offset',
      64,
      Z | SLAB_TYPESAFE_BY_RCU,
      { freeptrOffset: 8 },
      8,
      72,
      8,
      88,
    ],
    ['checks alone', 64, F | T, {}, 0, 64, 32, 64],
  ] as const)('with %s', (_what, objectSize, flags, more, redLeftPad, inuse, offset, size) => {
    expect(sizes(objectSize, flags, more)).toMatchObject({ redLeftPad, inuse, offset, size });
  });

  it('is kept by the objects of a cache: aligned, apart, and within their slab', () => {
    const arena = boot({ slabDebug: 'FZPU' });
    for (const [size, align] of [
      [1, 0],
      [24, 64],
      [100, 8],
      [500, 128],
      [5000, 0],
    ] as const) {
      const cache = arena.createCache(`c${size}`, { size, align });
      const objects = Array.from({ length: 2 * cache.objsPerSlab + 1 }, () => cache.alloc());
      expect(new Set(objects).size).toBe(objects.length);
      for (const p of objects) {
        expect(p % Math.max(8, align)).toBe(0);
        arena.u8.fill(0xee, p, p + size); // all of it is the user's
      }
      expect(cache.debug.validate().errors).toBe(0);
      for (const p of objects) cache.free(p);
      expect(cache.debug.validate().errors).toBe(0);
      expectSound(arena);
      expect(cache.destroy().leaked).toBe(0);
    }
    expect(inside(arena).slabs.checks).toBeDefined();
  });
});
