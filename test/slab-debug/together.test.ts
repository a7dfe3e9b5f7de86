/** Debug caches with what other options keep in a slot: constructors, the group of an object, the requested size. */
import { describe, expect, it } from 'vitest';
import {
  __GFP_ACCOUNT,
  defineCache,
  GFP_KERNEL,
  SLAB_ACCOUNT,
  SLAB_TYPESAFE_BY_RCU,
  type SlabReport,
} from '#src/index.js';
import { boot, expectSound } from '../cache/support/arena.js';

describe.each(['FZPU', 'F', 'Z', 'ZP', 'U'])('slabDebug %s', (slabDebug) => {
  it.each([false, true])('with accounting and types, requested sizes: %s', (requestedSize) => {
    const arena = boot({ slabDebug, bytes: 32 << 20, kmalloc: { requestedSize, types: ['cgroup'] } });
    const reports: SlabReport[] = [];
    arena.onSlabReport((report) => reports.push(report));
    const caches = [
      arena.createCache('accounted', { size: 40, flags: SLAB_ACCOUNT }),
      arena.createCache('typesafe', { size: 40, flags: SLAB_TYPESAFE_BY_RCU }),
    ];
    const constructed = arena.createCache(
      defineCache(`constructed-${slabDebug}-${requestedSize}`, {
        size: 48,
        ctor: (p) => void arena.i32.fill(7, p >> 2, (p >> 2) + 12),
      }),
    );
    const made = Array.from({ length: 200 }, () => constructed.alloc());
    for (const p of made) expect([arena.i32[p >> 2], arena.i32[(p >> 2) + 11]]).toEqual([7, 7]);
    for (const p of made) constructed.free(p);
    expect(arena.i32[constructed.alloc() >> 2]).toBe(7);
    for (const cache of caches) {
      const held = Array.from({ length: 100 }, () => cache.alloc());
      for (const p of held) arena.u8.fill(1, p, p + 40);
      for (const p of held) cache.free(p);
    }
    for (const gfp of [GFP_KERNEL, GFP_KERNEL | __GFP_ACCOUNT]) {
      for (let size = 1; size < 300; size += 7) {
        let p = arena.kmalloc(size, gfp);
        arena.u8.fill(2, p, p + size);
        p = arena.krealloc(p, size + 20);
        arena.u8.fill(3, p, p + size + 20);
        arena.kfree(p);
      }
      arena.kfree(arena.kmallocNolock(50));
    }
    for (const cache of caches) cache.destroy();
    expect(reports).toEqual([]);
    expectSound(arena);
  });
});
