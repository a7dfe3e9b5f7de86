/** Percpu chunks: what follows from the maps and the tables of pages is as it is written down; and the counters' list. */
import type { CacheContext } from '../cache/index.js';
import { onlineThreads } from '../cpu/index.js';
import { isHeapAddress, orderOf, Page, PG_HEAD, PG_SLAB, virtToPage } from '../page/index.js';
import {
  AreaOp,
  chunkContig,
  countAreas,
  countBits,
  countersInOrder,
  findNextSet,
  findNextZero,
  isEmptyPage,
  isPopulated,
  PAGE_BITS,
  PcpuBlock,
  PcpuChunk,
  type PcpuChunkPtr,
  PcpuRoot,
  PcpuThread,
  PcpuView,
  PERCPU_BASE,
  PercpuCounter,
  slotOf,
  testBit,
  WORD_SHIFT,
} from '../percpu/index.js';
import { PAGE_SIZE } from '../struct/index.js';
import type { Findings } from './finding.js';

export function validatePercpu({ views, geometry }: CacheContext, findings: Findings): void {
  const v = new PcpuView(views.m, geometry);
  const listed = listedChunks(v, findings);
  const pages = new Set<number>();
  let areas = 0;
  let emptyPop = 0;
  let chunks = 0;
  for (const chunk of v.chunks()) {
    validateChunk(v, chunk, listed, pages, findings);
    areas += v.m[chunk + PcpuChunk.nrAreas]!;
    if (v.m[chunk + PcpuChunk.isolated] === 0) emptyPop += v.m[chunk + PcpuChunk.nrEmptyPop]!;
    chunks++;
  }
  same(findings, 'percpu', 'nr_areas', v.m[v.root + PcpuRoot.nrAreas]!, areas);
  same(findings, 'percpu', 'nr_empty_pop', v.m[v.root + PcpuRoot.nrEmptyPop]!, emptyPop);
  same(findings, 'percpu', 'nr_chunks', v.m[v.root + PcpuRoot.nrChunks]!, chunks);
  validateQuiet(v, findings);
  validateCounters(v, findings);
}

function same(findings: Findings, where: string, what: string, said: number, is: number): void {
  findings.expect(said === is, 'PERCPU', where, () => `${what} says ${said}, it is ${is}`);
}

/** The chunks by the list on which they are. */
function listedChunks(v: PcpuView, findings: Findings): Map<number, number> {
  const { m, root } = v;
  const listed = new Map<number, number>();
  for (let slot = 0; slot <= v.toDepopulateSlot; slot++) {
    let prev = 0;
    for (let chunk = m[root + PcpuRoot.slotHead + slot]!; chunk !== 0; chunk = m[chunk + PcpuChunk.next]!) {
      if (listed.has(chunk)) {
        findings.add(
          'PERCPU',
          `slot ${slot}`,
          `chunk at word ${chunk} is on two lists, or its list is a cycle`,
        );
        return listed;
      }
      listed.set(chunk, slot);
      findings.expect(m[chunk + PcpuChunk.prev] === prev, 'PERCPU', `slot ${slot}`, () => {
        return `chunk at word ${chunk} has a wrong back link`;
      });
      prev = chunk;
    }
    same(findings, `slot ${slot}`, 'tail', m[root + PcpuRoot.slotTail + slot]!, prev);
  }
  return listed;
}

function validateChunk(
  v: PcpuView,
  chunk: PcpuChunkPtr,
  listed: Map<number, number>,
  pages: Set<number>,
  findings: Findings,
): void {
  const { m } = v;
  const where = `percpu chunk ${m[chunk + PcpuChunk.index]}`;
  const field = (name: keyof typeof PcpuChunk): number => m[chunk + PcpuChunk[name]]!;
  const taken = countBits(m, chunk + v.allocMap, 0, v.unitBits);
  same(findings, where, 'free_bytes', field('freeBytes'), v.unitBytes - (taken << WORD_SHIFT));
  same(findings, where, 'nr_alloc', field('nrAreas'), countAreas(v, chunk));
  let emptyPop = 0;
  for (let page = 0; page < v.unitPages; page++) {
    validateBlock(v, chunk, page, where, findings);
    validatePage(v, chunk, page, pages, where, findings);
    if (isEmptyPage(v, chunk, page) && isPopulated(v, chunk, page)) emptyPop++;
  }
  same(findings, where, 'contig_hint', field('contig'), chunkContig(v, chunk));
  same(
    findings,
    where,
    'nr_populated',
    field('nrPopulated'),
    countBits(m, chunk + v.populated, 0, v.unitPages),
  );
  same(findings, where, 'nr_empty_pop_pages', field('nrEmptyPop'), emptyPop);
  validateBounds(v, chunk, where, findings);
  validateCharges(v, chunk, where, findings);
  validateSlot(v, chunk, listed.get(chunk), where, findings);
}

/** Each area begins and ends at a bound, and is allocated or free as a whole. */
function validateBounds(v: PcpuView, chunk: PcpuChunkPtr, where: string, findings: Findings): void {
  const { m } = v;
  const map = chunk + v.allocMap;
  for (let bit = findNextSet(m, map, 0, v.unitBits); bit < v.unitBits; ) {
    if (!testBit(m, chunk + v.boundMap, bit)) {
      findings.add('PERCPU', where, `bit ${bit} is allocated and no area begins there`);
      return;
    }
    const end = findNextSet(m, chunk + v.boundMap, bit + 1, v.unitBits);
    const stop = findNextZero(m, map, bit, end);
    findings.expect(
      stop === end,
      'PERCPU',
      where,
      () => `the area at bit ${bit} ends at ${end}, but ${stop} is free`,
    );
    bit = findNextSet(m, map, end, v.unitBits);
  }
}

/** What is charged is an area. */
function validateCharges(v: PcpuView, chunk: PcpuChunkPtr, where: string, findings: Findings): void {
  const { m } = v;
  const exts = m[chunk + PcpuChunk.objExts]!;
  if (exts === 0) return;
  for (let bit = 0; bit < v.unitBits; bit++) {
    const isArea = testBit(m, chunk + v.allocMap, bit) && testBit(m, chunk + v.boundMap, bit);
    findings.expect(m[exts + bit] === 0 || isArea, 'PERCPU', where, () => {
      return `bit ${bit} is charged to the group at word ${m[exts + bit]}, and no area begins there`;
    });
  }
}

function validateBlock(
  v: PcpuView,
  chunk: PcpuChunkPtr,
  page: number,
  where: string,
  findings: Findings,
): void {
  const { m } = v;
  const map = chunk + v.allocMap;
  const begin = page * PAGE_BITS;
  const end = begin + PAGE_BITS;
  let longest = 0;
  const first = findNextZero(m, map, begin, end);
  for (let at = first; at < end; ) {
    const stop = findNextSet(m, map, at, end);
    longest = Math.max(longest, stop - at);
    at = findNextZero(m, map, stop, end);
  }
  const block = v.blockOf(chunk, page);
  const hint = m[block + PcpuBlock.contigHint]!;
  same(findings, `${where}, page ${page}`, 'contig_hint', hint, longest);
  same(findings, `${where}, page ${page}`, 'first_free', m[block + PcpuBlock.firstFree]!, first - begin);
  const start = begin + m[block + PcpuBlock.contigHintStart]!;
  findings.expect(hint === 0 || findNextSet(m, map, start, end) - start === hint, 'PERCPU', where, () => {
    return `page ${page}: no run of ${hint} begins at bit ${start}`;
  });
}

function validatePage(
  v: PcpuView,
  chunk: PcpuChunkPtr,
  page: number,
  pages: Set<number>,
  where: string,
  findings: Findings,
): void {
  const { m, geometry } = v;
  const populated = isPopulated(v, chunk, page);
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    const address = m[v.pageWord(chunk, page, cpu)]!;
    const what = `page ${page} of CPU ${cpu}`;
    if (!populated) {
      findings.expect(
        address === 0,
        'PERCPU',
        where,
        () => `${what} is not populated and has 0x${address.toString(16)}`,
      );
      continue;
    }
    const flags = isHeapAddress(geometry, address) ? m[virtToPage(geometry, address) + Page.flags]! : 0;
    const isPage =
      address % PAGE_SIZE === 0 && (flags & (PG_HEAD | PG_SLAB)) === PG_HEAD && orderOf(flags) === 0;
    findings.expect(isPage && !pages.has(address), 'PERCPU', where, () => {
      return `${what} is at 0x${address.toString(16)}, which is not a page of its own`;
    });
    pages.add(address);
  }
  const free = isEmptyPage(v, chunk, page);
  findings.expect(populated || free, 'PERCPU', where, () => `page ${page} has areas and is not populated`);
}

/** By its largest free run, or lower after a search in vain; isolated ones are on two lists of their own. */
function validateSlot(
  v: PcpuView,
  chunk: PcpuChunkPtr,
  listed: number | undefined,
  where: string,
  findings: Findings,
): void {
  const { m } = v;
  same(findings, where, 'slot', m[chunk + PcpuChunk.slot]!, listed ?? -1);
  const isolated = m[chunk + PcpuChunk.isolated] !== 0;
  const fits = isolated
    ? listed === v.sidelinedSlot || listed === v.toDepopulateSlot
    : listed === slotOf(v, chunk) || listed === 0;
  findings.expect(fits, 'PERCPU', where, () => `is on list ${listed}, and belongs to ${slotOf(v, chunk)}`);
}

/** Nobody is in the middle of anything. */
function validateQuiet(v: PcpuView, findings: Findings): void {
  const { m, root } = v;
  for (const [name, lock] of [
    ['pcpu_alloc_mutex', v.mutex],
    ['pcpu_lock', v.lock],
    ['percpu_counters_lock', v.countersLock],
  ] as const) {
    findings.expect(m[lock] === 0, 'I20', 'percpu', () => `${name} is held`);
  }
  findings.expect(m[root + PcpuRoot.opKind] === AreaOp.NONE, 'PERCPU', 'percpu', () => {
    return `a change of the chunk at word ${m[root + PcpuRoot.opChunk]} is under way`;
  });
  for (const thread of onlineThreads(m, v.geometry)) {
    const held = m[v.threads + thread * PcpuThread.SIZEOF + PcpuThread.nrInHand]!;
    findings.expect(held === 0, 'PERCPU', `thread slot ${thread}`, () => `has ${held} areas in hand`);
  }
}

/** Each counter on the list has parts, and the links agree: an object that was freed without destroy shows here. */
function validateCounters(v: PcpuView, findings: Findings): void {
  const { m } = v;
  let prev = 0;
  const seen = new Set<number>();
  for (const fbc of countersInOrder(v)) {
    const counters = m[fbc + PercpuCounter.counters]!;
    const chunk = counters < PERCPU_BASE ? 0 : v.chunkAt((counters - PERCPU_BASE) >>> v.unitShift);
    const bit = (counters & (v.unitBytes - 1)) >> WORD_SHIFT;
    const sound = chunk > 0 && testBit(m, chunk + v.allocMap, bit) && m[fbc + PercpuCounter.prev] === prev;
    if (!sound || seen.has(fbc)) {
      findings.add(
        'COUNTERS',
        'percpu_counters',
        `what is at word ${fbc} is no percpu counter, or on the list twice`,
      );
      return;
    }
    seen.add(fbc);
    findings.expect(m[fbc] === 0, 'I20', 'percpu_counters', () => `the counter at word ${fbc} is locked`);
    prev = fbc;
  }
}
