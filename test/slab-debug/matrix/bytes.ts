/**
 * Bytes that are overwritten in and around an object. Debug caches find and restore them; without debug flags memory is
 * the user's: nothing is found, and nothing that the allocator needs lies there.
 */
import { pageAddress } from '#src/page/index.js';
import { type CacheDesc, padStart, SLAB_OBJECT_POISON } from '#src/slab/index.js';
import type { Case } from './run.js';
import type { Scene } from './scene.js';

/** Offsets from the object, whether it is an allocated one, the area that is reported, and errors: report and repair. */
export const DAMAGE: Array<[string, 'allocated' | 'free', string, number, (s: CacheDesc) => number[]]> = [
  ['the byte behind an object', 'allocated', 'Right Redzone', 2, (s) => [s.objectSize]],
  ['the last byte of its red zone', 'allocated', 'Right Redzone', 2, (s) => [s.inuse - 1]],
  ['both ends of its red zone', 'allocated', 'Right Redzone', 2, (s) => [s.objectSize, s.inuse - 1]],
  ['the byte before an object', 'allocated', 'Left Redzone', 2, () => [-1]],
  ['the first byte of its slot', 'allocated', 'Left Redzone', 2, (s) => [-s.redLeftPad]],
  ['both red zones', 'allocated', 'Left Redzone', 4, (s) => [-1, s.objectSize]],
  ['padding behind an object', 'allocated', 'Object padding', 2, (s) => [padStart(s)]],
  ['the last byte of its slot', 'allocated', 'Object padding', 2, (s) => [s.size - s.redLeftPad - 1]],
  ['red zone and padding', 'allocated', 'Right Redzone', 4, (s) => [s.objectSize, padStart(s)]],
  ['the first byte of a freed object', 'free', 'Poison', 2, () => [0]],
  ['its 50th byte', 'free', 'Poison', 2, (s) => [Math.min(49, s.objectSize - 2)]],
  ['its last byte', 'free', 'End Poison', 2, (s) => [s.objectSize - 1]],
  ['its first and last byte', 'free', 'Poison', 4, (s) => [0, s.objectSize - 1]],
  ['the byte before the last', 'free', 'Poison', 2, (s) => [s.objectSize - 2]],
  ['the byte in the middle', 'free', 'Poison', 2, (s) => [(s.objectSize - 1) >> 1]],
  ['the byte behind a freed object', 'free', 'Right Redzone', 2, (s) => [s.objectSize]],
  ['the byte before a freed object', 'free', 'Left Redzone', 2, () => [-1]],
  ['padding behind a freed object', 'free', 'Object padding', 2, (s) => [padStart(s)]],
  ['everything around a freed object', 'free', 'Left Redzone', 6, (s) => [-1, s.objectSize, padStart(s)]],
];

/** The bytes change, each once. */
export function spoil({ arena, cache, objects }: Scene, at: number, offsets: number[]): void {
  const { u8 } = arena;
  const first = objects[0]! - cache.desc.redLeftPad;
  const end = at + cache.size - cache.desc.redLeftPad;
  // Without red zones a byte before the slab's first object, or behind the last of the slot, may be anybody's: it stays within.
  for (const offset of new Set(offsets)) {
    const where = Math.max(first, Math.min(at + offset, end - 1));
    u8[where] = ~u8[where]!;
  }
}

function damageCase([name, state, area, errors, bytes]: (typeof DAMAGE)[number]): Case {
  // The contents of a constructed object are not the allocator's to poison.
  const isPoison = area.endsWith('Poison');
  const found = ({ cache: { desc } }: Scene): number =>
    isPoison && (desc.flags & SLAB_OBJECT_POISON) === 0 ? 0 : errors;
  return {
    name,
    act: (scene) => {
      const { cache, p, free } = scene;
      spoil(scene, state === 'free' ? free : p, bytes(cache.desc));
    },
    is: { plain: {}, debug: { errors: found, what: `${area} overwritten` }, hardened: {} },
  };
}

export const BYTES: Case[] = [
  ...DAMAGE.map(damageCase),
  {
    name: 'the tail of a slab',
    act: ({ arena, cache, page }) => {
      const end = pageAddress(arena.geometry, page) + (4096 << cache.order);
      arena.u8[end - 1] = ~arena.u8[end - 1]!;
    },
    layouts: () => true,
    // What is left of the pages behind the last object.
    layout: { size: 300, align: 0 },
    is: { plain: {}, debug: { errors: 2, what: 'Padding overwritten' }, hardened: {} },
  },
];
