import { describe, expect, it } from 'vitest';
import { pcsOf } from '#src/cpu/index.js';
import {
  Arena,
  type ArenaOptions,
  AttachError,
  CpuError,
  defineCache,
  type KmemCache,
  type NamedCache,
  SLAB_HWCACHE_ALIGN,
  SlabBugError,
  type StaticCache,
} from '#src/index.js';
import { KmemCacheStruct } from '#src/slab/index.js';
import { abiHash, struct } from '#src/struct/index.js';
import { allocMany, boot, expectRefused, expectSound, freeMany, MiB } from '../cache/support/arena.js';

/** Plain data, as the set-up helpers return it. */
const define = (name: string, options: Omit<NamedCache, 'name'>): NamedCache => ({ name, ...options });
const mm = define('mm_struct', {
  size: 1568,
  flags: SLAB_HWCACHE_ALIGN,
  useroffset: 384,
  usersize: 448,
});
const vma = define('vm_area_struct', { size: 192 });
const caches = [mm, vma];

const attached = (arena: Arena, definitions: readonly StaticCache[] = caches, cpu = 1): Arena => {
  const other = Arena.attach(arena.handle, { caches: definitions });
  other.online({ cpu });
  return other;
};

describe.each(['off', 'kernel', 'primary'] as const)('static caches, merge %s', (merge) => {
  const setup = (options: Partial<ArenaOptions> = {}) => boot({ merge, caches, ...options });

  it('are there before anything else, in every thread at the same place', () => {
    const arena = setup();
    const other = attached(arena);
    const words = (cache: KmemCache) => [cache.desc.ptr, cache.desc.slot, cache.desc.serial];
    expect(arena.staticCaches.map((cache) => cache!.name)).toEqual(['mm_struct', 'vm_area_struct']);
    for (const [i, cache] of arena.staticCaches.entries()) {
      expect(words(other.staticCaches[i]!)).toEqual(words(cache!));
      expect(arena.staticCache(caches[i]!)).toBe(cache);
      expect(arena.openCache(caches[i]!.name)).toBe(cache);
      // Below the heap: nobody allocated it, and nobody frees it.
      expect(cache!.desc.ptr * 4).toBeLessThan(arena.geometry.firstPfn * 4096);
      expect(cache!.desc.ptr % 16).toBe(0);
    }
    const pcs = arena.staticCaches.map((cache) => pcsOf(arena.geometry, 0, cache!.desc.slot));
    expect(new Set(pcs).size).toBe(2);
    const objects = allocMany(other.staticCache(vma), 200);
    other.endTurn();
    freeMany(arena.staticCache(vma), objects);
    expectSound(arena);
  });

  it('are never destroyed', () => {
    const arena = setup();
    const cache = arena.staticCache(mm);
    expectRefused(arena, () => cache.destroy(), RangeError, /mm_struct is a static cache of the arena/);
    cache.free(cache.alloc());
  });

  it('have the layout of a cache that is made later', () => {
    const arena = setup();
    const twin = boot().createCache('twin', { size: 1568, flags: SLAB_HWCACHE_ALIGN });
    const { size, order, objsPerSlab, sheafCapacity } = arena.staticCache(mm);
    expect({ size, order, objsPerSlab, sheafCapacity }).toEqual({
      size: twin.size,
      order: twin.order,
      objsPerSlab: twin.objsPerSlab,
      sheafCapacity: twin.sheafCapacity,
    });
    expect(arena.cacheInfo().find(({ name }) => name === 'mm_struct')!.usersize).toBe(448);
  });

  it('leave the slots behind them to others', () => {
    const arena = setup();
    const slot = arena.staticCache(vma).desc.slot;
    expect(arena.createCache('c', { size: 640 }).desc.slot).toBe(slot + 1);
  });

  it('need memory as others do: an arena that is too small for them says so', () => {
    const many = Array.from({ length: 180 }, (_, i) => define(`c${i}`, { size: 64, sheafCapacity: 1000 }));
    expect(() => Arena.create({ bytes: MiB, cpus: 2, merge, caches: many })).toThrow(
      /no memory for cache c\d+/,
    );
  });
});

describe('a static cache and those that suit it', () => {
  it("do not merge under 'kernel', as in the seed", () => {
    const arena = boot({ merge: 'kernel', caches: [vma] });
    const later = arena.createCache('later', { size: 192 });
    expect(later.desc.slot).not.toBe(arena.staticCache(vma).desc.slot);
    expect(arena.cacheInfo().find(({ name }) => name === 'vm_area_struct')!.sysfs_id).toBe('vm_area_struct');
  });

  it("merge under 'primary', static with static and later with static", () => {
    const twin = define('twin', { size: 192 });
    const arena = boot({ merge: 'primary', caches: [vma, twin] });
    const [first, second] = arena.staticCaches as [KmemCache, KmemCache];
    expect(second.primary).toBe(first);
    expect([first.name, second.name]).toEqual(['vm_area_struct', 'twin']);
    const later = arena.createCache('later', { size: 192 });
    expect(later.primary).toBe(first);
    freeMany(first, [second.alloc(), later.alloc()]);
    later.destroy();
    expect(() => second.destroy()).toThrow(RangeError);
    expectSound(arena);
  });
});

describe('attaching with definitions', () => {
  const arena = boot({ caches });
  const refused = (definitions: Parameters<typeof attached>[1], message: RegExp) => {
    expect(() => Arena.attach(arena.handle, { caches: definitions! })).toThrow(AttachError);
    expect(() => Arena.attach(arena.handle, { caches: definitions! })).toThrow(message);
  };

  it('is refused when this program means something else by a place', () => {
    refused([vma, mm], /caches\[0\], vm_area_struct: name is vm_area_struct here and mm_struct in the arena/);
    refused([mm], /caches has 1 definitions; the arena was made with 2/);
    refused([mm, define('vm_area_struct', { size: 200 })], /size is 200 here and 192 in the arena/);
    refused([mm, define('vm_area_struct', { size: 192, align: 64 })], /align is 64 here and 8/);
    refused([mm, define('vm_area_struct', { size: 192, flags: SLAB_HWCACHE_ALIGN })], /align|flags/);
    refused([mm, define('vm_area_struct', { size: 192, usersize: 8 })], /usersize is 8 here and 0/);
    refused([mm, define('vm_area_struct', { size: 192, layer: 'none' })], /layer is none here/);
  });

  it('without them checks only the build, and then a place has no definition here', () => {
    const other = Arena.attach(arena.handle);
    other.online({ cpu: 1 });
    expect(other.staticCaches[1]!.name).toBe('vm_area_struct');
    expect(() => other.staticCache(vma)).toThrow('"vm_area_struct" is no static cache of this thread');
    other.offline();
  });

  it('compares what every struct takes, its alignment too', () => {
    const before = abiHash('x');
    expect(KmemCacheStruct.SIZEOF).toBeGreaterThan(0);
    struct('test_a', { field: 1 }, { alignWords: 2 });
    const one = abiHash('x');
    expect(one).not.toBe(before);
  });
});

describe('definitions are checked before anything is made', () => {
  const buffer = new SharedArrayBuffer(MiB);
  const create = (definitions: unknown, more: Partial<ArenaOptions> = {}) =>
    Arena.create({ bytes: MiB, cpus: 1, buffer, caches: definitions as never, ...more });

  it.each<[string, () => unknown, RegExp]>([
    ['no array', () => create({}), /^caches is an Object; it must be an array/],
    ['no definition', () => create([7]), /^caches\[0\] is 7; it must be what defineCache returns/],
    ['a bad option', () => create([{ name: 'a', size: 0 }]), /^caches\[0\], a: size is 0/],
    ['a name twice', () => create([vma, vma]), /^caches has "vm_area_struct" twice/],
    ['too many', () => create([vma, mm], { maxCaches: 16 }), /caches has 2 definitions; .* room for 1/],
    ['a range outside', () => create([{ name: 'a', size: 8, usersize: 9 }]), /usersize is 9; .* 0 to 8/],
    ['a range of nothing', () => create([{ name: 'a', size: 8, useroffset: 4 }]), /usersize is 0/],
    ['a module without merging', () => create([{ ...vma, module: true }]), /needs merge 'primary'/],
    ['a bad mode', () => create([], { merge: 'on' as never }), /merge is "on"; it must be one of off/],
    ['a bad switch', () => create([], { hardenedUsercopy: 1 as never }), /hardenedUsercopy is 1/],
    ['a name with a space', () => create([define('a b', { size: 8 })]), /free of white space/],
    [
      'a constructor that no thread can find',
      () => create([{ ...vma, ctor: () => 0 }]),
      /has a ctor; pass what defineCache/,
    ],
  ])('%s', (_what, action, message) => {
    expect(action).toThrow(message);
    expect(new Int32Array(buffer).every((word) => word === 0)).toBe(true);
  });
});

describe("a module's static cache", () => {
  const driver = define('driver_request', { size: 128, module: true });
  const definitions = [vma, driver];
  const setup = () => boot({ merge: 'primary', cpus: 3, caches: definitions });

  it('has its place, and is there once its thread has set it up', () => {
    const arena = setup();
    expect(arena.staticCaches[1]).toBeUndefined();
    expect(() => arena.staticCache(driver)).toThrow(/not set up; call setupCache/);
    const other = attached(arena, definitions);
    const theirs = other.setupCache(driver);
    expect(theirs.desc.ptr).toBeLessThan(arena.geometry.firstPfn * 1024);
    expect(arena.staticCache(driver).name).toBe('driver_request');
    expect(() => other.setupCache(driver)).toThrow(/is set up; destroy it before/);
    expect(() => other.setupCache(vma)).toThrow(/is a static cache of the arena/);
    theirs.free(theirs.alloc());
    other.endTurn();
    expectSound(arena);
  });

  it('owns no slabs: a cache without a name comes before it, and goes with the last that uses it', () => {
    const arena = setup();
    const other = attached(arena, definitions);
    const theirs = other.setupCache(driver);
    expect(theirs.primary).not.toBe(theirs);
    const later = arena.createCache('later', { size: 128 });
    expect(later.primary.desc.ptr).toBe(theirs.primary.desc.ptr);
    const info = arena.cacheInfo().find(({ names }) => names.includes('later'))!;
    expect(info).toMatchObject({
      name: ':0000128',
      sysfs_id: ':0000128',
      names: ['driver_request', 'later'],
      aliases: 1,
    });
    expect(arena.cacheNames()).not.toContain(':0000128');
    expect(theirs.destroy()).toMatchObject({ leaked: 0, users: 1 });
    later.free(later.alloc());
    expect(later.destroy()).toEqual({ cache: 'later', leaked: 0, objects: [] });
    expect(arena.cacheInfo().some(({ name }) => name === ':0000128')).toBe(false);
    expectSound(arena);
  });

  it('uses what suits it, and can be set up again by the next thread', () => {
    const arena = setup();
    const first = arena.createCache('first', { size: 128 });
    for (let round = 0; round < 3; round++) {
      const other = attached(arena, definitions);
      const theirs = other.setupCache(driver);
      expect(theirs.primary.desc.ptr).toBe(first.desc.ptr);
      const p = theirs.alloc();
      theirs.destroy();
      expect(() => theirs.alloc()).toThrow(SlabBugError);
      first.free(p);
      other.offline();
      expect(arena.staticCaches[1]).toBeUndefined();
    }
    expectSound(arena);
  });

  it('must be destroyed before its thread leaves', () => {
    const arena = setup();
    const other = attached(arena, definitions);
    const theirs = other.setupCache(driver);
    expect(() => other.offline()).toThrow(CpuError);
    expect(() => other.offline()).toThrow(/set up driver_request, static caches of a module; destroy them/);
    theirs.destroy();
    other.offline();
    expectSound(arena);
  });

  it('is named by the report when its thread died, and anybody may destroy it', () => {
    const arena = setup();
    const other = attached(arena, definitions);
    other.setupCache(driver).alloc();
    other.endTurn();
    const { notes } = arena.cpuDead(1);
    expect(notes).toEqual(['driver_request: nobody destroys it for its module']);
    expect(arena.openCache('driver_request').destroy()).toMatchObject({ leaked: 1 });
    expectSound(arena);
  });

  it('attaches with the same definitions, whether it is set up or not', () => {
    const arena = setup();
    const other = attached(arena, definitions);
    other.setupCache(driver);
    attached(arena, definitions, 2).offline();
    expect(() => Arena.attach(arena.handle, { caches: [vma, { ...driver, module: false }] })).toThrow(
      /module is 0 here and 1 in the arena/,
    );
  });
});

describe('a static cache with a constructor', () => {
  const buffers = defineCache('static_buffer', {
    size: 96,
    ctor: (p, arena) => {
      arena.i32[p >> 2] = 77;
    },
  });

  it('is of the definition that every thread imports', () => {
    const arena = boot({ merge: 'primary', caches: [vma, buffers] });
    const cache = arena.staticCache(buffers);
    const p = cache.alloc();
    expect(arena.i32[p >> 2]).toBe(77);
    cache.free(p);
    expect(arena.openCache(buffers)).toBe(cache);
    // What it constructs is its own: nothing shares its slabs.
    expect(arena.createCache('plain', { size: 104 }).primary).not.toBe(cache);
    const other = attached(arena, [vma, buffers]);
    other.staticCache(buffers).free(other.staticCache(buffers).alloc());
    other.offline();
    expect(() => Arena.attach(arena.handle, { caches: [vma, { name: 'static_buffer', size: 96 }] })).toThrow(
      AttachError,
    );
    expectSound(arena);
  });
});
