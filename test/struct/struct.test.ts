import { describe, expect, it } from 'vitest';
import { Registry, RegistrySlot } from '#src/cache/index.js';
import { Pcs, PERCPU_BLOCK_WORDS, STAT_ITEMS, ThreadRecord } from '#src/cpu/index.js';
import { Page, Zone } from '#src/page/index.js';
import { Barn, Sheaf, sheafBytes } from '#src/sheaf/index.js';
import { KmemCacheNode, KmemCacheStruct, kmemCacheBytes } from '#src/slab/index.js';
import { abiHash, alignUp, LINE_WORDS, Superblock, struct, WORD_BYTES } from '#src/struct/index.js';
import { LOCK_STAT_WORDS, Lock, LockRecord, LockStat } from '#src/sync/index.js';

describe('struct', () => {
  it('lays fields out in declaration order', () => {
    expect(struct('test_order', { a: 1, b: 3, c: 2, d: 1 })).toEqual({ a: 0, b: 1, c: 4, d: 6, SIZEOF: 7 });
  });

  it('rounds the size, not the offsets, up to the alignment', () => {
    const laid = struct('test_align', { a: 1, b: 16 }, { alignWords: LINE_WORDS });
    expect(laid).toEqual({ a: 0, b: 1, SIZEOF: 32 });
    expect(struct('test_exact', { a: 16 }, { alignWords: LINE_WORDS }).SIZEOF).toBe(16);
  });

  it('cannot be changed afterwards', () => {
    const laid = struct('test_frozen', { a: 1 }) as Record<string, number>;
    expect(() => {
      laid.a = 5;
    }).toThrow(TypeError);
  });

  it('rounds up to powers of two, above 2^31 too', () => {
    expect([0, 1, 16, 17].map((n) => alignUp(n, 16))).toEqual([0, 16, 16, 32]);
    expect(alignUp(2 ** 31 + 1, 4096)).toBe(2 ** 31 + 4096);
  });
});

describe('the ABI hash', () => {
  it('is the same for the same layouts', () => {
    expect(abiHash('x')).toBe(abiHash('x'));
    expect(abiHash('x')).toBe(abiHash('x') | 0);
  });

  it('changes with what is added to it', () => {
    expect(abiHash('granary 1')).not.toBe(abiHash('granary 2'));
  });

  it('changes with the name of a struct, and with the order, width and names of its fields', async () => {
    const variants: Array<Array<[string, Record<string, number>, number?]>> = [
      [],
      [['s', { a: 1, b: 1 }]],
      [['t', { a: 1, b: 1 }]],
      [['s', { b: 1, a: 1 }]],
      [['s', { a: 2, b: 1 }]],
      [['s', { a: 1, b: 2 }]],
      [['s', { a: 1, c: 1 }]],
      [['s', { a: 1, b: 1 }, 16]],
      [
        ['s', { a: 1, b: 1 }],
        ['t', { a: 1, b: 1 }],
      ],
    ];
    const hashes = await Promise.all(variants.map((structs, i) => hashOf(structs, `once-${i}`)));
    expect(new Set(hashes).size).toBe(variants.length);
    expect(await Promise.all(variants.map((structs, i) => hashOf(structs, `again-${i}`)))).toEqual(hashes);
  });

  it('does not change with the order in which modules are loaded', async () => {
    const structs: Array<[string, Record<string, number>]> = [
      ['s', { a: 1 }],
      ['t', { b: 1 }],
    ];
    expect(await hashOf(structs, 'forth')).toBe(await hashOf([...structs].reverse(), 'back'));
  });
});

/** The hash of a program that declares these structs and no others. */
async function hashOf(
  structs: Array<[string, Record<string, number>, number?]>,
  instance: string,
): Promise<number> {
  const file = new URL(`../../dist/chunks/sync.js?${instance}`, import.meta.url).href;
  const fresh = (await import(/* @vite-ignore */ file)) as { struct: typeof struct; abiHash: typeof abiHash };
  for (const [name, fields, alignWords = 1] of structs) fresh.struct(name, fields, { alignWords });
  return fresh.abiHash('');
}

describe('sizes that the design depends on', () => {
  it('what each CPU writes alone owns its cache lines', () => {
    expect(Pcs.SIZEOF).toBe(LINE_WORDS);
    expect(PERCPU_BLOCK_WORDS % LINE_WORDS).toBe(0);
    expect(PERCPU_BLOCK_WORDS).toBeGreaterThanOrEqual(Pcs.SIZEOF + 2 * STAT_ITEMS.length);
    expect(ThreadRecord.SIZEOF % LINE_WORDS).toBe(0);
    expect(ThreadRecord.request).toBe(0);
    expect(ThreadRecord.state).toBe(LINE_WORDS);
    expect(ThreadRecord.locks % LINE_WORDS).toBe(0);
    expect(LockRecord.SIZEOF).toBe(LINE_WORDS);
    expect(LockStat.SIZEOF % LINE_WORDS).toBe(0);
    expect(LOCK_STAT_WORDS % LINE_WORDS).toBe(0);
  });

  it('what is locked by many owns its cache line', () => {
    expect(Barn.SIZEOF).toBe(LINE_WORDS);
    expect(KmemCacheNode.SIZEOF).toBe(LINE_WORDS);
    expect(Zone.SIZEOF % LINE_WORDS).toBe(0);
  });

  it('a sheaf is a header of 4 words and its objects', () => {
    expect(Sheaf.SIZEOF).toBe(4);
    expect([60, 28, 12, 4].map(sheafBytes)).toEqual([256, 128, 64, 32]);
  });

  it('the rest', () => {
    expect(Lock.SIZEOF).toBe(2);
    expect(Page.SIZEOF).toBe(8);
    expect(RegistrySlot.SIZEOF).toBe(2);
    expect(Registry.SIZEOF % 2).toBe(0);
    expect(kmemCacheBytes(1)).toBe((KmemCacheStruct.SIZEOF + 2) * WORD_BYTES);
    expect(kmemCacheBytes(4) - kmemCacheBytes(3)).toBe(2 * WORD_BYTES);
  });

  it('word 0 is NULL and the bootstrap sheaf a line of its own', () => {
    expect(Superblock.null).toBe(0);
    expect(Superblock.bootSheaf).toBe(LINE_WORDS);
    expect(Superblock.magic).toBe(2 * LINE_WORDS);
  });
});
