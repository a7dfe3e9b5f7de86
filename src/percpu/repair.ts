/**
 * After a thread that died with pcpu_lock or pcpu_alloc_mutex: the maps and the tables of pages are the truth, everything
 * else is made anew from them.
 *
 *  PR1  A change of the maps is on record (area.ts). One that allocates is undone, one that frees is completed.
 *  PR2  A page that the table has in some units, or that no bit says is populated, is given back: its thread died while
 *       it populated or depopulated it.
 *  PR3  Hints, free bytes, counts and lists of all chunks are computed again. A chunk that balance work had taken off
 *       its list gets back on one.
 *  PR4  The list of counters is whole when read forwards (counter.ts); the links backwards are set again.
 *
 * The dead owner's lock keeps everybody out meanwhile; in the end it is free.
 */
import {
  exchange,
  futexWake,
  isOwnedBy,
  LockClass,
  type LockPtr,
  loadAcquire,
  UNLOCKED,
} from '../sync/index.js';
import { endOp } from './area.js';
import type { AreaSource } from './areaSource.js';
import { clearBits, countBits, findNextSet, testBit } from './bitmap.js';
import { isEmptyPage, isPopulated, refreshBlock, refreshChunk } from './blocks.js';
import { countersInOrder, setBackLinks } from './counterList.js';
import { AreaOp, PcpuChunk, type PcpuChunkPtr, PcpuRoot, type PcpuView, WORD_SHIFT } from './layout.js';
import { depopulatePages } from './populate.js';
import { linkChunk, slotOf } from './slots.js';

/** Repairs what died with `owner`. Returns what that was, in words. */
export function repairPercpu(source: AreaSource, owner: number): string[] {
  const { v } = source;
  const notes: string[] = [];
  const died = (lock: LockPtr): boolean => isOwnedBy(loadAcquire(v.m, lock), owner);
  const lockDied = died(v.lock);
  const mutexDied = died(v.mutex);
  if (died(v.countersLock)) {
    setBackLinks(v);
    free(v, v.countersLock);
    notes.push(`died in percpu_counters_lock; ${countersInOrder(v).length} counters are on the list`);
  }
  if (!lockDied && !mutexDied) return notes;
  const { locks } = source.cpu;
  let half: HalfPage[] = [];
  if (!lockDied) locks.lock(v.lock, LockClass.PcpuLock);
  try {
    settleRecord(v);
    // With the mutex in living hands, a page that is entered and not marked is being populated now.
    if (mutexDied) half = takeHalfPages(v);
    rebuild(v, mutexDied);
  } finally {
    if (!lockDied) locks.unlock(v.lock, LockClass.PcpuLock);
  }
  for (const { chunk, page } of half) depopulatePages(source, chunk, page, page + 1);
  if (lockDied) free(v, v.lock);
  if (mutexDied) free(v, v.mutex);
  const which = [lockDied ? 'pcpu_lock' : '', mutexDied ? 'pcpu_alloc_mutex' : ''].filter(
    (name) => name !== '',
  );
  notes.push(
    `died in ${which.join(' and ')}: the percpu chunks were rebuilt, ${half.length} half-populated pages given back`,
  );
  return notes;
}

interface HalfPage {
  readonly chunk: PcpuChunkPtr;
  readonly page: number;
}

function free(v: PcpuView, lock: LockPtr): void {
  // Pairs with the compare-exchange of the next owner: what was repaired is visible.
  exchange(v.m, lock, UNLOCKED);
  futexWake(v.m, lock, Number.POSITIVE_INFINITY);
}

/** PR1. */
function settleRecord(v: PcpuView): void {
  const { m, root } = v;
  if (m[root + PcpuRoot.opKind] === AreaOp.NONE) return;
  const chunk = m[root + PcpuRoot.opChunk]!;
  clearBits(m, chunk + v.allocMap, m[root + PcpuRoot.opStart]!, m[root + PcpuRoot.opEnd]!);
  endOp(v);
}

/** PR2. The pages that are to be given back; no bit says any more that they are populated. */
function takeHalfPages(v: PcpuView): HalfPage[] {
  const { m, geometry } = v;
  const half: HalfPage[] = [];
  for (const chunk of v.chunks()) {
    for (let page = 0; page < v.unitPages; page++) {
      let units = 0;
      for (let cpu = 0; cpu < geometry.cpus; cpu++) if (m[v.pageWord(chunk, page, cpu)] !== 0) units++;
      if (units === 0 || (units === geometry.cpus && isPopulated(v, chunk, page))) continue;
      clearBits(m, chunk + v.populated, page, page + 1);
      half.push({ chunk, page });
    }
  }
  return half;
}

/** PR3. */
function rebuild(v: PcpuView, mutexDied: boolean): void {
  const { m, root } = v;
  m.fill(0, root + PcpuRoot.slotHead, root + PcpuRoot.SIZEOF);
  const chunks = [...v.chunks()];
  for (const chunk of chunks) rebuildChunk(v, chunk, mutexDied);
  m[root + PcpuRoot.nrChunks] = chunks.length;
  m[root + PcpuRoot.nrAreas] = chunks.reduce((n, chunk) => n + m[chunk + PcpuChunk.nrAreas]!, 0);
  const ready = chunks.filter((chunk) => m[chunk + PcpuChunk.isolated] === 0);
  m[root + PcpuRoot.nrEmptyPop] = ready.reduce((n, chunk) => n + m[chunk + PcpuChunk.nrEmptyPop]!, 0);
}

function rebuildChunk(v: PcpuView, chunk: PcpuChunkPtr, mutexDied: boolean): void {
  const { m } = v;
  // An area whose pages went belongs to the dead thread, and is given back as one that it had in hand.
  for (let page = 0; page < v.unitPages; page++) refreshBlock(v, chunk, page);
  let emptyPop = 0;
  for (let page = 0; page < v.unitPages; page++) {
    if (isPopulated(v, chunk, page) && isEmptyPage(v, chunk, page)) emptyPop++;
  }
  m[chunk + PcpuChunk.nrEmptyPop] = emptyPop;
  m[chunk + PcpuChunk.nrPopulated] = countBits(m, chunk + v.populated, 0, v.unitPages);
  m[chunk + PcpuChunk.freeBytes] =
    v.unitBytes - (countBits(m, chunk + v.allocMap, 0, v.unitBits) << WORD_SHIFT);
  m[chunk + PcpuChunk.nrAreas] = countAreas(v, chunk);
  refreshChunk(v, chunk);
  m[chunk + PcpuChunk.slot] = -1;
  if (mutexDied) m[chunk + PcpuChunk.going] = 0;
  // Somebody is giving it back at this moment.
  if (m[chunk + PcpuChunk.going] !== 0) return;
  const isolated = m[chunk + PcpuChunk.isolated] !== 0;
  linkChunk(v, chunk, isolated ? v.toDepopulateSlot : slotOf(v, chunk), false);
}

/** Allocated areas: bounds at which something begins that is allocated. */
export function countAreas(v: PcpuView, chunk: PcpuChunkPtr): number {
  const { m } = v;
  let areas = 0;
  for (let bit = 0; bit < v.unitBits; bit = findNextSet(m, chunk + v.boundMap, bit + 1, v.unitBits)) {
    if (testBit(m, chunk + v.boundMap, bit) && testBit(m, chunk + v.allocMap, bit)) areas++;
  }
  return areas;
}
