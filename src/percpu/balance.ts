/**
 * Balance work: what allocations and frees put off. Under pcpu_alloc_mutex; pcpu_lock is dropped around whatever takes or
 * gives pages, and a chunk that is worked on meanwhile is on no list that allocations search. Kernel: `pcpu_balance_workfn`.
 */
import type { Kmallocs } from '../cache/index.js';
import { GFP_NOWAIT } from '../page/index.js';
import { PAGE_SIZE, WORD_BYTES } from '../struct/index.js';
import { LockClass } from '../sync/index.js';
import { isEmptyPage, isPopulated } from './blocks.js';
import { createChunk, forgetChunk, publishChunk } from './chunk.js';
import { EMPTY_POP_PAGES_HIGH, PcpuChunk, type PcpuChunkPtr, PcpuRoot } from './layout.js';
import { depopulatePages, markDepopulated, markPopulated, type PcpuEnv, populatePages } from './populate.js';
import { firstOf, moveChunk, nextOf, reintegrateChunk, unlinkChunk } from './slots.js';

const { nrEmptyPop: EMPTY_POP, nrPopulated: NR_POPULATED } = PcpuChunk;
const { nrEmptyPop: ROOT_EMPTY_POP, atomicFailed: ATOMIC_FAILED } = PcpuRoot;

/** What one balance has done. */
export interface BalanceReport {
  /** Free chunks that were given back. */
  chunksFreed: number;
  /** Pages of a unit that were populated, and given back. */
  pagesPopulated: number;
  pagesDepopulated: number;
}

interface BalanceEnv extends PcpuEnv {
  readonly kmallocs: Kmallocs;
}

/** pcpu_alloc_mutex held. */
export function balance(env: BalanceEnv): BalanceReport {
  const report: BalanceReport = { chunksFreed: 0, pagesPopulated: 0, pagesDepopulated: 0 };
  balanceFree(env, report, false);
  reclaimPopulated(env, report);
  balancePopulated(env, report);
  balanceFree(env, report, true);
  return report;
}

function locked<T>({ cpu, v }: PcpuEnv, body: () => T): T {
  cpu.locks.lock(v.lock, LockClass.PcpuLock);
  try {
    return body();
  } finally {
    cpu.locks.unlock(v.lock, LockClass.PcpuLock);
  }
}

/** Gives free chunks back but one; with `emptyOnly`, those without pages. Kernel: `pcpu_balance_free`. */
function balanceFree(env: BalanceEnv, report: BalanceReport, emptyOnly: boolean): void {
  const { v, kmallocs } = env;
  for (;;) {
    const chunk = locked(env, () => takeSurplus(env, emptyOnly));
    if (chunk === 0) return;
    // On no list: nobody but us can find it.
    for (let page = 0; page < v.unitPages; page++) {
      if (!isPopulated(v, chunk, page)) continue;
      locked(env, () => markDepopulated(v, chunk, page, page + 1));
      depopulatePages(env, chunk, page, page + 1);
      report.pagesDepopulated++;
    }
    locked(env, () => forgetChunk(v, chunk));
    const exts = v.m[chunk + PcpuChunk.objExts]!;
    if (exts !== 0) kmallocs.free(exts * WORD_BYTES);
    kmallocs.free(chunk * WORD_BYTES);
    report.chunksFreed++;
  }
}

/** A free chunk that is not the first of its list, off that list; or 0. */
function takeSurplus({ v }: PcpuEnv, emptyOnly: boolean): PcpuChunkPtr {
  const spare = firstOf(v, v.freeSlot);
  if (spare === 0) return spare;
  for (let chunk = nextOf(v, spare); chunk !== 0; chunk = nextOf(v, chunk)) {
    if (emptyOnly && v.m[chunk + EMPTY_POP] !== 0) continue;
    v.m[chunk + PcpuChunk.going] = 1;
    unlinkChunk(v, chunk);
    return chunk;
  }
  return 0 as PcpuChunkPtr;
}

/** Takes empty pages from isolated chunks while others have enough. Kernel: `pcpu_reclaim_populated`. */
function reclaimPopulated(env: BalanceEnv, report: BalanceReport): void {
  for (;;) {
    const chunk = locked(env, () => firstOf(env.v, env.v.toDepopulateSlot));
    if (chunk === 0) return;
    reclaimChunk(env, chunk, report);
  }
}

/** From the end, so that what stays is together. Leaves the chunk sidelined or, when its pages are needed, in use. */
function reclaimChunk(env: BalanceEnv, chunk: PcpuChunkPtr, report: BalanceReport): void {
  const { v } = env;
  const { m, root } = v;
  for (let page = v.unitPages - 1; page >= 0; page--) {
    const taken = locked(env, () => {
      if (m[chunk + EMPTY_POP] === 0 || m[root + ROOT_EMPTY_POP]! < EMPTY_POP_PAGES_HIGH) return 'stop';
      if (!isPopulated(v, chunk, page) || !isEmptyPage(v, chunk, page)) return 'skip';
      markDepopulated(v, chunk, page, page + 1);
      return 'take';
    });
    if (taken === 'stop') break;
    if (taken === 'skip') continue;
    depopulatePages(env, chunk, page, page + 1);
    report.pagesDepopulated++;
  }
  locked(env, () => {
    const needed = m[chunk + EMPTY_POP]! > 0 && m[root + ROOT_EMPTY_POP]! < EMPTY_POP_PAGES_HIGH;
    // One without areas goes on the free list, to be given back as a whole.
    if (needed || m[chunk + PcpuChunk.freeBytes] === v.unitBytes) reintegrateChunk(v, chunk);
    else moveChunk(v, chunk, v.sidelinedSlot);
  });
}

/** Populates until there are pages enough for atomic allocations. Kernel: `pcpu_balance_populated`. */
function balancePopulated(env: BalanceEnv, report: BalanceReport): void {
  const { v, kmallocs } = env;
  let wanted = locked(env, () => pagesWanted(env));
  while (wanted > 0) {
    const populated = populateSome(env, wanted);
    report.pagesPopulated += populated.pages;
    wanted -= populated.pages;
    if (wanted <= 0 || populated.noMemory) return;
    const chunk = createChunk(v, kmallocs, GFP_NOWAIT);
    if (chunk === 0) return;
    locked(env, () => publishChunk(v, chunk));
  }
}

function pagesWanted({ v }: PcpuEnv): number {
  const { m, root } = v;
  if (m[root + ATOMIC_FAILED] !== 0) {
    m[root + ATOMIC_FAILED] = 0;
    return EMPTY_POP_PAGES_HIGH;
  }
  return Math.max(0, EMPTY_POP_PAGES_HIGH - m[root + ROOT_EMPTY_POP]!);
}

/** Populates up to `wanted` pages of chunks that have room for a page, fullest first. */
function populateSome(env: PcpuEnv, wanted: number): { pages: number; noMemory: boolean } {
  const { v } = env;
  let pages = 0;
  for (let slot = v.sizeToSlot(PAGE_SIZE); slot <= v.freeSlot && pages < wanted; slot++) {
    const chunk = locked(env, () => firstUnpopulated(env, slot));
    if (chunk === 0) continue;
    for (let page = 0; page < v.unitPages && pages < wanted; page++) {
      if (isPopulated(v, chunk, page)) continue;
      if (!populatePages(env, chunk, page, page + 1, GFP_NOWAIT)) return { pages, noMemory: true };
      locked(env, () => markPopulated(v, chunk, page, page + 1));
      pages++;
    }
  }
  return { pages, noMemory: false };
}

function firstUnpopulated({ v }: PcpuEnv, slot: number): PcpuChunkPtr {
  let chunk = firstOf(v, slot);
  while (chunk !== 0 && v.m[chunk + NR_POPULATED] === v.unitPages) chunk = nextOf(v, chunk);
  return chunk;
}
