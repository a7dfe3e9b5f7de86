/**
 * How often each object of a cache has been given out by handle: a word per object, in blocks by page that stay as long as
 * the cache does. Slabs come and go beneath them: a place that has been somebody else's goes on from where it was, so no
 * handle ever names two objects. Only caches whose handles were asked for have them.
 *
 * | word    | the object                                                                       |
 * |---------|----------------------------------------------------------------------------------|
 * | 0       | was never given out by handle                                                    |
 * | 2g - 1  | is out, under its g-th handle                                                    |
 * | 2g      | came back from its g-th; with the last g that a handle has room for it is retired |
 */
import { __GFP_NOWARN, GFP_KERNEL } from '../page/index.js';
import { type CacheDesc, KmemCacheStruct } from '../slab/index.js';
import { type Geometry, PAGE_SHIFT, PAGE_SIZE, struct, WORD_BYTES, type Words } from '../struct/index.js';
import { cmpxchg, exchange, loadAcquire } from '../sync/index.js';
import type { CacheContext } from './context.js';

/** The word indices of the blocks follow, one per page of the heap; 0 for pages that had no object with a handle. */
export const GenerationRoot = struct('generation_root', {
  /** Address of the first retired object, linked through their first words. */
  retired: 1,
  nrRetired: 1,
});

export class Generations {
  private readonly context: CacheContext;
  private readonly m: Words;
  private readonly size: number;
  private readonly firstPfn: number;
  private readonly pages: number;
  /** Word index of the root. */
  readonly root: number;

  private constructor(context: CacheContext, { size }: CacheDesc, root: number) {
    const { geometry, views } = context;
    this.context = context;
    this.m = views.m;
    this.size = size;
    this.firstPfn = geometry.firstPfn;
    this.pages = heapPages(geometry);
    this.root = root;
  }

  /** Those of a cache; made if it has none. Undefined when there is no memory for them. */
  static of(context: CacheContext, s: CacheDesc): Generations | undefined {
    const at = s.ptr + KmemCacheStruct.generations;
    const words = GenerationRoot.SIZEOF + heapPages(context.geometry);
    const root = publish(context, at, words);
    return root === 0 ? undefined : new Generations(context, s, root);
  }

  /** The word of the object at `p`; 0 where none of its page was given out, or for an address out of the heap. */
  find(p: number): number {
    const i = (p >> PAGE_SHIFT) - this.firstPfn;
    if (i < 0 || i >= this.pages) return 0;
    const block = this.m[this.root + GenerationRoot.SIZEOF + i]!;
    // Objects begin at least `size` apart, so no two of a page have the same quotient.
    return block === 0 ? 0 : block + Math.trunc((p & (PAGE_SIZE - 1)) / this.size);
  }

  /** The same, with a block for its page if there was none; 0 when out of memory. */
  findOrMake(p: number): number {
    const found = this.find(p);
    if (found !== 0) return found;
    const at = this.root + GenerationRoot.SIZEOF + (p >> PAGE_SHIFT) - this.firstPfn;
    return publish(this.context, at, Math.trunc((PAGE_SIZE - 1) / this.size) + 1) === 0 ? 0 : this.find(p);
  }
}

const heapPages = ({ firstPfn, endPfn }: Geometry): number => endPfn - firstPfn;

/** What the word `at` leads to; a zeroed block of `words` if nothing. Returns its word index, 0 when out of memory. */
function publish({ kmallocs, views: { m } }: CacheContext, at: number, words: number): number {
  // Pairs with the compare-exchange below: a block that is seen is zeroed.
  const there = loadAcquire(m, at);
  if (there !== 0) return there;
  const p = kmallocs.allocOwn(words * WORD_BYTES, GFP_KERNEL | __GFP_NOWARN);
  if (p === 0) return 0;
  const made = p / WORD_BYTES;
  m.fill(0, made, made + words);
  const first = cmpxchg(m, at, 0, made);
  if (first === 0) return made;
  kmallocs.free(p); // another thread's came first
  return first;
}

/** Gives the memory back; the cache has no objects, and no handle of it is looked up any more. */
export function releaseGenerations(context: CacheContext, s: CacheDesc): void {
  const { kmallocs, geometry, views } = context;
  const { m } = views;
  const root = m[s.ptr + KmemCacheStruct.generations]!;
  if (root === 0) return;
  m[s.ptr + KmemCacheStruct.generations] = 0;
  const first = root + GenerationRoot.SIZEOF;
  for (let at = first; at < first + heapPages(geometry); at++) {
    if (m[at] !== 0) kmallocs.free(m[at]! * WORD_BYTES);
  }
  kmallocs.free(root * WORD_BYTES);
}

/** Frees what was retired: nobody allocates from the cache any more. */
export function freeRetired({ views: { m } }: CacheContext, s: CacheDesc, free: (p: number) => void): void {
  const root = m[s.ptr + KmemCacheStruct.generations]!;
  if (root === 0) return;
  // Pairs with the compare-exchange of who retires.
  for (let p = exchange(m, root + GenerationRoot.retired, 0); p !== 0; ) {
    const next = m[p >> 2]!;
    free(p);
    p = next;
  }
}
