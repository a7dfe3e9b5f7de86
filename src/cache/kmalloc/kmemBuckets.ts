/**
 * Private sets of kmalloc caches: what one user allocates by size lies in slabs that nobody else's objects get into.
 * Kernel: `kmem_buckets_create`, `kmem_buckets_alloc`, `kmem_buckets_destroy`.
 */
import { GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import { SLAB_NO_MERGE } from '../../slab/index.js';
import { describe, PAGE_SIZE, requireKnown } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import type { KmemCache } from '../kmemCache.js';
import { type CacheOptions, checkName } from '../options.js';
import type { BucketsLeakReport } from '../reports.js';
import { type KmallocTable, kmallocTable } from './kmalloc.js';
import { GFP_TYPE_MASK, KMALLOC_SIZES, kmallocSizeName } from './kmallocTypes.js';

/** What `arena.createBuckets` takes. */
export interface BucketsOptions {
  /** SLAB_* flags of all caches; SLAB_NO_MERGE comes with them. */
  flags?: number;
  /** The least alignment of every object; beyond it they are aligned as those of kmalloc, with SLAB_ACCOUNT up to a page. */
  align?: number;
  /** What stands in front of the slabs; by default what the arena was made with. */
  layer?: CacheOptions['layer'];
}

const KNOWN = Object.keys({ flags: true, align: true, layer: true } satisfies Record<
  keyof BucketsOptions,
  true
>);

const bucketNames = (name: string): string[] =>
  KMALLOC_SIZES.map((size) => `${name}-${kmallocSizeName(size)}`);

/** A set of caches by size, as this thread has them open. */
export class KmemBuckets {
  readonly name: string;
  /** Its caches by size, from 8 to 8192 bytes. */
  readonly caches: readonly KmemCache[];
  private readonly context: Caches;
  private readonly rows: readonly KmallocTable[];

  constructor(context: Caches, name: string, caches: readonly KmemCache[]) {
    this.context = context;
    this.name = name;
    this.caches = caches;
    const table = kmallocTable((i) => caches[i]!);
    // Whatever type the flags ask for: the set is the type.
    this.rows = Array.from({ length: GFP_TYPE_MASK + 1 }, () => table);
  }

  /** As `arena.kmalloc`, which also serves what is above KMALLOC_MAX_CACHE_SIZE. Free it with `arena.kfree`. */
  alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.context.kmallocs.allocFrom(this.rows, size, gfp, node);
  }

  /**
   * Ends its caches. The report names each object that was not freed; their caches stay as a destroyed cache with leaks
   * does. Large blocks are not counted: nothing says whose they are. Throws SlabBugError when it was destroyed before.
   */
  destroy(): BucketsLeakReport {
    const alive = this.caches.filter((cache) => cache.isAlive);
    // Some may be gone: an earlier try stopped at a CPU that did not give up its sheaves.
    if (alive.length === 0) this.caches[0]!.assertAlive();
    const caches = alive.map((cache) => cache.destroy()).filter(({ leaked }) => leaked > 0);
    return { buckets: this.name, leaked: caches.reduce((sum, { leaked }) => sum + leaked, 0), caches };
  }
}

/** Makes all caches, or none and throws what made the first of them fail. */
export function createBuckets(context: Caches, name: string, options: BucketsOptions): KmemBuckets {
  checkName(name);
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`options is ${describe(options)}; it must be an object`);
  }
  requireKnown('options', options, KNOWN);
  const { flags = 0, align = 0 } = options;
  const made: KmemCache[] = [];
  try {
    for (const [i, each] of bucketNames(name).entries()) {
      const size = KMALLOC_SIZES[i]!;
      const least = Math.min(size & -size, PAGE_SIZE);
      made.push(
        context.create(each, {
          size,
          align: align > least ? align : least,
          flags: flags | SLAB_NO_MERGE,
          ...(options.layer === undefined ? {} : { layer: options.layer }),
        }),
      );
    }
  } catch (error) {
    for (const cache of made) cache.destroy();
    throw error;
  }
  return new KmemBuckets(context, name, made);
}

/** What `createBuckets` made in any thread. */
export function openBuckets(context: Caches, name: string): KmemBuckets {
  return new KmemBuckets(
    context,
    name,
    bucketNames(name).map((each) => context.open(each)),
  );
}
