import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { freelistOf, inuseOf, isFrozen, MAX_OBJS_PER_SLAB, packSlabWord } from '#src/slab/index.js';

const field = fc.integer({ min: 0, max: MAX_OBJS_PER_SLAB });
const FROZEN = 1 << 30;

describe('the slab word', () => {
  it('keeps freelist and inuse apart, and stays a small positive integer', () => {
    fc.assert(
      fc.property(field, field, (freelist, inuse) => {
        const word = packSlabWord(freelist, inuse);
        expect(freelistOf(word)).toBe(freelist);
        expect(inuseOf(word)).toBe(inuse);
        expect(word).toBeGreaterThanOrEqual(0);
        expect(word).toBeLessThan(FROZEN);
        expect(isFrozen(word)).toBe(false);
      }),
    );
  });

  it('has room for a slab of as many objects as a kernel allows, all of them free or all in use', () => {
    expect(MAX_OBJS_PER_SLAB).toBe(32767);
    expect(inuseOf(packSlabWord(0, 32767))).toBe(32767);
    expect(freelistOf(packSlabWord(32767, 0))).toBe(32767);
  });

  it('tells that a slab is frozen without a change to the rest', () => {
    const word = packSlabWord(7, 9) | FROZEN;
    expect(isFrozen(word)).toBe(true);
    expect([freelistOf(word), inuseOf(word)]).toEqual([7, 9]);
  });
});
