/**
 * The word of a free object that names the next one: an address, 0 at the end of a freelist.
 *
 * In an arena with `freelistHardened` the word holds that address XOR a secret of the cache XOR the word's own address with
 * its bytes in reverse order. A stray write then decodes to an address that is hardly ever an object of the slab, and what
 * is written elsewhere in the arena cannot be a link by chance. Kernel: `freelist_ptr_encode`, `freelist_ptr_decode`.
 *
 * Arenas without the option have no code for it where it matters: see hardenedSlabs.ts, which is another class.
 */
import type { ThisCpu } from '../cpu/index.js';
import { FREELIST_HARDENED, Superblock, type Words } from '../struct/index.js';
import type { CacheDesc } from './kmemCache.js';

/** The bytes of a word in reverse order. Kernel: `swab`. */
const swab = (word: number): number =>
  (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);

/** Encodes and decodes: `word` is the address of the free pointer, in bytes. */
export const freelistPtr = (value: number, random: number, word: number): number =>
  value ^ random ^ swab(word);

/** A hash with which the seed of an arena becomes a number for one purpose. */
export function mix(seed: number, salt: number): number {
  let h = (seed ^ Math.imul(salt, 0x9e3779b1)) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}

/** The secret of a new cache, 0 in an arena without `freelistHardened`. Kernel: `s->random`. */
export function cacheRandom(m: Words, slot: number, serial: number): number {
  if ((m[Superblock.hardening]! & FREELIST_HARDENED) === 0) return 0;
  return mix(mix(m[Superblock.kmallocSeed]!, slot + 1), serial) || 1;
}

/**
 * Reads a link as it is, whatever the arena: for reports, checks and whoever else is in no hurry. What it leads to is the
 * caller's to check.
 */
export function readFreePointer(m: Words, s: CacheDesc, p: number): number {
  const at = p + s.offset;
  const word = m[at >> 2]!;
  return s.random === 0 ? word : freelistPtr(word, s.random, at);
}

/** Writes one, whatever the arena. */
export function writeFreePointer(m: Words, s: CacheDesc, p: number, next: number): void {
  const at = p + s.offset;
  m[at >> 2] = s.random === 0 ? next : freelistPtr(next, s.random, at);
}

/** How the slab classes read and write links; hardenedSlabs.ts does it another way. */
export class FreePointers {
  protected readonly cpu: ThisCpu;
  protected readonly m: Words;

  constructor(cpu: ThisCpu) {
    this.cpu = cpu;
    this.m = cpu.m;
  }

  /** The free object behind `p`, or 0. Kernel: `get_freepointer`. */
  getFreepointer(s: CacheDesc, p: number): number {
    return this.m[(p + s.offset) >> 2]!;
  }

  /** Kernel: `set_freepointer`. */
  setFreepointer(s: CacheDesc, p: number, next: number): void {
    this.m[(p + s.offset) >> 2] = next;
  }

  /** Links the objects `from .. objects-1` of a slab, whose first is at `base`, in the order of their addresses. */
  linkObjects(s: CacheDesc, base: number, from: number, objects: number): void {
    const { m } = this;
    const { size, offset } = s;
    const end = base + objects * size;
    for (let p = base + from * size; p < end; p += size) {
      m[(p + offset) >> 2] = p + size < end ? p + size : 0;
    }
  }

  /**
   * Orders the objects of a new slab, the first at `base`: writes `handed` of them to `out[at..]` and links the others.
   * Returns index + 1 of the first of these, 0 if there is none.
   */
  protected dealObjects(
    s: CacheDesc,
    base: number,
    objects: number,
    out: Int32Array,
    at: number,
    handed: number,
  ): number {
    for (let i = 0; i < handed; i++) out[at + i] = base + i * s.size;
    this.linkObjects(s, base, handed, objects);
    return handed < objects ? handed + 1 : 0;
  }
}
