/** An address space and its areas, in the arena. Addresses in here are those of the space, not of the arena. */
import { MapleTreeStruct } from '../maple/index.js';
import { LINE_WORDS, type Ptr, struct, WORD_BYTES } from '../struct/index.js';
import { Lock } from '../sync/index.js';

/** Kernel: `struct mm_struct`. Under mmap_lock but for the tree, which readers walk, and `seq`, which they look at. */
export const MmStruct = struct(
  'mm_struct',
  {
    mmapLock: Lock.SIZEOF,
    /** Changes whenever the areas that were locked for writing are given free, all at once. Kernel: `mm_lock_seq`. */
    seq: 1,
    mapCount: 1,
    startBrk: 1,
    brk: 1,
    pad: LINE_WORDS - Lock.SIZEOF - 4,
    tree: MapleTreeStruct.SIZEOF,
    /** Areas that an unmap has gathered. Kernel: `mt_detach` on the stack of `do_vmi_align_munmap`. */
    detached: MapleTreeStruct.SIZEOF,
  },
  { alignWords: LINE_WORDS },
);
export type MmPtr = Ptr<'mm_struct'>;

/**
 * Kernel: `struct vm_area_struct`. Written with mmap_lock held and the area locked for writing; read under mmap_lock, or
 * with a reference taken. The memory is type-safe: who finds an area without a lock may find another one in its place,
 * and looks after it has a reference.
 */
export const VmArea = struct('vm_area_struct', {
  /** First byte, and the first one behind. */
  start: 1,
  end: 1,
  mm: 1,
  flags: 1,
  /** 0: in no tree; else 1, and 1 for each reader, and VMA_WRITER while a writer waits for them. */
  refcnt: 1,
  /** Equal to the mm's `seq` while the area is locked for writing. */
  lockSeq: 1,
  /** The allocator's word while the object is free. Kernel: `vm_freeptr`. */
  freeptr: 2,
  pgoff: 1,
  file: 1,
  /** What the kernel's struct has besides: 192 bytes in all. */
  rest: 38,
});
export type VmAreaPtr = Ptr<'vm_area_struct'>;

export const VM_AREA_BYTES = VmArea.SIZEOF * WORD_BYTES;
export const MM_BYTES = MmStruct.SIZEOF * WORD_BYTES;
export const FREEPTR_OFFSET = VmArea.freeptr * WORD_BYTES;

/** Kernel: VMA_LOCK_OFFSET. */
export const VMA_WRITER = 0x40000000;

export const AREA_PAGE = 4096;
/** The lowest address that is given out. Kernel: mmap_min_addr. */
export const MMAP_MIN = 0x10000;
/** The end of the space: the greatest that is a page's begin. */
export const TASK_SIZE = 0x7ffff000;

/** What is in the area may be read. */
export const VM_READ = 1;
/** It may be written. */
export const VM_WRITE = 2;
/** It may be executed; nothing here does. */
export const VM_EXEC = 4;
/** The area is a stack: {@link Mm.growDown} extends it to lower addresses. */
export const VM_GROWSDOWN = 0x100;
