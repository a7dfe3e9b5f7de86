/**
 * Areas of a chunk: finding a place for one, and marking it allocated or free. All under pcpu_lock.
 *
 * The alloc map has a bit for each word that is taken. The bound map has one at the start and at the end of each area, so
 * that a free, which is given the start alone, finds the size. A change is on record in the root from before its first
 * effect to after its last: a thread that dies in between leaves it for repair.ts to undo or to complete.
 */
import { clearBits, findNextSet, findNextZero, setBit, setBits } from './bitmap.js';
import { blockAllocated, blockFreed, isEmptyPage, isPopulated, refreshChunk } from './blocks.js';
import {
  AreaOp,
  PAGE_BITS,
  PAGE_BITS_SHIFT,
  PcpuBlock,
  PcpuChunk,
  type PcpuChunkPtr,
  PcpuRoot,
  type PcpuView,
  WORD_SHIFT,
} from './layout.js';
import { addEmptyPop, relocateChunk } from './slots.js';

const { contigHint: CONTIG_HINT, contigHintStart: HINT_START, firstFree: FIRST_FREE } = PcpuBlock;
const { freeBytes: FREE_BYTES, contig: CONTIG, nrAreas: NR_AREAS } = PcpuChunk;
const { opKind: OP_KIND, opChunk: OP_CHUNK, opStart: OP_START, opEnd: OP_END } = PcpuRoot;
const { nrAreas: ALL_AREAS, nrAreasMax: ALL_AREAS_MAX } = PcpuRoot;

const alignBit = (bit: number, align: number): number => (bit + align - 1) & -align;

/** Whether the consecutive pages are one block of addresses in every unit. */
export function isOneBlock(v: PcpuView, chunk: PcpuChunkPtr, from: number, end: number): boolean {
  const { m } = v;
  for (let cpu = 0; cpu < v.geometry.cpus; cpu++) {
    const first = m[v.pageWord(chunk, from, cpu)]!;
    if (first === 0) return false;
    for (let page = from + 1; page < end; page++) {
      if (m[v.pageWord(chunk, page, cpu)] !== first + ((page - from) << (PAGE_BITS_SHIFT + WORD_SHIFT)))
        return false;
    }
  }
  return true;
}

/** The first bit at which an area fits, or -1. With `popOnly`, populated pages only. Kernel: `pcpu_find_block_fit`. */
export function findFit(
  v: PcpuView,
  chunk: PcpuChunkPtr,
  bits: number,
  align: number,
  popOnly: boolean,
): number {
  const { m } = v;
  if (m[chunk + CONTIG]! < bits) return -1;
  if (bits > PAGE_BITS) return findPages(v, chunk, bits >> PAGE_BITS_SHIFT, popOnly);
  for (let page = 0; page < v.unitPages; page++) {
    const block = v.blockOf(chunk, page);
    if (m[block + CONTIG_HINT]! < bits || (popOnly && !isPopulated(v, chunk, page))) continue;
    const bit = findInPage(v, chunk, page, bits, align);
    if (bit >= 0) return bit;
  }
  return -1;
}

function findInPage(v: PcpuView, chunk: PcpuChunkPtr, page: number, bits: number, align: number): number {
  const { m } = v;
  const map = chunk + v.allocMap;
  const block = v.blockOf(chunk, page);
  const begin = page << PAGE_BITS_SHIFT;
  const end = begin + PAGE_BITS;
  // What is exactly as long as the longest run can be nowhere but in such a run: the hint saves the search.
  const hint = begin + m[block + HINT_START]!;
  if (bits === m[block + CONTIG_HINT] && alignBit(hint, align) === hint) return hint;
  for (let at = begin + m[block + FIRST_FREE]!; ; ) {
    const start = alignBit(findNextZero(m, map, at, end), align);
    if (start + bits > end) return -1;
    const stop = findNextSet(m, map, start, start + bits);
    if (stop === start + bits) return start;
    at = stop + 1;
  }
}

function findPages(v: PcpuView, chunk: PcpuChunkPtr, pages: number, popOnly: boolean): number {
  let run = 0;
  for (let page = 0; page < v.unitPages; page++) {
    run = isEmptyPage(v, chunk, page) ? run + 1 : 0;
    const first = page + 1 - pages;
    if (run >= pages && (!popOnly || isOneBlock(v, chunk, first, page + 1))) return first << PAGE_BITS_SHIFT;
  }
  return -1;
}

/** Puts a change on record. `opKind` is last: before it, the record says nothing. */
function beginOp(v: PcpuView, kind: number, chunk: PcpuChunkPtr, start: number, end: number): void {
  const { m, root } = v;
  m[root + OP_CHUNK] = chunk;
  m[root + OP_START] = start;
  m[root + OP_END] = end;
  m[root + OP_KIND] = kind;
}

export function endOp(v: PcpuView): void {
  v.m[v.root + OP_KIND] = AreaOp.NONE;
}

/** Marks an area that findFit found. The record stays open for the caller to end. Kernel: `pcpu_alloc_area`. */
export function allocArea(v: PcpuView, chunk: PcpuChunkPtr, start: number, bits: number): void {
  const { m, root } = v;
  const end = start + bits;
  beginOp(v, AreaOp.ALLOC, chunk, start, end);
  setBits(m, chunk + v.allocMap, start, end);
  setBit(m, chunk + v.boundMap, start);
  clearBits(m, chunk + v.boundMap, start + 1, end);
  setBit(m, chunk + v.boundMap, end);
  m[chunk + FREE_BYTES] = m[chunk + FREE_BYTES]! - (bits << WORD_SHIFT);
  m[chunk + NR_AREAS] = m[chunk + NR_AREAS]! + 1;
  m[root + ALL_AREAS] = m[root + ALL_AREAS]! + 1;
  if (m[root + ALL_AREAS]! > m[root + ALL_AREAS_MAX]!) m[root + ALL_AREAS_MAX] = m[root + ALL_AREAS]!;
  let filled = 0;
  for (let bit = start; bit < end; bit = (bit | (PAGE_BITS - 1)) + 1) {
    const page = bit >> PAGE_BITS_SHIFT;
    if (isEmptyPage(v, chunk, page) && isPopulated(v, chunk, page)) filled++;
    blockAllocated(
      v,
      chunk,
      page,
      bit & (PAGE_BITS - 1),
      Math.min(end - (page << PAGE_BITS_SHIFT), PAGE_BITS),
    );
  }
  if (filled > 0) addEmptyPop(v, chunk, -filled);
  refreshChunk(v, chunk);
  relocateChunk(v, chunk);
}

/** Where the area that begins at `start` ends. */
export const areaEnd = (v: PcpuView, chunk: PcpuChunkPtr, start: number): number =>
  findNextSet(v.m, chunk + v.boundMap, start + 1, v.unitBits);

/** Gives an area back. Returns its bits. Kernel: `pcpu_free_area`. */
export function freeArea(v: PcpuView, chunk: PcpuChunkPtr, start: number): number {
  const { m, root } = v;
  const end = areaEnd(v, chunk, start);
  beginOp(v, AreaOp.FREE, chunk, start, end);
  clearBits(m, chunk + v.allocMap, start, end);
  m[chunk + FREE_BYTES] = m[chunk + FREE_BYTES]! + ((end - start) << WORD_SHIFT);
  m[chunk + NR_AREAS] = m[chunk + NR_AREAS]! - 1;
  m[root + ALL_AREAS] = m[root + ALL_AREAS]! - 1;
  let emptied = 0;
  for (let bit = start; bit < end; bit = (bit | (PAGE_BITS - 1)) + 1) {
    const page = bit >> PAGE_BITS_SHIFT;
    blockFreed(v, chunk, page, bit & (PAGE_BITS - 1), Math.min(end - (page << PAGE_BITS_SHIFT), PAGE_BITS));
    if (isEmptyPage(v, chunk, page) && isPopulated(v, chunk, page)) emptied++;
  }
  if (emptied > 0) addEmptyPop(v, chunk, emptied);
  refreshChunk(v, chunk);
  relocateChunk(v, chunk);
  endOp(v);
  return end - start;
}
