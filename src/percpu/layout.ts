/**
 * What the percpu allocator keeps in the arena. Dynamic percpu memory comes in chunks; a chunk has one unit per CPU slot,
 * and an area is at the same offset of every unit. Kernel: mm/percpu.c.
 *
 * There is no MMU, so a unit is no run of addresses: each of its pages lies where the page allocator had one, and the
 * chunk's table says where. An area of up to a page therefore never crosses a page border, and a larger one takes whole
 * pages, which are populated as one block in each unit.
 *
 * A percpu address is PERCPU_BASE + (index of the chunk * bytes of a unit) + offset. It is the address of nothing by
 * itself; `ptr(p, cpu)` is that CPU's copy. 0 is NULL.
 */
import {
  type Geometry,
  LINE_WORDS,
  PAGE_SHIFT,
  PAGE_SIZE,
  type Ptr,
  struct,
  type Words,
} from '../struct/index.js';
import { Lock, type LockPtr } from '../sync/index.js';

/** The kernel's PCPU_MIN_ALLOC_SIZE is 4 bytes: a word, and a bit of the maps. */
export const WORD_SHIFT = 2;
/** Kernel: PCPU_MIN_UNIT_SIZE, and the largest area. */
export const PCPU_MIN_UNIT_SIZE = 32 << 10;
/** Above all addresses of an arena of up to 1 GiB, so that a percpu address is no address of the heap there. */
export const PERCPU_BASE = 0x4000_0000;
/** Bits of a map, that is words, in a page. */
export const PAGE_BITS = PAGE_SIZE >> WORD_SHIFT;
export const PAGE_BITS_SHIFT = PAGE_SHIFT - WORD_SHIFT;
/** Kernel: PCPU_SLOT_BASE_SHIFT. Areas of 1 to 31 bytes share slot 1. */
const SLOT_BASE_SHIFT = 5;
/** Kernel: PCPU_SLOT_FAIL_THRESHOLD. A chunk of a lower slot in which nothing fits goes to slot 0. */
export const SLOT_FAIL_THRESHOLD = 3;
/** Kernel: PCPU_EMPTY_POP_PAGES_LOW and _HIGH: below the first, balance work populates up to the second. */
export const EMPTY_POP_PAGES_LOW = 2;
export const EMPTY_POP_PAGES_HIGH = 4;
export const UNIT_PAGES_MAX = 128;
export const CHUNKS_MAX = 1024;
const SLOTS_MAX = 24;

/** What is under way on a chunk's maps; 0 is nothing. See repair.ts. */
export const AreaOp = { NONE: 0, ALLOC: 1, FREE: 2 } as const;

/** The two locks, what is under them, and the lists of chunks. Words that different threads write have lines of their own. */
export const PcpuRoot = struct(
  'pcpu_root',
  {
    allocMutex: LINE_WORDS,
    lock: LINE_WORDS,
    /** percpu_counters_lock, the list of counters, the default batch and how many CPUs there are. */
    countersLock: Lock.SIZEOF,
    counters: 1,
    counterBatch: 1,
    onlineCpus: LINE_WORDS - Lock.SIZEOF - 2,
    /** 0, or that balance work is wanted: 1 of whoever comes by, 2 of a reclaim worker that was woken for it. */
    balanceWanted: LINE_WORDS,
    nrEmptyPop: 1,
    atomicFailed: 1,
    nrChunks: 1,
    /** The change under way: written before it, `opKind` last, and cleared after it. */
    opKind: 1,
    opChunk: 1,
    opStart: 1,
    opEnd: 1,
    nrAreas: 1,
    nrAreasMax: 1,
    nrChunksMax: 1,
    slotHead: SLOTS_MAX,
    slotTail: SLOTS_MAX,
  },
  { alignWords: LINE_WORDS },
);
type PcpuRootPtr = Ptr<'pcpu_root'>;

/** Areas that one operation may have in hand. */
export const IN_HAND_MAX = 31;

/** Areas that a thread took and that nobody else knows of yet: whoever reaps it gives them back. */
export const PcpuThread = struct(
  'pcpu_thread',
  { nrInHand: 1, inHand: IN_HAND_MAX },
  { alignWords: LINE_WORDS },
);

/** What stands before the arrays of a chunk. Kernel: `struct pcpu_chunk`. */
export const PcpuChunk = struct('pcpu_chunk', {
  index: 1,
  next: 1,
  prev: 1,
  /** The list that it is on, -1 for none. */
  slot: 1,
  isolated: 1,
  /** Balance work has taken it off its list to give it back. */
  going: 1,
  freeBytes: 1,
  /** The largest area that fits, in bits. */
  contig: 1,
  nrAreas: 1,
  nrPopulated: 1,
  nrEmptyPop: 1,
  /** Whom its areas are charged to, a word for each of theirs; 0 until the first charge. See charges.ts. */
  objExts: 1,
});
export type PcpuChunkPtr = Ptr<'pcpu_chunk'>;

/** One per page, bits counted from its start. Kernel: `struct pcpu_block_md`, without what merges runs across pages. */
export const PcpuBlock = struct('pcpu_block_md', { contigHint: 1, contigHintStart: 1, firstFree: 1 });

/** Words of all that lies beside the heap. `areaCaches` are those of the area caches. */
export function pcpuWords(threads: number, areaCaches: number): number {
  return PcpuRoot.SIZEOF + threads * PcpuThread.SIZEOF + CHUNKS_MAX + areaCaches;
}

/** Where the parts are: numbers that are the same in every thread of an arena. */
export class PcpuView {
  readonly m: Words;
  readonly geometry: Geometry;
  readonly root: PcpuRootPtr;
  readonly threads: number;
  /** Word of the pointer to chunk 0. */
  readonly table: number;
  readonly areaCaches: number;
  readonly unitPages: number;
  readonly unitBytes: number;
  readonly unitBits: number;
  readonly unitShift: number;
  /** From a chunk's start, in words. */
  readonly populated = PcpuChunk.SIZEOF;
  readonly blocks: number;
  readonly allocMap: number;
  readonly boundMap: number;
  /** Areas that lie in area caches; of the same length as the alloc map, or absent. */
  readonly cachedMap: number;
  /** Address of each page of each unit: index page * cpus + cpu. */
  readonly pages: number;
  readonly chunkWords: number;
  readonly sidelinedSlot: number;
  readonly freeSlot: number;
  readonly toDepopulateSlot: number;

  constructor(m: Words, geometry: Geometry) {
    this.m = m;
    this.geometry = geometry;
    this.root = geometry.pcpu as PcpuRootPtr;
    this.threads = this.root + PcpuRoot.SIZEOF;
    this.table = this.threads + geometry.threads * PcpuThread.SIZEOF;
    this.areaCaches = this.table + CHUNKS_MAX;
    this.unitPages = geometry.pcpuUnitPages;
    this.unitBytes = this.unitPages * PAGE_SIZE;
    this.unitBits = this.unitBytes >> WORD_SHIFT;
    this.unitShift = 31 - Math.clz32(this.unitBytes);
    const mapWords = this.unitBits / 32;
    this.blocks = this.populated + Math.ceil(this.unitPages / 32);
    this.allocMap = this.blocks + this.unitPages * PcpuBlock.SIZEOF;
    this.boundMap = this.allocMap + mapWords;
    this.cachedMap = this.boundMap + mapWords + 1;
    this.pages = this.cachedMap + (geometry.pcpuAreaCache > 0 ? mapWords : 0);
    this.chunkWords = this.pages + this.unitPages * geometry.cpus;
    this.sidelinedSlot = bytesToSlot(this.unitBytes) + 1;
    this.freeSlot = this.sidelinedSlot + 1;
    this.toDepopulateSlot = this.freeSlot + 1;
  }

  get mutex(): LockPtr {
    return (this.root + PcpuRoot.allocMutex) as unknown as LockPtr;
  }

  get lock(): LockPtr {
    return (this.root + PcpuRoot.lock) as unknown as LockPtr;
  }

  get countersLock(): LockPtr {
    return (this.root + PcpuRoot.countersLock) as unknown as LockPtr;
  }

  /** The chunk with an index, or 0. */
  chunkAt(index: number): PcpuChunkPtr {
    return this.m[this.table + index] as PcpuChunkPtr;
  }

  /** The percpu address of a bit of a chunk. */
  address(chunk: PcpuChunkPtr, bit: number): number {
    return PERCPU_BASE + this.m[chunk + PcpuChunk.index]! * this.unitBytes + (bit << WORD_SHIFT);
  }

  /** Address of a page in the unit of a CPU, 0 while it is not populated. */
  pageWord(chunk: PcpuChunkPtr, page: number, cpu: number): number {
    return chunk + this.pages + page * this.geometry.cpus + cpu;
  }

  blockOf(chunk: PcpuChunkPtr, page: number): number {
    return chunk + this.blocks + page * PcpuBlock.SIZEOF;
  }

  /** The slot for areas of that many bytes. Kernel: `pcpu_size_to_slot`. */
  sizeToSlot(bytes: number): number {
    return bytes === this.unitBytes ? this.freeSlot : bytesToSlot(bytes);
  }

  /** All chunks, in the order of their indices. */
  *chunks(): Generator<PcpuChunkPtr> {
    for (let index = 0; index < CHUNKS_MAX; index++) {
      const chunk = this.chunkAt(index);
      if (chunk !== 0) yield chunk;
    }
  }
}

function bytesToSlot(bytes: number): number {
  const highestBit = 32 - Math.clz32(bytes);
  return Math.max(highestBit - SLOT_BASE_SHIFT + 2, 1);
}
