/**
 * Slabs of an arena with `freelistRandom`: the objects of a new slab are handed out in an order that cannot be guessed.
 *
 * A cache has one sequence of the objects of a slab, a permutation that the arena's seed and the cache decide, so that all
 * threads have the same without sharing any memory for it. Each slab starts somewhere else in it. A slab of a smaller order
 * than usual steps over the entries that it has no object for. Constructors still see their slab in the order of addresses.
 *
 * Until the arena's first caches are booted there are no sequences, as in the kernel: slabs are then dealt in order. Slabs
 * of one object have no order. Kernel: CONFIG_SLAB_FREELIST_RANDOM, `init_cache_random_seq`, `shuffle_freelist`.
 */
import { type ThisCpu, ThreadRecord } from '../cpu/index.js';
import type { PageAllocator } from '../page/index.js';
import { type Geometry, Superblock } from '../struct/index.js';
import { loadAcquire } from '../sync/index.js';
import type { FreelistLoops } from './freelist.js';
import { mix } from './freePointer.js';
import type { SlabAllocatorClass } from './hardenedSlabs.js';
import type { CacheDesc } from './kmemCache.js';
import type { SlabAllocator } from './shrink.js';

/** Draws numbers from 0 to `n` - 1; the same ones for the same seed. */
function makeRandom(seed: number): (n: number) => number {
  let state = mix(seed, 1) || 1;
  return (n) => {
    // xorshift32: nothing here guards a secret that is worth more than the arena it lies in.
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % n;
  };
}

/** A cache's sequence: object indices, each once. Kernel: `cache_random_seq_create`, Fisher and Yates' shuffle. */
export function randomSequence(
  { kmallocSeed }: Pick<Geometry, 'kmallocSeed'>,
  s: Pick<CacheDesc, 'slot' | 'serial' | 'objects'>,
): Int32Array {
  const random = makeRandom(mix(mix(kmallocSeed, s.slot + 1), ~s.serial));
  const sequence = Int32Array.from({ length: s.objects }, (_, i) => i);
  for (let i = s.objects - 1; i > 0; i--) {
    const j = random(i + 1);
    const other = sequence[j]!;
    sequence[j] = sequence[i]!;
    sequence[i] = other;
  }
  return sequence;
}

/** What the boot calls when the first caches are there. Kernel: `init_freelist_randomization`. */
export function initFreelistRandomization(slabs: SlabAllocator): void {
  (slabs as SlabAllocator & { shuffles?: boolean }).shuffles = true;
}

export function withRandomFreelist(Base: SlabAllocatorClass): SlabAllocatorClass {
  return class RandomSlabs extends Base {
    /** Whether there are sequences yet. */
    shuffles: boolean;
    private readonly sequences = new WeakMap<CacheDesc, Int32Array>();
    private readonly random: (n: number) => number;

    constructor(cpu: ThisCpu, pages: PageAllocator, loops: FreelistLoops) {
      super(cpu, pages, loops);
      const { m, geometry, record, thread } = cpu;
      // A thread that attaches finds a booted arena; pairs with the store that ends Arena.create.
      this.shuffles = loadAcquire(m, Superblock.booted) !== 0;
      const times = m[record + ThreadRecord.generation]!;
      this.random = makeRandom(mix(mix(geometry.kmallocSeed, thread + 1), times));
    }

    protected override dealObjects(
      s: CacheDesc,
      base: number,
      objects: number,
      out: Int32Array,
      at: number,
      handed: number,
    ): number {
      if (!this.shuffles || objects < 2) return super.dealObjects(s, base, objects, out, at, handed);
      const sequence = this.sequenceOf(s);
      const { length } = sequence;
      let position = this.random(length);
      let head = 0;
      let tail = 0;
      for (let dealt = 0; dealt < objects; ) {
        const index = sequence[position]!;
        position = position + 1 < length ? position + 1 : 0;
        if (index >= objects) continue; // the slab is of a smaller order
        const p = base + index * s.size;
        if (dealt < handed) out[at + dealt] = p;
        else if (tail === 0) head = index + 1;
        else this.setFreepointer(s, tail, p);
        if (dealt >= handed) tail = p;
        dealt++;
      }
      if (tail !== 0) this.setFreepointer(s, tail, 0);
      return head;
    }

    private sequenceOf(s: CacheDesc): Int32Array {
      let sequence = this.sequences.get(s);
      if (sequence === undefined) {
        sequence = randomSequence(this.cpu.geometry, s);
        this.sequences.set(s, sequence);
      }
      return sequence;
    }
  };
}
