/**
 * Pages of a chunk, in every unit or in none. All under pcpu_alloc_mutex and without pcpu_lock: pages are asked for with
 * no reclaim, since a reclaim begins with no lock held; who wants one drops the mutex first and comes again.
 *
 * A page is entered into the table before the populated bit says so, and the bit is gone before it is taken out: what the
 * table has and the bits do not is from a thread that died here, and can be given back.
 */
import { nodeOfCpu, type ThisCpu } from '../cpu/index.js';
import {
  __GFP_DIRECT_RECLAIM,
  __GFP_NOFAIL,
  __GFP_NOWARN,
  __GFP_ZERO,
  type PageAllocator,
  virtToPage,
} from '../page/index.js';
import { PAGE_SIZE } from '../struct/index.js';
import { clearBits, setBits } from './bitmap.js';
import { isEmptyPage } from './blocks.js';
import { PcpuChunk, type PcpuChunkPtr, type PcpuView } from './layout.js';
import { addEmptyPop } from './slots.js';

const { nrPopulated: NR_POPULATED } = PcpuChunk;

/** What the parts of the allocator need of their thread. */
export interface PcpuEnv {
  readonly v: PcpuView;
  readonly cpu: ThisCpu;
  readonly pages: PageAllocator;
}

/** The caller's flags, for what is asked for under the mutex. */
export const underMutex = (gfp: number): number =>
  (gfp & ~(__GFP_DIRECT_RECLAIM | __GFP_NOFAIL | __GFP_ZERO)) | __GFP_NOWARN;

/** Gives pages `[from, end)` memory in every unit, as one block of addresses in each. False, and none, without memory. */
export function populatePages(
  { v, pages }: PcpuEnv,
  chunk: PcpuChunkPtr,
  from: number,
  end: number,
  gfp: number,
): boolean {
  const { m, geometry } = v;
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    const first = pages.allocExact(end - from, underMutex(gfp), nodeOfCpu(geometry, cpu));
    if (first === 0) {
      depopulatePages({ v, pages }, chunk, from, end);
      return false;
    }
    const address = pages.address(first);
    for (let page = from; page < end; page++) {
      m[v.pageWord(chunk, page, cpu)] = address + (page - from) * PAGE_SIZE;
    }
  }
  return true;
}

/** Gives back what pages `[from, end)` have; no bit says any more that they are populated. */
export function depopulatePages(
  { v, pages }: Pick<PcpuEnv, 'v' | 'pages'>,
  chunk: PcpuChunkPtr,
  from: number,
  end: number,
): void {
  const { m, geometry } = v;
  for (let page = from; page < end; page++) {
    for (let cpu = 0; cpu < geometry.cpus; cpu++) {
      const word = v.pageWord(chunk, page, cpu);
      const address = m[word]!;
      if (address === 0) continue;
      // First out of the table: a thread that dies before the next line loses a page, one that dies after it none.
      m[word] = 0;
      pages.free(virtToPage(geometry, address), 0);
    }
  }
}

/** Says that pages are populated; pcpu_lock held. Kernel: `pcpu_chunk_populated`. */
export function markPopulated(v: PcpuView, chunk: PcpuChunkPtr, from: number, end: number): void {
  const { m } = v;
  setBits(m, chunk + v.populated, from, end);
  m[chunk + NR_POPULATED] = m[chunk + NR_POPULATED]! + end - from;
  addEmptyPop(v, chunk, emptyPages(v, chunk, from, end));
}

/** The opposite; all of them were populated. pcpu_lock held. Kernel: `pcpu_chunk_depopulated`. */
export function markDepopulated(v: PcpuView, chunk: PcpuChunkPtr, from: number, end: number): void {
  const { m } = v;
  clearBits(m, chunk + v.populated, from, end);
  m[chunk + NR_POPULATED] = m[chunk + NR_POPULATED]! - (end - from);
  addEmptyPop(v, chunk, -emptyPages(v, chunk, from, end));
}

function emptyPages(v: PcpuView, chunk: PcpuChunkPtr, from: number, end: number): number {
  let empty = 0;
  for (let page = from; page < end; page++) if (isEmptyPage(v, chunk, page)) empty++;
  return empty;
}
