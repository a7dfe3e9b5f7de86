/**
 * The lists of chunks, by the largest area that fits. All under pcpu_lock.
 *
 * | slot             | chunks on it                                                             |
 * |------------------|--------------------------------------------------------------------------|
 * | 0                | full, or so full that a search in them failed                            |
 * | 1 ..             | by the highest bit of their largest free run                             |
 * | sidelined        | isolated and depopulated: used when nothing else fits                    |
 * | free             | nothing is allocated of them                                             |
 * | to depopulate    | isolated: balance work takes their empty pages away                      |
 */
import { PcpuChunk, type PcpuChunkPtr, PcpuRoot, type PcpuView, WORD_SHIFT } from './layout.js';

const {
  next: NEXT,
  prev: PREV,
  slot: SLOT,
  contig: CONTIG,
  isolated: ISOLATED,
  nrEmptyPop: EMPTY_POP,
} = PcpuChunk;
const { slotHead: HEAD, slotTail: TAIL, nrEmptyPop: ROOT_EMPTY_POP } = PcpuRoot;

export const firstOf = (v: PcpuView, slot: number): PcpuChunkPtr => v.m[v.root + HEAD + slot] as PcpuChunkPtr;
export const nextOf = (v: PcpuView, chunk: PcpuChunkPtr): PcpuChunkPtr => v.m[chunk + NEXT] as PcpuChunkPtr;

/** Where a chunk belongs unless it is isolated. Kernel: `pcpu_chunk_slot`. */
export function slotOf(v: PcpuView, chunk: PcpuChunkPtr): number {
  const contig = v.m[chunk + CONTIG]!;
  return contig === 0 ? 0 : v.sizeToSlot(contig << WORD_SHIFT);
}

/** Takes a chunk off its list, if it is on one. */
export function unlinkChunk(v: PcpuView, chunk: PcpuChunkPtr): void {
  const { m, root } = v;
  const slot = m[chunk + SLOT]!;
  if (slot < 0) return;
  const next = m[chunk + NEXT]!;
  const prev = m[chunk + PREV]!;
  m[prev === 0 ? root + HEAD + slot : prev + NEXT] = next;
  m[next === 0 ? root + TAIL + slot : next + PREV] = prev;
  m[chunk + SLOT] = -1;
}

export function linkChunk(v: PcpuView, chunk: PcpuChunkPtr, slot: number, front: boolean): void {
  const { m, root } = v;
  const next = front ? m[root + HEAD + slot]! : 0;
  const prev = front ? 0 : m[root + TAIL + slot]!;
  m[chunk + NEXT] = next;
  m[chunk + PREV] = prev;
  m[prev === 0 ? root + HEAD + slot : prev + NEXT] = chunk;
  m[next === 0 ? root + TAIL + slot : next + PREV] = chunk;
  m[chunk + SLOT] = slot;
}

/** Kernel: `pcpu_chunk_move`. */
export function moveChunk(v: PcpuView, chunk: PcpuChunkPtr, slot: number): void {
  if (v.m[chunk + SLOT] === slot) return;
  unlinkChunk(v, chunk);
  linkChunk(v, chunk, slot, true);
}

/** After the largest free run has changed; fuller than before goes to the end. Kernel: `pcpu_chunk_relocate`. */
export function relocateChunk(v: PcpuView, chunk: PcpuChunkPtr): void {
  if (v.m[chunk + ISOLATED] !== 0) return;
  const old = v.m[chunk + SLOT]!;
  const slot = slotOf(v, chunk);
  if (slot === old) return;
  unlinkChunk(v, chunk);
  linkChunk(v, chunk, slot, old < slot);
}

/** Its empty pages count no longer as ready, and are taken away. Kernel: `pcpu_isolate_chunk`. */
export function isolateChunk(v: PcpuView, chunk: PcpuChunkPtr): void {
  const { m, root } = v;
  if (m[chunk + ISOLATED] === 0) {
    m[chunk + ISOLATED] = 1;
    m[root + ROOT_EMPTY_POP] = m[root + ROOT_EMPTY_POP]! - m[chunk + EMPTY_POP]!;
  }
  moveChunk(v, chunk, v.toDepopulateSlot);
}

/** Kernel: `pcpu_reintegrate_chunk`. */
export function reintegrateChunk(v: PcpuView, chunk: PcpuChunkPtr): void {
  const { m, root } = v;
  if (m[chunk + ISOLATED] === 0) return;
  m[chunk + ISOLATED] = 0;
  m[root + ROOT_EMPTY_POP] = m[root + ROOT_EMPTY_POP]! + m[chunk + EMPTY_POP]!;
  relocateChunk(v, chunk);
}

/** Adds to the pages that are populated and empty, of the chunk and, unless it is isolated, of all. */
export function addEmptyPop(v: PcpuView, chunk: PcpuChunkPtr, n: number): void {
  const { m, root } = v;
  m[chunk + EMPTY_POP] = m[chunk + EMPTY_POP]! + n;
  if (m[chunk + ISOLATED] === 0) m[root + ROOT_EMPTY_POP] = m[root + ROOT_EMPTY_POP]! + n;
}
