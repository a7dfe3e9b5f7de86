/**
 * Objects that own a block of memory: who allocates the block, and when. Seed 001 asks it for percpu memory; here a
 * kmalloc stands for whatever is dear to get.
 */
import type { Arena } from '../../arena.js';
import type { DefinedCache } from '../../cache/index.js';
import { defineCache } from '../../define.js';
import type { ObjectHeap, SizedHeap } from '../heaps.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

/** Who gets the block: nobody, each allocation, a constructor for each object, one for each slab. */
export const OWNERS = ['nobody', 'alloc', 'object', 'slab'] as const;
export type Owner = (typeof OWNERS)[number];

/** Objects of a batch: in use again and again, or more than sheaves and barn keep, so that slabs come and go. */
export const LIVES = { reuse: 30, cycle: 10_000 } as const;
export type Life = keyof typeof LIVES;

export const constructedName = (life: Life, owner: Owner): string => `${life}-${owner}`;

/** With the free pointer behind it, as large as the 72 bytes of the objects without a constructor. */
const BYTES = 64;
const BLOCK = 64;
/** In the middle of the object, where neither the workload nor the cookies write. */
const OWNED = 8;
const NO_MEMORY = 12;

function definitionFor(name: string, owner: Owner): DefinedCache | undefined {
  if (owner === 'object') return byObject(name);
  return owner === 'slab' ? bySlab(name) : undefined;
}

function byObject(name: string): DefinedCache {
  return defineCache(name, {
    size: BYTES,
    ctor(p, arena, gfp) {
      const block = arena.kmalloc(BLOCK, gfp);
      if (block === 0) return NO_MEMORY;
      arena.i32[(p >> 2) + OWNED] = block;
      return 0;
    },
    dtor: (p, arena) => arena.kfree(arena.i32[(p >> 2) + OWNED]!),
  });
}

/** One block for all, of which the first object names the start. */
function bySlab(name: string): DefinedCache {
  return defineCache(name, {
    size: BYTES,
    ctorSlab(objects, arena: Arena, gfp) {
      let block = arena.kmalloc(objects.count * BLOCK, gfp);
      if (block === 0) return NO_MEMORY;
      for (let p = objects.next(); p !== 0; p = objects.next(), block += BLOCK) {
        arena.i32[(p >> 2) + OWNED] = block;
      }
      return 0;
    },
    dtorSlab(objects, arena: Arena) {
      const first = objects.next();
      arena.kfree(arena.i32[(first >> 2) + OWNED]!);
      while (objects.next() !== 0);
    },
  });
}

function inUse(heap: ObjectHeap, m: Int32Array, n: number, kept: Int32Array): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = heap.alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) heap.free(kept[j]!);
  }
}

function inUseWithBlocks(
  heap: ObjectHeap,
  blocks: SizedHeap,
  m: Int32Array,
  n: number,
  kept: Int32Array,
): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = heap.alloc();
      const block = blocks.kmalloc(BLOCK);
      if (p === 0 || block === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      m[(p >> 2) + OWNED] = block;
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) {
      blocks.kfree(m[(kept[j]! >> 2) + OWNED]!);
      heap.free(kept[j]!);
    }
  }
}

export function constructed(life: Life, owner: Owner): Workload {
  const name = constructedName(life, owner);
  const defined = definitionFor(`lab-${name}`, owner);
  const size = LIVES[life];
  const prepare = ({ objects, blocks, i32 }: WorkloadContext, ops: number) => {
    const kept = new Int32Array(size);
    const run =
      owner === 'alloc'
        ? () => inUseWithBlocks(objects, blocks, i32, ops, kept)
        : () => inUse(objects, i32, ops, kept);
    const calls = owner === 'alloc' ? 2 * ops : ops;
    return { allocs: calls, frees: calls, run };
  };
  return {
    name,
    about: `batches of ${size} objects that own a block; it is allocated by ${owner}`,
    objectSize: BYTES + 8,
    ...(defined === undefined ? {} : { defined }),
    granule: size,
    threadsPerOp: 1,
    prepare,
  };
}
