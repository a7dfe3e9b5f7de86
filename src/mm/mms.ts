/** The address spaces of an arena, as one thread sees them. */
import type { Caches, KmemCache } from '../cache/index.js';
import { initMapleTree, Maple, type MapleTreePtr } from '../maple/index.js';
import { __GFP_ZERO, GFP_KERNEL } from '../page/index.js';
import { SLAB_HWCACHE_ALIGN, SLAB_PANIC, SLAB_TYPESAFE_BY_RCU } from '../slab/index.js';
import { describe, requireInteger, WORD_BYTES } from '../struct/index.js';
import { FREEPTR_OFFSET, MM_BYTES, type MmPtr, MmStruct, VM_AREA_BYTES } from './layout.js';
import { Mm } from './mm.js';

const VMA_CACHE = 'vm_area_struct';
const MM_CACHE = 'mm_struct';
/** What the kernel asks for. */
const VMA_SHEAF_CAPACITY = 32;

const perThread = new WeakMap<Caches, Mms>();

/** The address spaces of an arena, for one thread: `arena.mms`. */
export class Mms {
  private readonly caches: Caches;
  private vmaCache: KmemCache | undefined;
  private mmCache: KmemCache | undefined;

  private constructor(caches: Caches) {
    this.caches = caches;
  }

  static of(caches: Caches): Mms {
    const known = perThread.get(caches);
    if (known !== undefined) return known;
    const made = new Mms(caches);
    perThread.set(caches, made);
    return made;
  }

  /** The cache `vm_area_struct`; made when it is first asked for. Throws OutOfMemoryError. */
  get vmas(): KmemCache {
    if (this.vmaCache?.isAlive) return this.vmaCache;
    this.vmaCache = this.caches.openOrCreate(VMA_CACHE, {
      size: VM_AREA_BYTES,
      // The kernel's has SLAB_ACCOUNT, too: here a word behind each object, which would make it 256 bytes.
      flags: SLAB_TYPESAFE_BY_RCU | SLAB_HWCACHE_ALIGN | SLAB_PANIC,
      freeptrOffset: FREEPTR_OFFSET,
      sheafCapacity: VMA_SHEAF_CAPACITY,
    });
    return this.vmaCache;
  }

  /** The cache `mm_struct`; made when it is first asked for. Throws OutOfMemoryError. */
  get mms(): KmemCache {
    if (this.mmCache?.isAlive) return this.mmCache;
    this.mmCache = this.caches.openOrCreate(MM_CACHE, {
      size: MM_BYTES,
      flags: SLAB_HWCACHE_ALIGN | SLAB_PANIC,
    });
    return this.mmCache;
  }

  /**
   * Makes an empty address space; null when out of memory. Kernel: `mm_alloc`.
   * @example
   * const mm = arena.mms.create()!;
   * const start = mm.map(1 << 20);
   * mm.fault(start + 4096); // true, on any CPU, without the space's lock
   */
  create(): Mm | null {
    const mm = this.alloc();
    return mm === 0 ? null : this.handle(mm);
  }

  private alloc(): MmPtr {
    const p = this.mms.alloc(GFP_KERNEL | __GFP_ZERO);
    const mm = (p / WORD_BYTES) as MmPtr;
    if (p === 0) return mm;
    const { m } = this.caches.views;
    m[mm + MmStruct.seq] = 1;
    initMapleTree(m, (mm + MmStruct.tree) as unknown as MapleTreePtr, true, true);
    initMapleTree(m, (mm + MmStruct.detached) as unknown as MapleTreePtr, false, false);
    return mm;
  }

  /** Opens an address space that any thread made, by its address. Throws SlabBugError when there is none. */
  open(address: number): Mm {
    requireInteger('address', address, WORD_BYTES, this.caches.geometry.bytes - MM_BYTES);
    this.mms.assertAllocated(address);
    return this.handle((address / WORD_BYTES) as MmPtr);
  }

  /** A copy of an address space; null when out of memory. Kernel: `dup_mm`. */
  fork(parent: Mm): Mm | null {
    this.checkMm('parent', parent);
    const child = this.alloc();
    if (child === 0) return null;
    let done = false;
    try {
      done = parent.forkInto(this.handle(child, true));
    } finally {
      if (!done) this.mms.free(child * WORD_BYTES);
    }
    return done ? this.handle(child) : null;
  }

  /** Unmaps everything and frees the space; threads that still look for areas find none. Kernel: `exit_mmap`, `mmdrop`. */
  destroy(mm: Mm): void {
    this.checkMm('mm', mm);
    mm.exit();
    this.mms.freeRcu(mm.address);
  }

  /** Throws unless it is a handle of an address space of this arena. */
  private checkMm(name: string, mm: unknown): void {
    if (!(mm instanceof Mm)) {
      throw new TypeError(`${name} is ${describe(mm)}; it must be an address space`);
    }
    if (!mm.isOf(this.caches)) throw new TypeError(`${name} is an address space of another arena`);
    this.mms.assertAllocated(mm.address);
  }

  private handle(mm: MmPtr, isPrivate = false): Mm {
    return new Mm(this.caches, mm, this.vmas, Maple.of(this.caches).nodes, isPrivate);
  }
}
