/** What validate() says about arrays that are not as they should be. */
import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { PercpuArray } from '#src/sheaf/index.js';
import { arrayOf, MODES, setup } from './support.js';

describe.each(MODES.filter(({ check }) => check !== 'none'))('policy $lockPolicy, check $check', (mode) => {
  const scene = () => {
    const { arena, cache } = setup(mode);
    cache.prefillArray(6);
    const p = cache.alloc();
    arena.endTurn();
    expect(arena.validate()).toEqual([]);
    const pcs = pcsOf(arena.geometry, 0, cache.desc.slot);
    const array = arena.i32[pcs + Pcs.main]!;
    const found = () => arena.validate().map(({ invariant, what }) => `${invariant}: ${what}`);
    return { arena, cache, m: arena.i32, pcs, array, p, found };
  };

  it('I1: an array that is gone', () => {
    const { m, pcs, found } = scene();
    m[pcs + Pcs.main] = 0;
    expect(found()[0]).toBe('I1: CPU 0 has no array');
  });

  it('I2: more in it than there is room for, or operations that nobody counted', () => {
    for (const used of [9, (1 << 16) + 5]) {
      const { m, array, found } = scene();
      m[array + PercpuArray.used] = used;
      expect(found()).toContain(`I2: the array of CPU 0: used ${used}, count 8`);
    }
  });

  it('I10, I13: objects that are elsewhere too, nowhere, or no objects', () => {
    const { arena, cache, m, array, p, found } = scene();
    const [first, second] = arrayOf(arena, cache);
    m[array + PercpuArray.SIZEOF] = p;
    expect(found()).toEqual(
      expect.arrayContaining([
        `I10: 0x${p.toString(16)} is allocated and in the array of CPU 0`,
        `I10: 0x${first!.toString(16)} is neither allocated nor free anywhere: lost`,
      ]),
    );
    m[array + PercpuArray.SIZEOF] = second!;
    expect(found().join('\n')).toMatch(/I13: 0x\w+ is in the array of CPU 0 and in the array of CPU 0/);
    m[array + PercpuArray.SIZEOF] = first! + 8;
    expect(found().join('\n')).toMatch(/I10: 0x\w+ in the array of CPU 0 is no object of the cache/);
  });

  it('I20: a lock that nobody gave back', () => {
    const { m, pcs, found } = scene();
    m[pcs + Pcs.lock] = 0x10002;
    expect(found()).toEqual(['I20: the array of CPU 0 is locked by 0x10002']);
  });
});
