/** The hints: of each page and of a chunk, where the largest free run is. All under pcpu_lock. */
import { findLastSet, findNextSet, findNextZero, testBit } from './bitmap.js';
import {
  PAGE_BITS,
  PAGE_BITS_SHIFT,
  PcpuBlock,
  PcpuChunk,
  type PcpuChunkPtr,
  type PcpuView,
} from './layout.js';

const { contigHint: CONTIG, contigHintStart: START, firstFree: FIRST_FREE } = PcpuBlock;

/** Whether nothing of a page is allocated. */
export const isEmptyPage = (v: PcpuView, chunk: PcpuChunkPtr, page: number): boolean =>
  v.m[v.blockOf(chunk, page) + CONTIG] === PAGE_BITS;

export const isPopulated = (v: PcpuView, chunk: PcpuChunkPtr, page: number): boolean =>
  testBit(v.m, chunk + v.populated, page);

/** Reads a page's hints off its map. Kernel: `pcpu_block_refresh_hint`. */
export function refreshBlock(v: PcpuView, chunk: PcpuChunkPtr, page: number): void {
  const { m } = v;
  const map = chunk + v.allocMap;
  const begin = page << PAGE_BITS_SHIFT;
  const end = begin + PAGE_BITS;
  let first = -1;
  let longest = 0;
  let start = 0;
  for (let at = findNextZero(m, map, begin, end); at < end; ) {
    const stop = findNextSet(m, map, at, end);
    if (first < 0) first = at;
    if (stop - at > longest) {
      longest = stop - at;
      start = at - begin;
    }
    at = findNextZero(m, map, stop, end);
  }
  const block = v.blockOf(chunk, page);
  m[block + CONTIG] = longest;
  m[block + START] = start;
  m[block + FIRST_FREE] = first < 0 ? PAGE_BITS : first - begin;
}

/** Bits `[from, end)` of a page, counted from its start, were allocated. Kernel: `pcpu_block_update_hint_alloc`. */
export function blockAllocated(
  v: PcpuView,
  chunk: PcpuChunkPtr,
  page: number,
  from: number,
  end: number,
): void {
  const { m } = v;
  const block = v.blockOf(chunk, page);
  const start = m[block + START]!;
  if (from < start + m[block + CONTIG]! && end > start) refreshBlock(v, chunk, page);
  else if (from === m[block + FIRST_FREE]) {
    const begin = page << PAGE_BITS_SHIFT;
    m[block + FIRST_FREE] = findNextZero(m, chunk + v.allocMap, begin + end, begin + PAGE_BITS) - begin;
  }
}

/** The same of bits that were freed. Kernel: `pcpu_block_update_hint_free`. */
export function blockFreed(v: PcpuView, chunk: PcpuChunkPtr, page: number, from: number, end: number): void {
  const { m } = v;
  const map = chunk + v.allocMap;
  const begin = page << PAGE_BITS_SHIFT;
  const block = v.blockOf(chunk, page);
  const left = findLastSet(m, map, begin, begin + from) + 1 - begin;
  const right = findNextSet(m, map, begin + end, begin + PAGE_BITS) - begin;
  if (right - left > m[block + CONTIG]!) {
    m[block + CONTIG] = right - left;
    m[block + START] = left;
  }
  if (left < m[block + FIRST_FREE]!) m[block + FIRST_FREE] = left;
}

/** The largest area that fits into a chunk, in bits: within one page, or some empty pages in a row. */
export function chunkContig(v: PcpuView, chunk: PcpuChunkPtr): number {
  const { m } = v;
  let longest = 0;
  let run = 0;
  for (let page = 0; page < v.unitPages; page++) {
    const contig = m[v.blockOf(chunk, page) + CONTIG]!;
    run = contig === PAGE_BITS ? run + PAGE_BITS : 0;
    longest = Math.max(longest, contig, run);
  }
  return longest;
}

export function refreshChunk(v: PcpuView, chunk: PcpuChunkPtr): void {
  v.m[chunk + PcpuChunk.contig] = chunkContig(v, chunk);
}
