/**
 * mm_struct and tc_action as seed 001 has them: objects that own percpu memory for as long as they live. In one form each
 * object takes and gives back that memory every time; in the other the constructor takes it when the object's slab is
 * made, and the destructor gives it back when the slab goes.
 *
 * What the constructor owns lies at the end of the object, behind `ctor_fields_offset`: the memset of mm_alloc and the
 * memcpy of dup_mm stop there. The CPU bitmap is behind it, too, since its size depends on the machine; mm_init clears it.
 */
import type { Arena } from '../../arena.js';
import { defineCache } from '../../define.js';
import { PERCPU_COUNTER_BYTES } from '../../percpu/index.js';

/** Of the mm_struct of the recorded kernel. */
export const MM_BYTES = 1600;
const NR_MM_COUNTERS = 4;
const CPU_BITMAP_BYTES = 16;
const CPU_BITMAP = MM_BYTES - CPU_BITMAP_BYTES;
export const PCPU_CID = CPU_BITMAP - 8;
export const RSS_STAT = PCPU_CID - NR_MM_COUNTERS * PERCPU_COUNTER_BYTES;
/** Where memset and memcpy stop. A multiple of 8, as the counters must be. */
export const CTOR_FIELDS_OFFSET = RSS_STAT;
/** Bytes of `struct mm_cid`, and how they are aligned. */
const MM_CID = 16;
const MM_CID_ALIGN = 8;

/** Bytes of `struct tc_action` without its stop word, and where it keeps its percpu areas. */
export const TC_BYTES = 224;
const TC_AREAS = [TC_BYTES - 16, TC_BYTES - 12, TC_BYTES - 8] as const;
/** Two `gnet_stats_basic_sync` and a `gnet_stats_queue`. */
const TC_SIZES = [16, 16, 20] as const;

/** Kernel's -ENOMEM, as constructors return it. */
const ENOMEM = 12;

/** `mm_alloc_cid` and `percpu_counter_init_many`; nothing stays when the second fails. */
function takeMmPercpu(arena: Arena, mm: number, gfp?: number): boolean {
  const cid = arena.percpu.alloc(MM_CID, MM_CID_ALIGN, gfp);
  if (cid === 0) return false;
  if (!arena.percpu.counters.initMany(mm + RSS_STAT, 0, NR_MM_COUNTERS, gfp)) {
    arena.percpu.free(cid);
    return false;
  }
  arena.i32[(mm + PCPU_CID) >> 2] = cid;
  return true;
}

function giveMmPercpu(arena: Arena, mm: number): void {
  arena.percpu.free(arena.i32[(mm + PCPU_CID) >> 2]!);
  arena.percpu.counters.destroyMany(mm + RSS_STAT, NR_MM_COUNTERS);
}

function takeTcPercpu(arena: Arena, action: number, gfp?: number): boolean {
  for (let i = 0; i < TC_AREAS.length; i++) {
    const p = arena.percpu.alloc(TC_SIZES[i]!, 8, gfp);
    if (p === 0) {
      for (let taken = 0; taken < i; taken++) arena.percpu.free(arena.i32[(action + TC_AREAS[taken]!) >> 2]!);
      return false;
    }
    arena.i32[(action + TC_AREAS[i]!) >> 2] = p;
  }
  return true;
}

function giveTcPercpu(arena: Arena, action: number): void {
  for (const at of TC_AREAS) arena.percpu.free(arena.i32[(action + at) >> 2]!);
}

/**
 * What `mm_init` does about memory that the constructor has: charges it to the thread's group, for as long as the mm is
 * allocated. False when that is refused, with nothing charged; the areas stay the mm's. The series destroyed one of them
 * here, and left its pointer to the destructor. It charged the counters alone, since a cid is not charged elsewhere either.
 */
export function chargeMm(arena: Arena, mm: number, gfp?: number): boolean {
  const { percpu } = arena;
  const cid = arena.i32[(mm + PCPU_CID) >> 2]!;
  if (!percpu.charge(cid, gfp)) return false;
  if (percpu.counters.chargeMany(mm + RSS_STAT, NR_MM_COUNTERS, gfp)) return true;
  percpu.uncharge(cid);
  return false;
}

/** What `__mmdrop` does about it. */
export function unchargeMm(arena: Arena, mm: number): void {
  arena.percpu.uncharge(arena.i32[(mm + PCPU_CID) >> 2]!);
  arena.percpu.counters.unchargeMany(mm + RSS_STAT, NR_MM_COUNTERS);
}

/** Bytes that it charges. */
export const mmPercpuBytes = (cpus: number): number => (MM_CID + NR_MM_COUNTERS * 4) * cpus;

export const mmStructCache = defineCache('lab-mm_struct', {
  size: MM_BYTES,
  ctor: (p, arena, gfp) => (takeMmPercpu(arena, p, gfp) ? 0 : ENOMEM),
  dtor: (p, arena) => giveMmPercpu(arena, p),
});

export const tcActionCache = defineCache('lab-tc_action', {
  size: TC_BYTES,
  ctor: (p, arena, gfp) => (takeTcPercpu(arena, p, gfp) ? 0 : ENOMEM),
  dtor: (p, arena) => giveTcPercpu(arena, p),
});

/** The two areas of an mm_struct as a trace of that kernel records them, for a replay in which the constructor has them. */
const TRACED_AREAS = [
  { at: PCPU_CID, size: 16, align: 8 },
  { at: RSS_STAT, size: 16, align: 4 },
] as const;

export const tracedMmCache = defineCache('lab-traced-mm_struct', {
  size: MM_BYTES,
  ctor: (p, arena, gfp) => {
    const areas = TRACED_AREAS.map(({ size, align }) => arena.percpu.alloc(size, align, gfp));
    if (areas.includes(0)) {
      for (const area of areas) arena.percpu.free(area);
      return ENOMEM;
    }
    for (const [i, area] of areas.entries()) arena.i32[(p + TRACED_AREAS[i]!.at) >> 2] = area;
    return 0;
  },
  dtor: (p, arena) => {
    for (const { at } of TRACED_AREAS) arena.percpu.free(arena.i32[(p + at) >> 2]!);
  },
});

/** How an object comes to its percpu memory. */
export interface Owner {
  /** What a new object has to be given, or charged for; false when that is not to be had, and then it has to go back. */
  take(arena: Arena, p: number): boolean;
  /** What is taken away before it is freed. */
  give(arena: Arena, p: number): void;
  /** Up to where a new object is cleared, or copied from another. Kernel: memset of mm_alloc, memcpy of dup_mm. */
  readonly clearUpTo: number;
  /** Whether every second one is a copy. */
  readonly copies: boolean;
}

const NOTHING = { take: () => true, give: () => {} };

export const OWNERS = {
  mm: {
    plain: { take: takeMmPercpu, give: giveMmPercpu, clearUpTo: CPU_BITMAP, copies: true },
    ctor: { take: chargeMm, give: unchargeMm, clearUpTo: CTOR_FIELDS_OFFSET, copies: true },
  },
  tc: {
    plain: { take: takeTcPercpu, give: giveTcPercpu, clearUpTo: TC_BYTES - 4, copies: false },
    ctor: { ...NOTHING, clearUpTo: TC_AREAS[0], copies: false },
  },
} as const satisfies Readonly<Record<string, Readonly<Record<'plain' | 'ctor', Owner>>>>;

/** Says what is wrong with an mm that is about to be freed: its counters must be 0 by then. Kernel: `check_mm`. */
export function checkMm(arena: Arena, mm: number): string | undefined {
  for (let i = 0; i < NR_MM_COUNTERS; i++) {
    const left = arena.percpu.counters.sum(mm + RSS_STAT + i * PERCPU_COUNTER_BYTES);
    if (left !== 0) return `BUG: Bad rss-counter state mm:0x${mm.toString(16)} type:${i} val:${left}`;
  }
  return undefined;
}
