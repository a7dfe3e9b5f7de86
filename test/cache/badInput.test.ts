/**
 * Everything that a caller can get wrong: a typed error that names the value and what would be right, and an arena in
 * which no word has changed.
 */

import { describe, expect, it } from 'vitest';
import { Arena, type ArenaOptions, AttachError, type CacheOptions, CpuError } from '#src/index.js';
import { MAGIC, Superblock } from '#src/struct/index.js';
import { boot, expectRefused, expectSound, MiB } from './support/arena.js';

/** Every refusal compares the whole arena with what it was. */
const SMALL = { bytes: 2 * MiB, cpus: 2, maxCaches: 24 };

type Wrong = [value: unknown, message: RegExp];

describe('Arena.create', () => {
  const create = (options: unknown) => () => Arena.create(options as ArenaOptions);
  const good = { bytes: 8 * MiB, cpus: 2 };

  it.each<[keyof ArenaOptions, unknown, typeof RangeError | typeof TypeError, RegExp]>([
    ['bytes', undefined, TypeError, /bytes is undefined; it must be a number/],
    ['bytes', '8388608', TypeError, /bytes is "8388608"; it must be a number/],
    ['bytes', 8388608n, TypeError, /bytes is 8388608n; it must be a number/],
    ['bytes', 0, RangeError, /bytes is 0; it must be an integer from 4096/],
    ['bytes', -4096, RangeError, /bytes is -4096; it must be an integer/],
    ['bytes', Number.NaN, RangeError, /bytes is NaN; it must be an integer/],
    ['bytes', 8 * MiB + 1, RangeError, /bytes is 8388609; it must be a multiple of the page size, 4096/],
    ['bytes', 8 * MiB + 0.5, RangeError, /bytes is 8388608.5; it must be an integer/],
    ['bytes', 4096, RangeError, /bytes is 4096; .* it must be at least \d+/],
    [
      'bytes',
      2 ** 31 + 4096,
      RangeError,
      /bytes is 2147487744; it must be an integer from 4096 to 2147483648/,
    ],
    ['bytes', Number.POSITIVE_INFINITY, RangeError, /bytes is Infinity/],
    ['cpus', 0, RangeError, /cpus is 0; it must be an integer from 1 to 256/],
    ['cpus', 257, RangeError, /cpus is 257/],
    ['cpus', 1.5, RangeError, /cpus is 1.5/],
    ['cpus', '2', TypeError, /cpus is "2"/],
    ['nodes', 3, RangeError, /nodes is 3; it must be an integer from 1 to 2/],
    ['nodes', 0, RangeError, /nodes is 0/],
    ['maxCaches', 15, RangeError, /maxCaches is 15; it must be an integer from 16 to 254/],
    ['maxCaches', 255, RangeError, /maxCaches is 255/],
    ['lockPolicy', 'none', RangeError, /lockPolicy is "none"; it must be one of turn, op/],
    ['check', true, RangeError, /check is true; it must be one of none, free, full/],
    ['lockStat', 'on', RangeError, /lockStat is "on"; it must be one of off, contended, sampled, full/],
    [
      'buffer',
      new ArrayBuffer(8 * MiB),
      TypeError,
      /buffer is an ArrayBuffer; it must be a SharedArrayBuffer/,
    ],
    ['buffer', new Uint8Array(8), TypeError, /buffer is a Uint8Array/],
    ['buffer', null, TypeError, /buffer is null/],
    ['buffer', new SharedArrayBuffer(4 * MiB), RangeError, /bytes is 8388608; the buffer has 4194304/],
  ])('refuses %s: %o', (option, value, type, message) => {
    expect(create({ ...good, [option]: value })).toThrow(type);
    expect(create({ ...good, [option]: value })).toThrow(message);
  });

  it.each([undefined, null, 5, 'x'])('refuses options that are no object: %o', (options) => {
    expect(create(options)).toThrow(TypeError);
    expect(create(options)).toThrow(/options is .*; it must be an object with at least `bytes`/);
  });

  it('refuses a growable buffer', () => {
    const growable = new (SharedArrayBuffer as unknown as new (n: number, o: object) => SharedArrayBuffer)(
      8 * MiB,
      {
        maxByteLength: 16 * MiB,
      },
    );
    expect(create({ ...good, buffer: growable })).toThrow(/buffer is growable/);
  });

  it('refuses a buffer that holds an arena, and leaves that alone', () => {
    const arena = boot(good);
    const p = arena.kmalloc(100);
    expectRefused(
      arena,
      create({ ...good, buffer: arena.buffer }),
      RangeError,
      /buffer holds an arena already; attach to it/,
    );
    arena.kfree(p);
  });

  it.each([4096, 100_000])(
    'refuses a buffer that is not zero at byte %i, where its own data would be',
    (at) => {
      const buffer = new SharedArrayBuffer(8 * MiB);
      new Uint8Array(buffer)[at] = 165;
      expect(create({ ...good, buffer })).toThrow(
        new RegExp(`buffer has 0xa5 at byte ${at}; it must be zero up to byte \\d+, as a new one is`),
      );
      new Uint8Array(buffer)[at] = 0;
      expect(Arena.create({ ...good, buffer }).buffer).toBe(buffer);
    },
  );

  it('uses a good buffer', () => {
    const buffer = new SharedArrayBuffer(8 * MiB);
    expect(Arena.create({ ...good, buffer }).buffer).toBe(buffer);
    const { Memory } = (
      globalThis as unknown as { WebAssembly: { Memory: new (limits: object) => { buffer: unknown } } }
    ).WebAssembly;
    const memory = new Memory({ initial: 128, maximum: 128, shared: true });
    const arena = Arena.create({ ...good, buffer: memory.buffer as SharedArrayBuffer });
    arena.online();
    expectSound(arena);
  });
});

describe('Arena.attach', () => {
  const attach = (handle: unknown) => () => Arena.attach(handle as never);
  const copyOf = (arena: Arena, change: (m: Int32Array) => void): SharedArrayBuffer => {
    const copy = new SharedArrayBuffer(arena.buffer.byteLength);
    new Uint8Array(copy).set(arena.u8);
    change(new Int32Array(copy));
    return copy;
  };

  it.each<Wrong>([
    [undefined, /cannot attach to undefined; pass arena\.handle or its SharedArrayBuffer/],
    [null, /cannot attach to null/],
    [7, /cannot attach to 7/],
    ['x', /cannot attach to "x"/],
    [{}, /cannot attach to an Object; pass arena.handle/],
    [{ granary: 1, buffer: new ArrayBuffer(8192) }, /cannot attach to an Object; pass arena.handle/],
    [
      { buffer: new SharedArrayBuffer(8192) },
      /cannot attach to an Object, whose granary is undefined and not 1; pass arena\.handle/,
    ],
    [{ granary: 2, buffer: new SharedArrayBuffer(8192) }, /whose granary is 2 and not 1/],
    [new ArrayBuffer(8192), /cannot attach to an ArrayBuffer/],
    [new SharedArrayBuffer(0), /not an arena: a buffer of 0 bytes/],
    [new SharedArrayBuffer(100), /not an arena: a buffer of 100 bytes/],
    [new SharedArrayBuffer(5000), /not an arena: a buffer of 5000 bytes; an arena is a multiple of 4096/],
    [new SharedArrayBuffer(8192), /not an arena: the superblock's magic is 0x0, not 0x594e5247/],
  ])('refuses %o', (handle, message) => {
    expect(attach(handle)).toThrow(AttachError);
    expect(attach(handle)).toThrow(message);
  });

  it('refuses another build, and says whose hash is which', () => {
    const arena = boot();
    const buffer = copyOf(arena, (m) => {
      m[Superblock.abi] = m[Superblock.abi]! ^ 1;
    });
    expect(attach(buffer)).toThrow(AttachError);
    expect(attach(buffer)).toThrow(
      /made by another build: its ABI hash is 0x[0-9a-f]+, this build's is 0x[0-9a-f]+; load the same version/,
    );
  });

  it('refuses an arena that is still being booted', () => {
    const arena = boot();
    const buffer = copyOf(arena, (m) => {
      m[Superblock.booted] = 0;
    });
    expect(attach(buffer)).toThrow(
      /the arena is still being booted; attach after Arena\.create has returned/,
    );
  });

  it('refuses a part of an arena, and a foreign magic', () => {
    const arena = boot();
    const part = new SharedArrayBuffer(4 * MiB);
    new Uint8Array(part).set(arena.u8.subarray(0, 4 * MiB));
    expect(attach(part)).toThrow(/the arena has 8388608 bytes, the buffer 4194304/);
    const foreign = copyOf(arena, (m) => {
      m[Superblock.magic] = MAGIC + 1;
    });
    expect(attach(foreign)).toThrow(/the superblock's magic is 0x594e5248, not 0x594e5247/);
  });

  it('accepts the handle, a clone of it, and the bare buffer', () => {
    const arena = boot();
    for (const handle of [arena.handle, { ...arena.handle }, arena.buffer]) {
      expect(Arena.attach(handle).geometry).toEqual(arena.geometry);
    }
  });
});

describe('CPU slots', () => {
  it('run out: more threads than slots', () => {
    const arena = boot({ cpus: 2 });
    const second = Arena.attach(arena.handle);
    second.online();
    const third = Arena.attach(arena.handle);
    expectRefused(
      arena,
      () => third.online(),
      CpuError,
      /all 2 CPU slots are taken; make the arena with more `cpus`/,
    );
    expectRefused(
      arena,
      () => third.online({ cpu: 1 }),
      CpuError,
      /CPU 1 is taken; omit `cpu` to get a free one/,
    );
    second.offline();
    expect(third.online().id).toBe(1);
  });

  it('are numbers that exist', () => {
    const arena = boot({ cpus: 2 });
    const other = Arena.attach(arena.handle);
    for (const cpu of [2, -1, 0.5, Number.NaN]) {
      expectRefused(
        arena,
        () => other.online({ cpu }),
        RangeError,
        /cpu is .*; it must be an integer from 0 to 1/,
      );
    }
    expectRefused(arena, () => other.online({ cpu: '1' as never }), TypeError, /cpu is "1"/);
    expectRefused(arena, () => other.online({ thread: 2 ** 31 }), RangeError, /thread is 2147483648/);
  });

  it('are one per arena object at a time', () => {
    const arena = boot();
    expectRefused(
      arena,
      () => arena.online(),
      CpuError,
      /this thread is CPU 0 already; call offline\(\) first/,
    );
  });

  it('are needed for everything: before online and after offline', () => {
    const arena = Arena.create({ bytes: 8 * MiB, cpus: 1 });
    const uses: Array<() => unknown> = [
      () => arena.cpu,
      () => arena.kmalloc(8),
      () => arena.kzalloc(8),
      () => arena.kfree(4096),
      () => arena.kfreeBulk(new Int32Array(1), 1),
      () => arena.krealloc(0, 8),
      () => arena.ksize(4096),
      () => arena.createCache('c', { size: 8 }),
      () => arena.openCache('kmalloc-8'),
      () => arena.cacheNames(),
      () => arena.allocPages(0),
      () => arena.freePages(4096, 0),
      () => arena.failPageAlloc(1),
      () => arena.validate(),
      () => arena.slabinfo(),
      () => arena.cacheInfo(),
      () => arena.meminfo(),
      () => arena.cpuDead(0),
      () => arena.offline(),
    ];
    const offline = /this thread is no CPU of the arena: call arena\.online\(\) first/;
    for (const phase of ['before', 'after']) {
      for (const use of uses) {
        expect(use, `${phase}: ${use}`).toThrow(CpuError);
        expect(use).toThrow(offline);
      }
      expect(arena.isOnline).toBe(false);
      expect(arena.lockStat()).toEqual([]);
      arena.endTurn();
      if (phase === 'before') {
        arena.online();
        arena.offline();
      }
    }
  });

  it('are only flushed for others that were online', () => {
    const arena = boot({ cpus: 3 });
    expectRefused(arena, () => arena.cpuDead(0), CpuError, /CPU 0 is this thread; call offline\(\)/);
    expectRefused(arena, () => arena.cpuDead(1), CpuError, /CPU 1 has no thread/);
    for (const thread of [3, -1, 0.5, Number.NaN]) {
      const range = /thread is .*; it must be an integer from 0 to 2/;
      expectRefused(arena, () => arena.cpuDead(thread), RangeError, range);
    }
    for (const thread of ['1', undefined]) {
      expectRefused(arena, () => arena.cpuDead(thread as never), TypeError, /thread is .* must be a number/);
    }
  });
});

describe('createCache', () => {
  const arena = boot(SMALL);
  arena.createCache('taken', { size: 64 });
  const refused = (
    name: unknown,
    options: unknown,
    type: typeof RangeError | typeof TypeError,
    message: RegExp,
  ) => {
    const caches = arena.cacheNames();
    expectRefused(arena, () => arena.createCache(name as string, options as CacheOptions), type, message);
    expect(arena.cacheNames()).toEqual(caches);
  };

  it.each<[keyof CacheOptions, unknown, typeof RangeError | typeof TypeError, RegExp]>([
    ['size', 0, RangeError, /size is 0; it must be an integer from 1 to 4194304/],
    ['size', -1, RangeError, /size is -1/],
    ['size', Number.NaN, RangeError, /size is NaN/],
    ['size', 0.5, RangeError, /size is 0.5/],
    ['size', (1 << 22) + 1, RangeError, /size is 4194305/],
    ['size', 2 ** 40, RangeError, /size is 1099511627776/],
    ['size', Number.POSITIVE_INFINITY, RangeError, /size is Infinity/],
    ['size', '64', TypeError, /size is "64"; it must be a number/],
    ['size', 64n, TypeError, /size is 64n/],
    ['size', undefined, TypeError, /size is undefined/],
    ['align', 3, RangeError, /align is 3; it must be a power of two up to 4096/],
    ['align', 24, RangeError, /align is 24/],
    ['align', 8192, RangeError, /align is 8192; it must be an integer from 0 to 4096/],
    ['align', -8, RangeError, /align is -8/],
    ['align', 0.5, RangeError, /align is 0.5/],
    ['align', null, TypeError, /align is null/],
    ['flags', 1 << 17, RangeError, /flags is .*0x20000.*; it must be within 0x[0-9a-f]+/],
    ['flags', 1 << 16, RangeError, /flags is .*0x10000/],
    ['flags', 1 << 30, RangeError, /flags is .*0x40000000/],
    ['flags', -1, RangeError, /flags is -1/],
    ['flags', 1.5, RangeError, /flags is 1.5/],
    ['sheafCapacity', -1, RangeError, /sheafCapacity is -1; it must be an integer from 0 to 4096/],
    ['sheafCapacity', 4097, RangeError, /sheafCapacity is 4097/],
    ['sheafCapacity', Number.NaN, RangeError, /sheafCapacity is NaN/],
    ['sheafCapacity', '60', TypeError, /sheafCapacity is "60"/],
  ])('refuses %s: %o', (option, value, type, message) => {
    refused('new', { size: 64, [option]: value }, type, message);
  });

  it.each<[unknown, typeof RangeError | typeof TypeError, RegExp]>([
    ['', RangeError, /name is ""; it must be 1 to 63 bytes long/],
    ['x'.repeat(64), RangeError, /it must be 1 to 63 bytes long/],
    ['漢'.repeat(22), RangeError, /it must be 1 to 63 bytes long/],
    ['a b', RangeError, /name is "a b"; it must be free of white space/],
    ['a\n', RangeError, /it must be free of white space/],
    ['a\0', RangeError, /it must be free of white space/],
    ['a\u00a0b', RangeError, /it must be free of white space/],
    [undefined, TypeError, /a cache's name is undefined; it must be a string/],
    [5, TypeError, /a cache's name is 5/],
    [['x'], TypeError, /a cache's name is an Array/],
    ['taken', RangeError, /name is "taken"; a cache of that name exists, use openCache/],
    ['kmalloc-64', RangeError, /name is "kmalloc-64"; a cache of that name exists/],
    ['kmem_cache', RangeError, /a cache of that name exists/],
  ])('refuses the name %o', (name, type, message) => refused(name, { size: 64 }, type, message));

  it.each([undefined, null, 64])('refuses options that are no object: %o', (options) => {
    refused('new', options, TypeError, /options is .*; it must be an object with at least `size`/);
  });

  it('does not open what is not there', () => {
    expectRefused(
      arena,
      () => arena.openCache('absent'),
      RangeError,
      /no cache is named "absent"; there are taken/,
    );
    expectRefused(arena, () => arena.openCache(''), RangeError, /name is ""/);
    expectRefused(arena, () => arena.openCache(3 as never), TypeError, /a cache's name is 3/);
  });
});
