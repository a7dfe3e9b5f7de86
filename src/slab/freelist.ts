/**
 * The loops over freelists: what a free object costs once sheaves and barn are full, or empty.
 *
 * A free object holds the address of the next one, 0 at the end. The slab word has no room for an address and holds
 * the first one's index + 1 instead, so an index is computed once per chain and never per object.
 *
 * The functions are made once per thread and arena, because V8 folds the `const`s of a function that ran once: the
 * word view with its address and length, and the scratch.
 */
import { Page } from '../page/index.js';
import { PAGE_SHIFT, type Words } from '../struct/index.js';
import type { CacheDesc } from './kmemCache.js';

const { head: HEAD_PAGE, SIZEOF: PAGE_WORDS } = Page;
// Imported names are looked up at each use; module-local constants are folded.
const P_SHIFT = PAGE_SHIFT;

/** Chains of one call, and so also the most objects of one call: each may be in another slab. */
export const NR_CHAINS = 64;
/** An entry of the chain table: the slab's page, the first and the last object's address, how many objects. */
export const Chain = { PAGE: 0, HEAD: 1, TAIL: 2, COUNT: 3, WORDS: 4 } as const;

const { HEAD: HEAD_AT, TAIL: TAIL_AT, COUNT: COUNT_AT, WORDS: CHAIN_WORDS } = Chain;
/** A page struct has 8 words, an entry 4: the bits of the page's word index above the third choose the entry. */
const CHAIN_SHIFT = Math.log2(PAGE_WORDS / CHAIN_WORDS);
const CHAIN_MASK = (NR_CHAINS - 1) * CHAIN_WORDS;

export interface FreelistLoops {
  /** The chain table; a slab has its own entry or the next free one. All zero between calls. */
  readonly chains: Int32Array;
  /** Entries of the table that name a chain, in the order of their slabs' first appearance. */
  readonly used: Int32Array;
  /**
   * Links each object of `list[at .. at+n)` into its slab's chain, `n` at most {@link NR_CHAINS}. Returns how many
   * entries of `used` name a chain.
   */
  buildChains(s: CacheDesc, list: Int32Array, at: number, n: number): number;
  /** Writes `take` addresses of a freelist, from object `first` on, to `out[at..]`; returns the next one's address. */
  walk(s: CacheDesc, first: number, out: Int32Array, at: number, take: number): number;
}

export function makeFreelistLoops(m: Words, memmap: number): FreelistLoops {
  const chains = new Int32Array(NR_CHAINS * CHAIN_WORDS);
  const used = new Int32Array(NR_CHAINS);

  function buildChains(s: CacheDesc, list: Int32Array, at: number, n: number): number {
    const offset = s.offset | 0;
    const onePage = s.order === 0; // then each page is the first of its slab
    let nr = 0;
    for (let i = 0; i < n; i = (i + 1) | 0) {
      const p = list[(at + i) | 0]!;
      let page = (memmap + Math.imul(p >>> P_SHIFT, PAGE_WORDS)) | 0;
      if (!onePage) page = m[page + HEAD_PAGE]!;
      let chain = (page >> CHAIN_SHIFT) & CHAIN_MASK;
      while (chains[chain] !== page) {
        if (chains[chain] === 0) {
          chains[chain] = page;
          chains[chain + HEAD_AT] = 0;
          chains[chain + TAIL_AT] = p;
          chains[chain + COUNT_AT] = 0;
          used[nr] = chain;
          nr = (nr + 1) | 0;
          break;
        }
        chain = (chain + CHAIN_WORDS) & CHAIN_MASK;
      }
      m[(p + offset) >> 2] = chains[chain + HEAD_AT]!;
      chains[chain + HEAD_AT] = p;
      chains[chain + COUNT_AT] = (chains[chain + COUNT_AT]! + 1) | 0;
    }
    return nr;
  }

  function walk(s: CacheDesc, first: number, out: Int32Array, at: number, take: number): number {
    const offset = s.offset | 0;
    let p = first | 0;
    for (let i = 0; i < take; i = (i + 1) | 0) {
      out[(at + i) | 0] = p;
      p = m[(p + offset) >> 2]!;
    }
    return p;
  }

  return { chains, used, buildChains, walk };
}
