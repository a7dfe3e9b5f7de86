/**
 * Nodes for a store, prepared before it begins, so that it cannot fail half-way, and the nodes that it replaced. What is
 * asked of the cache, by the number of nodes that the store may need:
 *
 * | request     | nothing held       | one node held             | a sheaf held         |
 * |-------------|--------------------|---------------------------|----------------------|
 * | 0           | -                  | -                         | -                    |
 * | 1           | alloc              | -                         | refill, if too small |
 * | more        | prefill            | free it, then prefill     | refill, if too small |
 *
 * Kernel: `mas_alloc_nodes`, `mas_pop_node`, `mas_destroy`.
 */
import type { KmemCache, PrefilledSheaf } from '../cache/index.js';
import { __GFP_NOWARN, GFP_NOWAIT } from '../page/index.js';
import { GranaryError } from '../struct/index.js';

const GFP_RETURN = GFP_NOWAIT | __GFP_NOWARN;

export class NodeSupply {
  private readonly cache: KmemCache;
  private readonly rcu: boolean;
  private single = 0;
  private sheaf: PrefilledSheaf | null = null;
  /** Taken for a store that is not published yet. */
  private readonly taken: number[] = [];
  /** Replaced, and not freed yet. */
  private readonly replaced: number[] = [];
  /** Nodes that the latest store took. */
  used = 0;

  constructor(cache: KmemCache, rcu: boolean) {
    this.cache = cache;
    this.rcu = rcu;
  }

  /** Sees to it that `request` nodes can be taken. False when out of memory; what was held stays. */
  reserve(request: number, gfp: number): boolean {
    const { cache } = this;
    if (request === 0) return true;
    if (request === 1 && this.sheaf === null) {
      if (this.single === 0) this.single = cache.alloc(gfp);
      return this.single !== 0;
    }
    if (this.single !== 0) {
      cache.free(this.single);
      this.single = 0;
    }
    if (this.sheaf === null) {
      this.sheaf = cache.prefill(request, gfp);
      return this.sheaf !== null;
    }
    if (this.sheaf.size >= request) return true;
    const refilled = cache.refill(this.sheaf, request, gfp);
    if (refilled === null) return false;
    this.sheaf = refilled;
    return true;
  }

  /** Before a store takes its nodes. */
  begin(): void {
    this.taken.length = 0;
  }

  /** A node that was reserved, as an address. Throws, and takes back what the store has taken, when there is none. */
  take(): number {
    let p = this.single;
    if (p !== 0) this.single = 0;
    else if (this.sheaf !== null) p = this.sheaf.alloc();
    if (p === 0) {
      const had = this.taken.length;
      this.cancel();
      throw new GranaryError(`a store needs more than the ${had} nodes that were reserved for it`);
    }
    this.taken.push(p);
    return p;
  }

  /** The store is published: its nodes are the tree's. */
  commit(): void {
    this.used = this.taken.length;
    this.taken.length = 0;
  }

  /** The tree is as it was: nobody has seen the nodes that were taken. */
  cancel(): void {
    for (const p of this.taken) this.cache.free(p);
    this.taken.length = 0;
  }

  /** A node that the store replaced; freed by {@link finish}, since a free may have to wait. */
  replace(address: number): void {
    this.replaced.push(address);
  }

  /** Frees what was replaced, after a grace period if there are readers, and gives back what was not used. */
  finish(): void {
    const { cache, replaced } = this;
    // A free takes the address off first: should it throw, the others are still there for the next time.
    while (replaced.length > 0) {
      const p = replaced.pop()!;
      if (this.rcu) cache.freeRcu(p);
      else cache.free(p);
    }
    if (this.sheaf !== null) {
      const sheaf = this.sheaf;
      this.sheaf = null;
      cache.return(sheaf, GFP_RETURN);
    }
    if (this.single !== 0) {
      const p = this.single;
      this.single = 0;
      cache.free(p);
    }
  }
}
