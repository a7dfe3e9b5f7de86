/** Figures of the percpu allocator. Kernel: mm/percpu-stats.c. */
import { findNextSet, findNextZero } from './bitmap.js';
import { PcpuChunk, type PcpuChunkPtr, PcpuRoot, type PcpuView, WORD_SHIFT } from './layout.js';

/** One chunk, by the kernel's names. Sizes in bytes of one unit. */
export interface PercpuChunkInfo {
  index: number;
  nrAlloc: number;
  freeBytes: number;
  /** The largest area that fits. */
  contigBytes: number;
  /** Free bytes before the last area: what fragmentation keeps from larger areas. */
  sumFrag: number;
  /** The largest such run. */
  maxFrag: number;
  nrPopulated: number;
  nrEmptyPop: number;
  slot: number;
  isolated: boolean;
}

/** All chunks, by the kernel's names. Sizes in bytes of one unit. */
export interface PercpuInfo {
  /** The share of one CPU in a chunk. */
  unitBytes: number;
  cpus: number;
  /** Areas that are allocated, and the most that were. */
  nrAlloc: number;
  nrAllocMax: number;
  nrChunks: number;
  nrChunksMax: number;
  /** Pages of a unit that are ready for atomic allocations. */
  nrEmptyPop: number;
  /** Pages of a unit that have memory; each is a page of every CPU. */
  nrPopulated: number;
  /** In all chunks. */
  freeBytes: number;
  chunks: PercpuChunkInfo[];
}

/** pcpu_lock held, or others quiet. */
export function percpuInfo(v: PcpuView): PercpuInfo {
  const { m, root } = v;
  const chunks = [...v.chunks()].map((chunk) => chunkInfo(v, chunk));
  const sum = (of: (chunk: PercpuChunkInfo) => number): number =>
    chunks.reduce((n, chunk) => n + of(chunk), 0);
  return {
    unitBytes: v.unitBytes,
    cpus: v.geometry.cpus,
    nrAlloc: m[root + PcpuRoot.nrAreas]!,
    nrAllocMax: m[root + PcpuRoot.nrAreasMax]!,
    nrChunks: m[root + PcpuRoot.nrChunks]!,
    nrChunksMax: m[root + PcpuRoot.nrChunksMax]!,
    nrEmptyPop: m[root + PcpuRoot.nrEmptyPop]!,
    nrPopulated: sum(({ nrPopulated }) => nrPopulated),
    freeBytes: sum(({ freeBytes }) => freeBytes),
    chunks,
  };
}

function chunkInfo(v: PcpuView, chunk: PcpuChunkPtr): PercpuChunkInfo {
  const { m } = v;
  const map = chunk + v.allocMap;
  let sumFrag = 0;
  let maxFrag = 0;
  for (let at = findNextZero(m, map, 0, v.unitBits); at < v.unitBits; ) {
    const stop = findNextSet(m, map, at, v.unitBits);
    if (stop < v.unitBits) {
      sumFrag += stop - at;
      maxFrag = Math.max(maxFrag, stop - at);
    }
    at = findNextZero(m, map, stop, v.unitBits);
  }
  return {
    index: m[chunk + PcpuChunk.index]!,
    nrAlloc: m[chunk + PcpuChunk.nrAreas]!,
    freeBytes: m[chunk + PcpuChunk.freeBytes]!,
    contigBytes: m[chunk + PcpuChunk.contig]! << WORD_SHIFT,
    sumFrag: sumFrag << WORD_SHIFT,
    maxFrag: maxFrag << WORD_SHIFT,
    nrPopulated: m[chunk + PcpuChunk.nrPopulated]!,
    nrEmptyPop: m[chunk + PcpuChunk.nrEmptyPop]!,
    slot: m[chunk + PcpuChunk.slot]!,
    isolated: m[chunk + PcpuChunk.isolated] !== 0,
  };
}
