/** Calls that are wrong: what they are refused as. A debug cache says it twice: what is wrong, and that nothing was freed. */
import type { SlabBugKind } from '#src/index.js';
import { inside } from '../../cache/support/arena.js';
import type { Case, Outcome } from './run.js';
import { freeAll, objectsOf, type Scene } from './scene.js';

/** An object of a slab of the cache that was never handed out. */
function neverAllocated(scene: Scene): number {
  const { arena, take, seen } = scene;
  for (;;) {
    const page = inside(arena).slabs.slabOf(take());
    const found = objectsOf(scene, page).find((p) => !seen.has(p));
    if (found !== undefined) return found;
  }
}

/** Frees to the cache what kmalloc gave. */
function freeForeign({ arena, cache, p }: Scene, size: number, bulk = false): void {
  const q = arena.kmalloc(size);
  try {
    if (bulk) cache.freeBulk(Int32Array.of(p, q), 2);
    else cache.free(q);
  } finally {
    arena.kfree(q);
  }
}

const several = (take: () => number, n: number): number[] => Array.from({ length: n }, take);

/** What is called, and what it is refused as. */
export const MISUSE: Array<[string, SlabBugKind, (scene: Scene) => void]> = [
  [
    'double free at once',
    'double-free',
    ({ cache, p }) => {
      cache.free(p);
      cache.free(p);
    },
  ],
  ['double free of one freed long ago', 'double-free', ({ cache, free }) => cache.free(free)],
  [
    'double free after others were freed',
    'double-free',
    ({ cache, p, take }) => {
      const more = several(take, 5);
      cache.free(p);
      for (const q of more) cache.free(q);
      cache.free(p);
    },
  ],
  [
    'double free of one that is back in its slab',
    'double-free',
    ({ cache, p }) => {
      cache.free(p);
      cache.shrink();
      cache.free(p);
    },
  ],
  [
    'double free of one in a sheaf of the barn',
    'double-free',
    ({ cache, p, take }) => {
      const more = several(take, 200);
      cache.free(p);
      for (const q of more) cache.free(q);
      cache.free(p);
    },
  ],
  [
    'double free by another CPU',
    'double-free',
    ({ cache, p, other }) => {
      cache.free(p);
      other().cache.free(p);
    },
  ],
  [
    'double free of one that another CPU has freed',
    'double-free',
    ({ cache, p, other }) => {
      other().cache.free(p);
      cache.free(p);
    },
  ],
  [
    'double free in bulk by another CPU',
    'double-free',
    ({ cache, p, take, other }) => {
      const q = take();
      cache.free(p);
      other().cache.freeBulk(Int32Array.of(q, p), 2);
    },
  ],
  [
    'the same object twice in a bulk free',
    'double-free',
    ({ cache, p }) => cache.freeBulk(Int32Array.of(p, p), 2),
  ],
  [
    'a freed object in a bulk free',
    'double-free',
    ({ cache, p, free }) => cache.freeBulk(Int32Array.of(p, free), 2),
  ],
  [
    'double free of one that was freed in bulk',
    'double-free',
    ({ cache, p, take }) => {
      cache.freeBulk(Int32Array.of(take(), p), 2);
      cache.free(p);
    },
  ],
  [
    'free after freeRcu',
    'double-free',
    ({ cache, p }) => {
      cache.freeRcu(p);
      cache.free(p);
    },
  ],
  ['freeRcu after free', 'double-free', ({ cache, free }) => cache.freeRcu(free)],
  [
    'freeRcu twice',
    'double-free',
    ({ cache, p }) => {
      cache.freeRcu(p);
      cache.freeRcu(p);
    },
  ],
  [
    'free after freeRcu and a grace period',
    'double-free',
    ({ cache, p }) => {
      cache.freeRcu(p);
      cache.rcuBarrier();
      cache.free(p);
    },
  ],
  [
    'freeRcu by another CPU',
    'double-free',
    ({ cache, p, other }) => {
      cache.freeRcu(p);
      other().cache.freeRcu(p);
    },
  ],
  [
    'freeBulk after freeRcu',
    'double-free',
    ({ cache, p, take }) => {
      const q = take();
      cache.freeRcu(p);
      cache.freeBulk(Int32Array.of(q, p), 2);
    },
  ],
  [
    'free of one that lies in a prefilled sheaf',
    'double-free',
    ({ cache, free }) => {
      const sheaf = cache.prefill(1)!;
      try {
        cache.free(free);
      } finally {
        cache.return(sheaf);
      }
    },
  ],
  [
    'double free of one that a prefilled sheaf gave and took back',
    'double-free',
    ({ cache, seen }) => {
      const sheaf = cache.prefill(3)!;
      const q = sheaf.alloc();
      seen.add(q);
      cache.free(q);
      cache.return(sheaf);
      cache.free(q);
    },
  ],
  ['double free by kfree', 'double-free', ({ arena, free }) => arena.kfree(free)],
  ['double free by kfreeRcu', 'double-free', ({ arena, free }) => arena.kfreeRcu(free)],
  ['double free in a restricted context', 'double-free', ({ cache, free }) => cache.freeNolock(free)],
  ['an object that was never allocated', 'double-free', (scene) => scene.cache.free(neverAllocated(scene))],
  ['a word into an object', 'misaligned', ({ cache, p }) => cache.free(p + (cache.size === 8 ? 4 : 8))],
  ['a byte into an object', 'misaligned', ({ cache, p }) => cache.free(p + 1)],
  ['the last byte of an object', 'misaligned', ({ cache, p }) => cache.free(p + cache.objectSize - 1)],
  ['the address before an object', 'misaligned', ({ cache, objects }) => cache.free(objects[1]! - 1)],
  ['a byte into an object, in bulk', 'misaligned', ({ cache, p }) => cache.freeBulk(Int32Array.of(p + 1), 1)],
  ['a byte into an object, by freeRcu', 'misaligned', ({ cache, p }) => cache.freeRcu(p + 1)],
  ['an object of another cache', 'wrong-cache', (scene) => freeForeign(scene, 64)],
  ['an object of another cache in a bulk free', 'wrong-cache', (scene) => freeForeign(scene, 64, true)],
  [
    'a page',
    'not-a-slab',
    ({ arena, cache }) => {
      const page = arena.allocPages(0);
      try {
        cache.free(page);
      } finally {
        arena.freePages(page, 0);
      }
    },
  ],
  ['a large kmalloc', 'not-a-slab', (scene) => freeForeign(scene, 20_000)],
  ['NULL', 'invalid-pointer', ({ cache }) => cache.free(0)],
  ['an address below the heap', 'invalid-pointer', ({ cache }) => cache.free(4096)],
  ['an address behind the arena', 'invalid-pointer', ({ arena, cache }) => cache.free(arena.geometry.bytes)],
  ['2^31', 'invalid-pointer', ({ cache }) => cache.free(2 ** 31)],
  ['2^32 and an address', 'invalid-pointer', ({ cache, p }) => cache.free(2 ** 32 + p)],
  ['a negative address', 'invalid-pointer', ({ cache, p }) => cache.free(-p)],
  ['a fraction', 'invalid-pointer', ({ cache, p }) => cache.free(p + 0.5)],
  ['NaN', 'invalid-pointer', ({ cache }) => cache.free(Number.NaN)],
  ['a string', 'invalid-pointer', ({ cache, p }) => cache.free(String(p) as never)],
];

const inAll = (outcome: Outcome): Case['is'] => ({ plain: outcome, debug: outcome, hardened: outcome });

/** Others than frees: a debug cache has nothing to say about them, either. */
const OTHERS: Case[] = [
  {
    name: 'a prefilled sheaf that was returned is asked for an object',
    act: ({ cache }) => {
      const sheaf = cache.prefill(2)!;
      cache.return(sheaf);
      sheaf.alloc();
    },
    is: inAll({ refused: 'bad-sheaf' }),
  },
  {
    name: 'a prefilled sheaf is returned twice',
    act: ({ cache }) => {
      const sheaf = cache.prefill(2)!;
      cache.return(sheaf);
      cache.return(sheaf);
    },
    is: inAll({ refused: 'bad-sheaf' }),
  },
  {
    name: 'use after free by a handle',
    act: ({ cache }) => {
      const handles = cache.handles();
      const h = handles.alloc();
      handles.free(h);
      handles.at(h);
    },
    is: inAll({ refused: 'use-after-free' }),
  },
  ...(['alloc', 'free', 'freeRcu', 'freeBulk', 'prefill', 'destroy'] as const).map(
    (call): Case => ({
      name: `${call} after destroy`,
      act: (scene) => {
        const { cache, p } = scene;
        freeAll(scene);
        cache.destroy();
        if (call === 'freeBulk') cache.freeBulk(Int32Array.of(p), 1);
        else if (call === 'prefill') cache.prefill(3);
        else if (call === 'alloc') cache.alloc();
        else if (call === 'destroy') cache.destroy();
        else cache[call](p);
      },
      is: inAll({ refused: 'cache-destroyed', destroyed: true }),
    }),
  ),
];

export const CALLS: Case[] = [
  ...MISUSE.map(
    ([name, kind, act]): Case => ({
      name,
      act,
      is: { plain: { refused: kind }, debug: { refused: kind, errors: 2 }, hardened: { refused: kind } },
    }),
  ),
  ...OTHERS,
];
