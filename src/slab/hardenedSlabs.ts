/**
 * Slabs of an arena with `freelistHardened`: links are stored encoded, an object that is freed while it is the head of its
 * freelist is reported, and a freelist is cut where a link leads to no object. What is behind the cut is lost: the slab
 * counts it as in use for ever, and so stays. Kernel: CONFIG_SLAB_FREELIST_HARDENED, and `freelist_corrupted`, which there
 * needs SLAB_CONSISTENCY_CHECKS.
 *
 * | a link is read by       | a cut leaves                                          |
 * |-------------------------|-------------------------------------------------------|
 * | a pop                   | a slab without a freelist, all objects in use         |
 * | a refill                | what it got; the slab has all objects in use          |
 * | who returns a rest      | as many free objects as the rest has                  |
 * | a CPU, from its own list | an empty list; the slab has all objects in use       |
 *
 * The head of a freelist is an index in the slab word. One that is no object's is taken for an empty list, as a cut before
 * the first object.
 */
import { CpuSlab, type PcsPtr, type ThisCpu } from '../cpu/index.js';
import { Page, type PageAllocator, type PagePtr } from '../page/index.js';
import { hexAddress, SlabBugError } from '../struct/index.js';
import { cmpxchg, exchange, loadAcquire } from '../sync/index.js';
import type { FreelistLoops } from './freelist.js';
import type { HardenedLoops } from './hardenedFreelist.js';
import type { CacheDesc } from './kmemCache.js';
import type { SlabAllocator } from './shrink.js';
import { freelistOf, inuseOf, packSlabWord } from './slabWord.js';

const { slabWord: SLAB_WORD, objects: OBJECTS } = Page;
const { freelist: FREELIST } = CpuSlab;

export type SlabAllocatorClass = new (
  cpu: ThisCpu,
  pages: PageAllocator,
  loops: FreelistLoops,
) => SlabAllocator;

/** The class of slabs for an arena with `freelistHardened`; its loops are those of makeHardenedLoops. */
export function withHardenedFreelist(Base: SlabAllocatorClass): SlabAllocatorClass {
  return class HardenedSlabs extends Base {
    private readonly hard: HardenedLoops;

    constructor(cpu: ThisCpu, pages: PageAllocator, loops: FreelistLoops) {
      super(cpu, pages, loops);
      this.hard = loops as HardenedLoops;
      this.hard.corrupted = (s, page, p, link) => this.corrupted(s, page, p, link);
    }

    override getFreepointer(s: CacheDesc, p: number): number {
      return this.hard.next(s, p);
    }

    /** Kernel: `set_freepointer`, whose BUG_ON this is. */
    override setFreepointer(s: CacheDesc, p: number, next: number): void {
      if (p === next) throw this.freedTwice(s, p);
      this.hard.link(s, p, next);
    }

    override linkObjects(s: CacheDesc, base: number, from: number, objects: number): void {
      for (let i = from; i < objects; i++) {
        this.hard.link(s, base + i * s.size, i + 1 < objects ? base + (i + 1) * s.size : 0);
      }
    }

    private freedTwice(s: CacheDesc, p: number): SlabBugError {
      const what = `Object at ${hexAddress(p)} is free already: it is the head of its freelist`;
      return new SlabBugError('double-free', s.name, p, what);
    }

    private corrupted(s: CacheDesc, page: PagePtr, p: number, link: number): void {
      const { sink } = this.checks;
      sink.bug(s, {
        what: `Freechain corrupt: ${hexAddress(p)} leads to ${hexAddress(link)}`,
        page,
        object: p,
      });
      sink.fix(s, 'Isolate corrupted freechain');
      sink.flush();
    }

    protected override firstFree(s: CacheDesc, page: PagePtr, word: number): number {
      if (freelistOf(word) <= this.m[page + OBJECTS]!) return super.firstFree(s, page, word);
      const { sink } = this.checks;
      sink.bug(s, { what: `Freepointer corrupt: the first is object ${freelistOf(word)}`, page, object: 0 });
      sink.fix(s, 'Freelist cleared');
      sink.flush();
      return 0;
    }

    /**
     * F1 as in the plain one. An empty rest means that all objects are in use, those behind a cut included; then `p` may be
     * 0, too.
     */
    protected override popObject(s: CacheDesc, page: PagePtr): number {
      const { m } = this;
      for (;;) {
        const word = loadAcquire(m, page + SLAB_WORD);
        const p = this.firstFree(s, page, word);
        const link = p === 0 ? 0 : this.hard.next(s, p);
        const left =
          link === 0
            ? packSlabWord(0, m[page + OBJECTS]!)
            : packSlabWord(this.indexOf(s, page, link) + 1, inuseOf(word) + 1);
        // Pairs with the compare-exchange of every push.
        if (cmpxchg(m, page + SLAB_WORD, word, left) === word) return p;
      }
    }

    /** A slab whose first link was cut, or whose head was none, has nothing to give: the next one has. */
    override refillFromCpu(s: CacheDesc, c: PcsPtr, node: number): boolean {
      while (super.refillFromCpu(s, c, node)) if (this.m[c + FREELIST] !== 0) return true;
      return false;
    }

    /** Such a slab is given up before the next comes, as one that is used up. */
    override freezePartial(s: CacheDesc, c: PcsPtr, gfp: number, node: number): boolean {
      while (super.freezePartial(s, c, gfp, node)) {
        if (this.m[c + FREELIST] !== 0 || this.refillFromCpu(s, c, node)) return true;
      }
      return false;
    }

    protected override takeObjects(
      s: CacheDesc,
      page: PagePtr,
      out: Int32Array,
      at: number,
      max: number,
    ): number {
      const { m, hard } = this;
      const objects = m[page + OBJECTS]!;
      // Take-all (F2). Pairs with the compare-exchange of every push: the links it published are visible.
      const word = exchange(m, page + SLAB_WORD, packSlabWord(0, objects));
      const free = objects - inuseOf(word);
      const head = hard.walk(s, this.firstFree(s, page, word), out, at, Math.min(free, max));
      const { walked } = hard;
      if (head === 0) return walked;
      if (this.returnsFreelist) this.returnFreelist(s, page, head, free - walked);
      else this.freeRest(s, page, head, free - walked);
      return walked;
    }

    /** Frees what can be reached: a cut makes that fewer than there should be. */
    protected override freeRest(s: CacheDesc, page: PagePtr, head: number, cnt: number): void {
      let tail = head;
      let reached = 1;
      for (let next = this.hard.next(s, tail); next !== 0 && reached < cnt; next = this.hard.next(s, tail)) {
        tail = next;
        reached++;
      }
      this.freeChain(s, page, head, tail, reached);
    }

    /** An object that is the head of the freelist already is noted, and not freed; of longer chains buildChains sees to it. */
    override pushChain(s: CacheDesc, page: PagePtr, head: number, tail: number, cnt: number): boolean {
      if (cnt !== 1 || !this.isHead(s, page, tail)) return super.pushChain(s, page, head, tail, cnt);
      this.hard.twice = tail;
      return true;
    }

    override freeChainFrozen(
      s: CacheDesc,
      c: PcsPtr,
      page: PagePtr,
      head: number,
      tail: number,
      cnt: number,
    ): void {
      if (cnt === 1 && this.isHead(s, page, tail)) throw this.freedTwice(s, tail);
      super.freeChainFrozen(s, c, page, head, tail, cnt);
    }

    /** data race, intended: a double free that others' pushes hide is not seen. */
    private isHead(s: CacheDesc, page: PagePtr, p: number): boolean {
      const word = this.m[page + SLAB_WORD]!;
      return freelistOf(word) !== 0 && super.firstFree(s, page, word) === p;
    }

    override freeOne(s: CacheDesc, p: number): void {
      super.freeOne(s, p);
      this.throwTwice(s);
    }

    /** Whom we interrupt may have noted something, so this one is not noted. */
    override freeNolock(s: CacheDesc, p: number): void {
      if (this.isHead(s, this.slabOf(p), p)) throw this.freedTwice(s, p);
      super.freeNolock(s, p);
    }

    private throwTwice(s: CacheDesc): void {
      const { twice } = this.hard;
      this.hard.twice = 0;
      if (twice !== 0) throw this.freedTwice(s, twice);
    }

    /** Of a batch the others are freed, and whoever flushes it is not to blame: a report is made, and nothing thrown. */
    override freeObjects(s: CacheDesc, list: Int32Array, at: number, n: number): void {
      super.freeObjects(s, list, at, n);
      this.reportTwice(s);
    }

    override freeObjectsFrozen(s: CacheDesc, c: PcsPtr, list: Int32Array, at: number, n: number): void {
      super.freeObjectsFrozen(s, c, list, at, n);
      this.reportTwice(s);
    }

    private reportTwice(s: CacheDesc): void {
      const { twice } = this.hard;
      this.hard.twice = 0;
      if (twice === 0) return;
      const { sink } = this.checks;
      sink.bug(s, {
        what: `Object ${hexAddress(twice)} already free`,
        page: this.slabOf(twice),
        object: twice,
      });
      sink.fix(s, `Object at ${hexAddress(twice)} not freed`);
      sink.flush();
    }
  };
}
