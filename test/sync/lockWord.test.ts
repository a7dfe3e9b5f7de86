import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  GENERATION_MASK,
  GENERATION_SHIFT,
  isOwnedBy,
  OWNER_DIED,
  OWNER_MASK,
  ownerThread,
  ownerWord,
  UNLOCKED,
  WAITERS,
} from '#src/sync/index.js';

describe('the lock word', () => {
  it('has fields that do not overlap', () => {
    const fields = [OWNER_MASK, GENERATION_MASK << GENERATION_SHIFT, OWNER_DIED, WAITERS];
    const sum = fields.reduce((a, b) => a + b, 0);
    expect(fields.reduce((a, b) => a | b, 0)).toBe(sum);
    expect(sum).toBe(0x7fffffff);
  });

  it('is 0 when free and never 0 when owned, whatever the generation', () => {
    expect(UNLOCKED).toBe(0);
    expect(ownerThread(UNLOCKED)).toBe(-1);
    for (const generation of [0, 1, GENERATION_MASK, GENERATION_MASK + 1]) {
      expect(ownerWord(0, generation)).not.toBe(UNLOCKED);
      expect(ownerThread(ownerWord(0, generation))).toBe(0);
    }
  });

  it('names its owner under every flag, and nobody else', () => {
    const cpu = fc.integer({ min: 0, max: 255 });
    const generation = fc.integer({ min: 0, max: GENERATION_MASK });
    const flags = fc.constantFrom(0, WAITERS, OWNER_DIED, WAITERS | OWNER_DIED);
    fc.assert(
      fc.property(cpu, generation, cpu, generation, flags, (c1, g1, c2, g2, bits) => {
        const word = ownerWord(c1, g1) | bits;
        expect(word).toBeGreaterThan(0);
        expect(ownerThread(word)).toBe(c1);
        expect(isOwnedBy(word, ownerWord(c1, g1))).toBe(true);
        expect(isOwnedBy(word, ownerWord(c2, g2))).toBe(c1 === c2 && g1 === g2);
      }),
    );
  });
});
