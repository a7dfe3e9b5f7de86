/** Making and ending chunks: kmalloc'ed, and found through the table of all chunks. */
import type { Kmallocs } from '../cache/index.js';
import { WORD_BYTES } from '../struct/index.js';
import { setBit } from './bitmap.js';
import { refreshBlock, refreshChunk } from './blocks.js';
import { CHUNKS_MAX, PcpuChunk, type PcpuChunkPtr, PcpuRoot, type PcpuView } from './layout.js';
import { underMutex } from './populate.js';
import { relocateChunk, unlinkChunk } from './slots.js';

const { nrChunks: NR_CHUNKS, nrChunksMax: NR_CHUNKS_MAX } = PcpuRoot;

/** A new chunk without pages that nobody knows of yet, or 0. pcpu_alloc_mutex held. Kernel: `pcpu_create_chunk`. */
export function createChunk(v: PcpuView, kmallocs: Kmallocs, gfp: number): PcpuChunkPtr {
  const index = freeIndex(v);
  if (index < 0) return 0 as PcpuChunkPtr;
  const p = kmallocs.allocOwn(v.chunkWords * WORD_BYTES, underMutex(gfp));
  if (p === 0) return 0 as PcpuChunkPtr;
  const { m } = v;
  const chunk = (p / WORD_BYTES) as PcpuChunkPtr;
  m.fill(0, chunk, chunk + v.chunkWords);
  m[chunk + PcpuChunk.index] = index;
  m[chunk + PcpuChunk.slot] = -1;
  m[chunk + PcpuChunk.freeBytes] = v.unitBytes;
  setBit(m, chunk + v.boundMap, 0);
  setBit(m, chunk + v.boundMap, v.unitBits);
  for (let page = 0; page < v.unitPages; page++) refreshBlock(v, chunk, page);
  refreshChunk(v, chunk);
  return chunk;
}

function freeIndex(v: PcpuView): number {
  for (let index = 0; index < CHUNKS_MAX; index++) if (v.chunkAt(index) === 0) return index;
  return -1;
}

/** Lets others allocate from it. pcpu_lock held. */
export function publishChunk(v: PcpuView, chunk: PcpuChunkPtr): void {
  const { m, root } = v;
  m[v.table + m[chunk + PcpuChunk.index]!] = chunk;
  m[root + NR_CHUNKS] = m[root + NR_CHUNKS]! + 1;
  if (m[root + NR_CHUNKS]! > m[root + NR_CHUNKS_MAX]!) m[root + NR_CHUNKS_MAX] = m[root + NR_CHUNKS]!;
  relocateChunk(v, chunk);
}

/** Takes a chunk out of the table and its list; it has neither areas nor pages. pcpu_lock held. */
export function forgetChunk(v: PcpuView, chunk: PcpuChunkPtr): void {
  const { m, root } = v;
  unlinkChunk(v, chunk);
  m[v.table + m[chunk + PcpuChunk.index]!] = 0;
  m[root + NR_CHUNKS] = m[root + NR_CHUNKS]! - 1;
}
