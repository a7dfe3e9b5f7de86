/**
 * Pairs, with the cache found in one of three ways at each call: a constant of the loop, as a static cache's handle is; a
 * field of an object, as a pointer that is assigned once; and by its name.
 */
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

/** A static cache of that name is used where the arena has one. */
export const LOOKUP_CACHE = 'lab-static';

export const LOOKUPS = ['fixed', 'handle', 'name'] as const;
export type Lookup = (typeof LOOKUPS)[number];

type Pairs = (n: number) => void;

/** What the kernel's assign-once pointers are: a field that could be assigned again. */
interface Holder {
  cache: ObjectHeap;
}

function fixedPairs(cache: ObjectHeap, m: Int32Array): Pairs {
  return (n) => {
    for (let i = 0; i < n; i++) {
      const p = cache.alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      cache.free(p);
    }
  };
}

/** V8 folds what a closure refers to as long as the closure is made once: a module's `const` is, and this is. */
const made = new WeakMap<ObjectHeap, Pairs>();

function fixed({ objects, i32 }: WorkloadContext): Pairs {
  const known = made.get(objects) ?? fixedPairs(objects, i32);
  made.set(objects, known);
  return known;
}

function handle({ objects, i32: m }: WorkloadContext): Pairs {
  const holder: Holder = { cache: objects };
  return (n) => {
    for (let i = 0; i < n; i++) {
      const p = holder.cache.alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      holder.cache.free(p);
    }
  };
}

function name({ named, i32: m }: WorkloadContext): Pairs {
  return (n) => {
    for (let i = 0; i < n; i++) {
      const p = named.openCache(LOOKUP_CACHE).alloc();
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      named.openCache(LOOKUP_CACHE).free(p);
    }
  };
}

const WAYS: Readonly<Record<Lookup, (context: WorkloadContext) => Pairs>> = { fixed, handle, name };

export const lookupName = (way: Lookup): string => `lookup-${way}`;

export function lookup(way: Lookup): Workload {
  return {
    name: lookupName(way),
    about: `allocate one object and free it, from a cache that is found by ${way} each time`,
    objectSize: 64,
    cacheName: LOOKUP_CACHE,
    granule: 1,
    threadsPerOp: 1,
    prepare: (context, ops) => {
      const pairs = WAYS[way](context);
      return { allocs: ops, frees: ops, run: () => pairs(ops) };
    },
  };
}
