/** The decision itself: which cache serves which, and under what name. */
import { describe, expect, it } from 'vitest';
import {
  BOOT_REFCOUNT,
  createUniqueId,
  findMergeable,
  type MergeCandidate,
  type MergeWish,
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_CACHE_DMA32,
  SLAB_CONSISTENCY_CHECKS,
  SLAB_FAILSLAB,
  SLAB_HWCACHE_ALIGN,
  SLAB_KMALLOC,
  SLAB_NO_MERGE,
  SLAB_NOLEAKTRACE,
  SLAB_OBJ_EXT_IN_OBJ,
  SLAB_PANIC,
  SLAB_POISON,
  SLAB_RECLAIM_ACCOUNT,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TRACE,
  SLAB_TYPESAFE_BY_RCU,
} from '#src/slab/index.js';

const plain = { flags: 0, hasCtor: false, usersize: 0, layer: 'sheaves' as const };
const wish = (objectSize: number, more: Partial<MergeWish> = {}): MergeWish => ({
  ...plain,
  objectSize,
  align: 0,
  ...more,
});
const live = (size: number, more: Partial<MergeCandidate> = {}): MergeCandidate => ({
  ...plain,
  size,
  refcount: 1,
  ...more,
});

describe('a live cache serves a new one', () => {
  it.each([
    [64, 64],
    [57, 64],
    [1, 8],
    [192, 192],
  ])('of %i bytes in slots of %i', (objectSize, size) => {
    const s = live(size);
    expect(findMergeable([s], wish(objectSize))).toBe(s);
  });

  it.each([
    ['its slots are a word larger', wish(56), live(64)],
    ['its slots are too small', wish(65), live(64)],
    ['its stride is no multiple of the alignment', wish(96, { align: 64 }), live(104)],
    ['a cache line is wanted and its stride is none', wish(90, { flags: SLAB_HWCACHE_ALIGN }), live(96)],
    ['its layer is another', wish(64, { layer: 'none' }), live(64)],
    ['it is one that the arena is made of', wish(64), live(64, { refcount: BOOT_REFCOUNT })],
    ['it is a kmalloc cache', wish(64), live(64, { flags: SLAB_KMALLOC })],
  ])('not when %s', (_why, want, s) => {
    expect(findMergeable([s], want)).toBeUndefined();
  });

  it('when lines are wanted and its slots are whole lines', () => {
    const s = live(128);
    expect(findMergeable([s], wish(90, { flags: SLAB_HWCACHE_ALIGN }))).toBe(s);
    // Half a line is enough for what fits in it.
    expect(findMergeable([live(32)], wish(30, { flags: SLAB_HWCACHE_ALIGN }))).toBeDefined();
  });

  it('the oldest of those that can', () => {
    const caches = [live(56), live(64), live(64)];
    expect(findMergeable(caches, wish(64))).toBe(caches[1]);
  });

  it.each([
    ['RECLAIM_ACCOUNT', SLAB_RECLAIM_ACCOUNT],
    ['CACHE_DMA', SLAB_CACHE_DMA],
    ['CACHE_DMA32', SLAB_CACHE_DMA32],
    ['ACCOUNT', SLAB_ACCOUNT],
  ])('when both have %s or neither', (_name, flags) => {
    expect(findMergeable([live(64, { flags })], wish(64))).toBeUndefined();
    expect(findMergeable([live(64)], wish(64, { flags }))).toBeUndefined();
    expect(findMergeable([live(64, { flags })], wish(64, { flags }))).toBeDefined();
  });

  it('whatever the two say of panicking and of cache lines', () => {
    const flags = SLAB_PANIC | SLAB_HWCACHE_ALIGN;
    expect(findMergeable([live(64)], wish(64, { flags }))).toBeDefined();
  });

  const bars: Array<[string, Partial<MergeWish>]> = [
    ['a constructor', { hasCtor: true }],
    ['a usercopy range', { usersize: 8 }],
    ['consistency checks', { flags: SLAB_CONSISTENCY_CHECKS }],
    ['red zones', { flags: SLAB_RED_ZONE }],
    ['poison', { flags: SLAB_POISON }],
    ['user tracking', { flags: SLAB_STORE_USER }],
    ['tracing', { flags: SLAB_TRACE }],
    ['type safety by RCU', { flags: SLAB_TYPESAFE_BY_RCU }],
    ['no leak tracing', { flags: SLAB_NOLEAKTRACE }],
    ['failslab', { flags: SLAB_FAILSLAB }],
    ['a word in its slots', { flags: SLAB_OBJ_EXT_IN_OBJ }],
    ['its wish', { flags: SLAB_NO_MERGE }],
  ];
  it.each(bars)('but %s keeps either of the two to itself', (_name, bar) => {
    expect(findMergeable([live(64)], wish(64, bar))).toBeUndefined();
    expect(findMergeable([live(64, bar)], wish(64))).toBeUndefined();
    expect(findMergeable([live(64, bar)], wish(64, bar))).toBeUndefined();
  });
});

describe('the id of a cache that may merge', () => {
  it.each([
    [0, 24, ':0000024'],
    [SLAB_RECLAIM_ACCOUNT, 104, ':a-0000104'],
    [SLAB_ACCOUNT | SLAB_RECLAIM_ACCOUNT, 64, ':aA-0000064'],
    [SLAB_CACHE_DMA | SLAB_CACHE_DMA32 | SLAB_CONSISTENCY_CHECKS, 4096, ':dDF-0004096'],
    [SLAB_PANIC | SLAB_HWCACHE_ALIGN, 12345678, ':12345678'],
  ])('of flags %i and stride %i is %s', (flags, size, id) => {
    expect(createUniqueId(flags, size)).toBe(id);
  });
});
