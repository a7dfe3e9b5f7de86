/** A superblock in which something was changed: what a thread attaches to must be what Arena.create wrote. */
import { describe, expect, it } from 'vitest';
import { Arena, type ArenaOptions, AttachError, defineCache } from '#src/index.js';
import { rng } from '#src/lab/stats.js';
import { SlabDebug } from '#src/slab/index.js';
import { type Geometry, Superblock } from '#src/struct/index.js';
import { expectSound, MiB } from './support/arena.js';

const ARENAS: Record<string, ArenaOptions> = {
  'with the defaults': { bytes: 8 * MiB },
  'of the least size': { bytes: 700416, cpus: 1, check: 'none' },
  'with every option': {
    bytes: 32 * MiB,
    cpus: 4,
    threads: 6,
    nodes: 2,
    maxCaches: 120,
    lockPolicy: 'op',
    layer: 'cpu-slab',
    barnFull: 3,
    barnFullMax: 40,
    barnEmpty: 7,
    kmalloc: { types: ['dma', 'cgroup'], copies: 2, copyBy: 'type', seed: 0xfedcba98, requestedSize: true },
    refinements: { batchDetach: false },
    check: 'full',
    lockStat: 'full',
    slabDebug: 'FZ,kmalloc-*;U,node',
    quarantine: 8192,
    guard: { every: 100, objects: 7 },
    initOnAlloc: true,
    freelistHardened: true,
    lockdep: true,
    sheafCapacity: 9,
    hardenedUsercopy: true,
    percpu: { unitPages: 16, areaCache: 4, areaBatch: 2, cpusPerAreaCache: 2 },
  },
  'with static caches and merging': {
    bytes: 16 * MiB,
    cpus: 2,
    merge: 'primary',
    caches: [defineCache('superblock-static', { size: 48 })],
  },
  'without sheaves': { bytes: 8 * MiB, cpus: 3, nodes: 3, tiny: true },
  'of 2 GiB': { bytes: 2048 * MiB, cpus: 256 },
};

const wordName = (at: number): string =>
  Object.entries(Superblock).findLast(([name, offset]) => name !== 'SIZEOF' && offset <= at)![0];

/** What attaching says while one word is another. */
function attachWith(arena: Arena, at: number, value: number): unknown {
  const word = arena.i32[at]!;
  arena.i32[at] = value;
  try {
    Arena.attach(arena.handle);
    return 'attached';
  } catch (error) {
    return error;
  } finally {
    arena.i32[at] = word;
  }
}

describe.each(Object.entries(ARENAS))('an arena %s', (_, options) => {
  const arena = Arena.create(options);

  it('is what another thread reads back', () => {
    expect(Arena.attach(arena.handle).geometry).toEqual(arena.geometry);
  });

  it('is refused with any word of its superblock changed, in any of its bits', () => {
    const random = rng(7);
    for (let at = Superblock.bootSheaf; at < Superblock.SIZEOF; at++) {
      const word = arena.i32[at]!;
      const flips = [1, 2, 4, 1 << 30, 1 << 31, -1].map((bits) => word ^ bits);
      const others = [0, 1, -1, Math.floor(random() * 2 ** 32) | 0, word + 1, word << 1];
      for (const value of new Set([...flips, ...others])) {
        if ((value | 0) === word) continue;
        const error = attachWith(arena, at, value);
        expect(error, `${wordName(at)} ${word} -> ${value}`).toBeInstanceOf(AttachError);
      }
    }
  });

  it('is as it was when it is attached to after all that, whatever lies at address 0', () => {
    arena.i32.fill(-1, 0, Superblock.bootSheaf);
    const other = Arena.attach(arena.handle);
    other.online({ cpu: other.geometry.cpus - 1 });
    const p = other.kmalloc(100);
    expect(p).toBeGreaterThan(0);
    other.kfree(p);
    other.endTurn();
    expectSound(other);
    other.offline();
  });
});

describe('a damaged superblock', () => {
  const arena = Arena.create({ bytes: 8 * MiB, cpus: 4, slabDebug: 'F,node' });
  const { geometry } = arena;
  const say = (field: keyof typeof Superblock, value: number): string =>
    (attachWith(arena, Superblock[field], value) as Error).message;

  it.each<[keyof Geometry, number, RegExp]>([
    ['cpus', 300, /damaged: cpus is 300; it must be an integer from 1 to 256$/],
    ['cpus', 5, /damaged: threads is 4; it must be an integer from 5 to 1024$/],
    ['threads', 5, /damaged: threads is 5, more than cpus, 4, and lockPolicy is 'turn'/],
    ['nodes', 0, /damaged: nodes is 0; it must be an integer from 1 to 4$/],
    ['layer', 4, /damaged: layer is 4; it must be 0 to 3, for sheaves, percpu-array, cpu-slab, none$/],
    ['check', 3, /damaged: check is 3; it must be 0 to 2, for none, free, full$/],
    ['tiny', 2, /damaged: tiny is 2; it must be 0 or 1$/],
    ['refinements', 15, /damaged: refinements is 15; with cpus 4, .* it must be 7$/],
    ['nrStatics', 255, /damaged: nrStatics is 255; it must be an integer from 0 to 254$/],
    ['quarantine', 2 ** 30, /damaged: quarantine is 1073741824; it must be /],
    ['slabDebug', 0x7fffffff, /damaged: slabDebug is 2147483647; with cpus 4, .* it must be \d+$/],
    [
      'barnFull',
      11,
      /damaged: sum is 0x[0-9a-f]+; for the options there it must be 0x[0-9a-f]+: one of them was changed, or it was$/,
    ],
    [
      'kmallocSeed',
      1,
      /damaged: sum is 0x[0-9a-f]+; for the options there it must be 0x[0-9a-f]+: one of them was changed, or it was$/,
    ],
  ])('says of %s %i what is wrong', (field, value, message) => {
    expect(say(field, value)).toMatch(message);
  });

  it.each(['zones', 'registry', 'percpu', 'rcu', 'pcpu', 'memmap', 'shadow', 'endPfn'] as const)(
    'says of %s beyond the arena where it must be',
    (field) => {
      const at = geometry.bytes;
      const message = `the superblock is damaged: ${field} is ${at}; with cpus 4, threads 4, nodes 1, maxCaches 200 and the other options there it must be ${geometry[field]}`;
      expect(say(field, at)).toBe(message);
    },
  );

  it('says what is wrong with the text of slabDebug', () => {
    const length = geometry.slabDebug + 1;
    expect((attachWith(arena, length, 1 << 20) as Error).message).toMatch(
      /damaged: length of slabDebug is 1048576; it must be an integer from 0 to 1024$/,
    );
    const text = (arena.geometry.slabDebug + SlabDebug.SIZEOF) as number;
    const letters = arena.i32[text]! ^ ('F'.charCodeAt(0) ^ 'Q'.charCodeAt(0));
    expect((attachWith(arena, text, letters) as Error).message).toMatch(
      /damaged: slabDebug is "Q,node"; 'Q' is none of F, Z, P, U, T, A, O and -/,
    );
  });

  it('says when the empty sheaf that all share has something', () => {
    expect((attachWith(arena, Superblock.bootSheaf + 2, 1) as Error).message).toBe(
      'the superblock is damaged: bootSheaf has 0x1 in word 18; it must be 0, which nobody writes',
    );
  });
});
