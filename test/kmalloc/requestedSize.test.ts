/** krealloc with __GFP_ZERO, with and without requested sizes; ksize, kfreeSensitive. */
import { describe, expect, it } from 'vitest';
import { __GFP_ZERO, type Arena, GFP_KERNEL, type Layer, SlabBugError, ZERO_SIZE_PTR } from '#src/index.js';
import { LAYERS } from '#src/struct/index.js';
import { boot, expectRefused, expectSound, footprint, MiB, secondCpu } from '../cache/support/arena.js';

const ZERO = GFP_KERNEL | __GFP_ZERO;
const TRACKED = { kmalloc: { requestedSize: true } };
const bytesAt = (arena: Arena, p: number, n: number): number[] => [...arena.u8.subarray(p, p + n)];
const fill = (arena: Arena, p: number, n: number, value = 0xff) => arena.u8.fill(value, p, p + n);
const repeated = (...runs: Array<[number, number]>): number[] =>
  runs.flatMap(([n, value]) => Array.from({ length: n }, () => value));

describe.each(LAYERS)('an arena that keeps requested sizes, layer %s', (layer: Layer) => {
  const arena = boot({ ...TRACKED, layer, bytes: 16 * MiB });

  it('knows them from kmalloc, krealloc, restricted contexts and other threads', () => {
    const before = footprint(arena);
    const p = arena.kmalloc(50);
    expect([arena.requestedSize(p), arena.ksize(p)]).toEqual([50, 64]);
    expect(arena.krealloc(p, 7)).toBe(p);
    expect(arena.requestedSize(p)).toBe(7);
    const nolock = arena.kmallocNolock(33);
    expect(arena.requestedSize(nolock)).toBe(33);
    const other = secondCpu(arena);
    expect(other.requestedSize(nolock)).toBe(33);
    const large = arena.kmalloc(9000);
    expect(arena.requestedSize(large)).toBe(9000);
    expect(arena.krealloc(large, 12_000)).toBe(large);
    expect(arena.requestedSize(large)).toBe(12_000);
    expect([arena.requestedSize(0), arena.requestedSize(ZERO_SIZE_PTR)]).toEqual([0, 0]);
    for (const each of [p, nolock, large]) arena.kfree(each);
    expectRefused(arena, () => arena.requestedSize(p), SlabBugError, /Object already free/);
    other.offline();
    expect(footprint(arena)).toEqual(before);
  });

  it('zeroes what krealloc adds, whatever lies there', () => {
    const p = arena.kmalloc(20);
    fill(arena, p, 32);
    expect(arena.krealloc(p, 30, ZERO)).toBe(p);
    expect(bytesAt(arena, p, 32)).toEqual(repeated([20, 0xff], [10, 0], [2, 0xff]));
    fill(arena, p, 32);
    // Less than before: the rest of the block is cleared, as the kernel does.
    expect(arena.krealloc(p, 10, ZERO)).toBe(p);
    expect(bytesAt(arena, p, 32)).toEqual(repeated([10, 0xff], [22, 0]));
    fill(arena, p, 32);
    expect(arena.krealloc(p, 25)).toBe(p);
    expect(bytesAt(arena, p, 32)).toEqual(repeated([32, 0xff]));
    // A block that moves takes with it what was asked for, no more.
    const q = arena.krealloc(p, 300, ZERO);
    expect(q).not.toBe(p);
    expect(bytesAt(arena, q, 300)).toEqual(repeated([25, 0xff], [275, 0]));
    fill(arena, q, 300);
    const large = arena.krealloc(q, 9000, ZERO);
    expect(bytesAt(arena, large, 301)).toEqual(repeated([300, 0xff], [1, 0]));
    fill(arena, large, 12_288);
    expect(arena.krealloc(large, 9010, ZERO)).toBe(large);
    expect(bytesAt(arena, large + 8999, 12)).toEqual(repeated([1, 0xff], [10, 0], [1, 0xff]));
    arena.kfree(large);
    expectSound(arena);
  });

  it('counts an object that is taken straight from a kmalloc cache as asked for whole', () => {
    const cache = arena.openCache('kmalloc-32');
    const out = new Int32Array(8);
    const stale = Array.from({ length: 200 }, () => arena.kmalloc(17));
    for (const p of stale) arena.kfree(p);
    const sheaf = cache.prefill(2)!;
    expect(cache.allocBulk(out, 4)).toBe(true);
    out.set([cache.alloc(), cache.allocNode(0), sheaf.alloc(), sheaf.alloc()], 4);
    expect([...out].filter((p) => stale.includes(p)).length).toBeGreaterThanOrEqual(4);
    for (const p of out) expect(arena.requestedSize(p)).toBe(32);
    cache.return(sheaf);
    cache.freeBulk(out, 8);
    expectSound(arena);
  });
});

describe('requested sizes', () => {
  it('lie behind the object, which costs a word and with the alignment more', () => {
    const arena = boot({ ...TRACKED, bytes: 16 * MiB });
    const strides = [8, 64, 96, 192, 4096].map((size) => {
      const { desc } = arena.openCache(size < 1024 ? `kmalloc-${size}` : 'kmalloc-4k');
      expect([desc.objectSize, desc.origSize]).toEqual([size, size]);
      return desc.size;
    });
    expect(strides).toEqual([16, 128, 128, 256, 8192]);
    for (let size = 1; size <= 8192; size += 61) {
      const p = arena.kmalloc(size);
      expect(arena.requestedSize(p)).toBe(size);
      expect(fill(arena, p, arena.ksize(p)) && arena.requestedSize(p)).toBe(size);
      arena.kfree(p);
    }
    expect(arena.createCache('other', { size: 64 }).desc.origSize).toBe(0);
    expectSound(arena);
  });

  it('are not kept by default, but of whole pages', () => {
    const arena = boot();
    const p = arena.kmalloc(50);
    expect(arena.requestedSize(p)).toBe(0);
    expect(arena.openCache('kmalloc-64').desc.size).toBe(64);
    expect(arena.requestedSize(arena.kmalloc(20_000))).toBe(20_000);
  });
});

describe('krealloc without requested sizes', () => {
  const arena = boot();

  it('clears what it leaves over, so that blocks which always had the flag stay zero', () => {
    const p = arena.kzalloc(50);
    fill(arena, p, 50);
    expect(arena.krealloc(p, 20, ZERO)).toBe(p);
    expect(bytesAt(arena, p, 64)).toEqual(repeated([20, 0xff], [44, 0]));
    expect(arena.krealloc(p, 60, ZERO)).toBe(p);
    expect(bytesAt(arena, p, 60)).toEqual(repeated([20, 0xff], [40, 0]));
    const q = arena.krealloc(p, 100, ZERO);
    expect(bytesAt(arena, q, 128)).toEqual(repeated([20, 0xff], [108, 0]));
    arena.kfree(q);
  });

  it('refuses flags that there are not, with nothing changed', () => {
    const p = arena.kmalloc(50);
    expectRefused(arena, () => arena.krealloc(p, 20, 1 << 29), RangeError, /gfp is 0x20000000/);
    arena.kfree(p);
  });
});

describe('ksize', () => {
  it('ends where something lies behind the object, and else with its slot', () => {
    const arena = boot();
    const padded = arena.createCache('padded', { size: 40, align: 64 }).alloc();
    expect(arena.ksize(padded)).toBe(64);
    const odd = arena.createCache('odd', { size: 41 }).alloc();
    expect(arena.ksize(odd)).toBe(48);
    fill(arena, padded, 64);
    fill(arena, odd, 48);
    expectSound(arena);
  });
});

describe.each(['free', 'none'] as const)('kfreeSensitive, check %s', (check) => {
  const arena = boot({ check, bytes: 4 * MiB });

  it.each([1, 64, 100, 8192, 9000, 100_000])('leaves nothing of %i bytes', (size) => {
    const before = footprint(arena);
    const p = arena.kmalloc(size);
    const usable = arena.ksize(p);
    fill(arena, p, usable);
    arena.kfreeSensitive(p);
    // A free object in a sheaf, and free pages, are not written to but for links.
    expect(bytesAt(arena, p, usable).filter((byte) => byte === 0xff)).toEqual([]);
    expect(footprint(arena)).toEqual(before);
  });

  it('takes nothing and refuses what kfree refuses, unchanged', () => {
    arena.kfreeSensitive(0);
    arena.kfreeSensitive(ZERO_SIZE_PTR);
    expectRefused(arena, () => arena.kfreeSensitive(64), SlabBugError, /not an address of the heap/);
    if (check === 'none') return;
    const p = arena.kmalloc(100);
    expectRefused(arena, () => arena.kfreeSensitive(p + 8), SlabBugError, /8 bytes into an object of 128/);
    arena.kfree(p);
    expectRefused(arena, () => arena.kfreeSensitive(p), SlabBugError, /Object already free/);
  });
});
