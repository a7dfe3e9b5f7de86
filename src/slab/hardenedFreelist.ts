/**
 * The loops over freelists of an arena with `freelistHardened`, and how a single link is read and written there: encoded,
 * and checked before anybody follows it. They are made once per thread and arena, as those of freelist.ts are.
 */
import { orderOf, Page, type PagePtr } from '../page/index.js';
import { PAGE_SHIFT, PAGE_SIZE, type Words } from '../struct/index.js';
import { Chain, type FreelistLoops, NR_CHAINS } from './freelist.js';
import { freelistPtr } from './freePointer.js';
import type { CacheDesc } from './kmemCache.js';
import { freelistOf } from './slabWord.js';

const { head: HEAD_PAGE, flags: FLAGS, slabWord: SLAB_WORD, SIZEOF: PAGE_WORDS } = Page;
const { HEAD: HEAD_AT, TAIL: TAIL_AT, COUNT: COUNT_AT, WORDS: CHAIN_WORDS } = Chain;
// The chain table is that of freelist.ts, whose constants are not exported: V8 would no longer fold them there.
const CHAIN_SHIFT = Math.log2(PAGE_WORDS / CHAIN_WORDS);
const CHAIN_MASK = (NR_CHAINS - 1) * CHAIN_WORDS;
// Imported names are looked up at each use; module-local constants are folded.
const P_SHIFT = PAGE_SHIFT;
const P_SIZE = PAGE_SIZE;

export interface HardenedLoops extends FreelistLoops {
  /** How many addresses the latest walk wrote: fewer than it was to, when a link was cut. */
  walked: number;
  /** An object that was the head of its freelist, or chain, already, or 0: it was left out. Whoever reports it makes this 0 again. */
  twice: number;
  /** Is told of a link that leads to no object; set by the slabs of the thread. No lock need be free. */
  corrupted: (s: CacheDesc, page: PagePtr, p: number, link: number) => void;
  /** The object behind `p`; 0 at the end, and where the link leads to no other object of the slab. */
  next(s: CacheDesc, p: number): number;
  link(s: CacheDesc, p: number, next: number): void;
}

export function makeHardenedLoops(m: Words, memmap: number): HardenedLoops {
  const chains = new Int32Array(NR_CHAINS * CHAIN_WORDS);
  const used = new Int32Array(NR_CHAINS);
  /** Of each chain's slab, the head of its freelist before the chain. */
  const firsts = new Int32Array(NR_CHAINS);

  const firstObject = (s: CacheDesc, page: number): number =>
    (((page - memmap) / PAGE_WORDS) << P_SHIFT) + s.redLeftPad;
  const slabOf = (p: number): number => m[memmap + Math.imul(p >>> P_SHIFT, PAGE_WORDS) + HEAD_PAGE]!;

  /** The head of the slab's freelist. data race, intended: a double free that others' pushes hide is not seen. */
  function firstFree(s: CacheDesc, page: number): number {
    const head = freelistOf(m[page + SLAB_WORD]!);
    return head === 0 ? 0 : firstObject(s, page) + (head - 1) * s.size;
  }

  function link(s: CacheDesc, p: number, to: number): void {
    const word = p + s.offset;
    m[word >> 2] = freelistPtr(to, s.random, word);
  }

  function next(s: CacheDesc, p: number): number {
    const word = p + s.offset;
    const to = freelistPtr(m[word >> 2]!, s.random, word);
    if (to === 0) return 0;
    const page = slabOf(p);
    const at = to - firstObject(s, page);
    const fits = at >= 0 && at + s.size <= P_SIZE << orderOf(m[page + FLAGS]!);
    if (fits && at % s.size === 0 && to !== p) return to;
    loops.corrupted(s, page as PagePtr, p, to);
    return 0;
  }

  function buildChains(s: CacheDesc, list: Int32Array, at: number, n: number): number {
    let nr = 0;
    for (let i = 0; i < n; i++) {
      const p = list[at + i]!;
      const page = slabOf(p);
      let chain = (page >> CHAIN_SHIFT) & CHAIN_MASK;
      while (chains[chain] !== page && chains[chain] !== 0) chain = (chain + CHAIN_WORDS) & CHAIN_MASK;
      if (chains[chain] === 0) {
        const first = firstFree(s, page);
        if (first === p) {
          loops.twice = p;
          continue;
        }
        firsts[chain / CHAIN_WORDS] = first;
        chains[chain] = page;
        chains[chain + HEAD_AT] = 0;
        chains[chain + TAIL_AT] = p;
        chains[chain + COUNT_AT] = 0;
        used[nr++] = chain;
      }
      if (chains[chain + HEAD_AT] === p || firsts[chain / CHAIN_WORDS] === p) {
        loops.twice = p;
        continue;
      }
      link(s, p, chains[chain + HEAD_AT]!);
      chains[chain + HEAD_AT] = p;
      chains[chain + COUNT_AT] = chains[chain + COUNT_AT]! + 1;
    }
    return nr;
  }

  function walk(s: CacheDesc, first: number, out: Int32Array, at: number, take: number): number {
    let p = first;
    let i = 0;
    for (; i < take && p !== 0; i++) {
      out[at + i] = p;
      p = next(s, p);
    }
    loops.walked = i;
    return p;
  }

  const loops: HardenedLoops = {
    chains,
    used,
    buildChains,
    walk,
    walked: 0,
    twice: 0,
    corrupted: () => {},
    next,
    link,
  };
  return loops;
}
