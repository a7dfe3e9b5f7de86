/** What a cache's users give it to run on its objects, and the iterator that the batching forms get. */
import { Page, type PagePtr } from '../page/index.js';
import type { Words } from '../struct/index.js';
import { FROZEN, packSlabWord } from './slabWord.js';

const { slabWord: PROGRESS } = Page;

/** 0 or nothing is success; any other number, and anything that is thrown, a failure. */
// biome-ignore lint/suspicious/noConfusingVoidType: a constructor that cannot fail returns nothing
export type CtorResult = number | void;

/**
 * The functions of a cache; `A` is the arena, with which they are called. No lock of the allocator is held, so they may
 * use it. They run to their end: a function that returns a promise has failed.
 */
export interface ObjectCallbacks<A = unknown> {
  /** Brings one object into the state in which it is always free. Seed 001 lets it fail, and gives it `gfp`. */
  ctor?(p: number, arena: A, gfp: number): CtorResult;
  /** Gives up what the constructor got. May not fail: what it throws is reported, and the next object follows. */
  dtor?(p: number, arena: A): void;
  /** One call for all objects of a slab, in place of `ctor`. Each object that it takes is constructed before the next. */
  ctorSlab?(objects: SlabObjects, arena: A, gfp: number): CtorResult;
  /** One call for all objects of a slab, in place of `dtor`. */
  dtorSlab?(objects: SlabObjects, arena: A): void;
}

/**
 * How far the callbacks are with a slab, in its slab word, so that a survivor can go on where a thread died:
 *
 * | bits  | meaning                                                                        |
 * |-------|--------------------------------------------------------------------------------|
 * | 0-14  | the object that comes next; all before it are done                             |
 * | 15-29 | the objects there are: of the slab to construct, or those that are constructed |
 * | 30    | 1: they are destructed                                                         |
 */
export const packProgress = (next: number, end: number, destructing: boolean): number =>
  packSlabWord(next, end) | (destructing ? FROZEN : 0);

/**
 * The objects of one slab, each once, by address. `next` says that the object before is done, whatever the callback
 * does: when it fails, the one that `next` gave last is the one that failed.
 * @example
 * ctorSlab(objects, arena, gfp) {
 *   const areas = allocAreas(objects.count, gfp); // once for the whole slab
 *   if (areas === undefined) return 12;
 *   for (let p = objects.next(); p !== 0; p = objects.next()) arena.i32[p >> 2] = areas.pop()!;
 * }
 */
export class SlabObjects {
  private readonly m: Words;
  private readonly page: PagePtr;
  private readonly base: number;
  private readonly stride: number;
  private readonly end: number;
  private readonly destructing: boolean;
  /** Index of the object that `next` gives next. */
  private at: number;

  constructor(
    m: Words,
    page: PagePtr,
    base: number,
    stride: number,
    from: number,
    end: number,
    destructing: boolean,
  ) {
    this.m = m;
    this.page = page;
    this.base = base;
    this.stride = stride;
    this.at = from;
    this.end = end;
    this.destructing = destructing;
  }

  /** Objects that `next` has yet to give. */
  get count(): number {
    return this.end - this.at;
  }

  /** Objects that it has given, of a whole slab. */
  get taken(): number {
    return this.at;
  }

  /** Address of the object that it gave last, or 0. */
  get current(): number {
    return this.at === 0 ? 0 : this.base + (this.at - 1) * this.stride;
  }

  /** The next object's address, or 0 after the last. */
  next(): number {
    const { at } = this;
    // Constructed are those before the current one; destructed is also the current one, which must not be begun twice.
    const done = this.destructing ? at + 1 : at;
    // Plain: only a reaper reads it, after this thread's end.
    this.m[this.page + PROGRESS] = packProgress(Math.min(done, this.end), this.end, this.destructing);
    if (at === this.end) return 0;
    this.at = at + 1;
    return this.base + at * this.stride;
  }
}
