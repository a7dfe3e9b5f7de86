/** One cache: where each sheaf is, where each object is, and whether lists and counts say the same. */
import {
  type CacheContext,
  freelistIndices,
  type KmemCache,
  RESERVE_MARK,
  slabCapacity,
  slabObjects,
} from '../cache/index.js';
import { Pcs, pcsOf, ThreadRecord, threadRecordOf } from '../cpu/index.js';
import {
  compoundHead,
  isHeapAddress,
  Page,
  type PageAllocator,
  type PagePtr,
  PG_DEFERRED,
  PG_PARTIAL,
  pageAddress,
  virtToPage,
} from '../page/index.js';
import {
  Barn,
  barnOf,
  COUNT_SHIFT,
  PercpuArray,
  prefilledCapacity,
  SHEAF_OBJECTS,
  Sheaf,
  type SheafPtr,
  sheafSize,
} from '../sheaf/index.js';
import { inuseOf, isDebug, isFrozen, KmemCacheNode, KmemCacheStruct, nodeOf } from '../slab/index.js';
import type { Findings } from './finding.js';
import { validateCpuSlabs } from './validateCpuSlabs.js';
import { validateWaiting } from './validateWaiting.js';

/** Objects that are free somewhere, with the place. */
type Places = Map<number, string>;

type SheafKind = 'main' | 'spare' | 'full' | 'empty' | 'prefilled';
/** Notes the objects of a sheaf; false if the sheaf is somewhere else too. */
type Visit = (sheaf: SheafPtr, place: string, kind: SheafKind, capacity?: number) => boolean;

export function validateCache(
  context: CacheContext,
  cache: KmemCache,
  all: readonly PagePtr[],
  pages: PageAllocator,
  findings: Findings,
): void {
  const slabs = validateWaiting(context, cache, all, pages, findings);
  const places: Places = new Map();
  const visit = sheafVisitor(context, cache, places, findings);
  if (cache.sheafCapacity > 0) collectSheaves(context, cache, visit, findings);
  if (cache.layer === 'cpu-slab') validateCpuSlabs(context, cache, slabs, findings);
  if (cache.layer === 'percpu-array' && cache.mainCapacity > 0) checkArrays(context, cache, findings);
  for (let thread = 0; thread < context.geometry.threads; thread++)
    visitPrefilled(context, cache, thread, visit);
  context.kfreeRcu.forEachPending((p, place) => {
    if (isObject(context, cache, p)) note(places, p, place, cache, findings);
  });
  cache.forEachCached((p, place) => {
    if (isObject(context, cache, p)) note(places, p, place, cache, findings);
    else findings.add('I10', cache.name, `0x${p.toString(16)} in ${place} is no object of the cache`);
  });
  collectDeferred(context, cache, places, findings);
  for (const page of slabs) validateSlab(context, cache, page, places, findings);
  for (let node = 0; node < context.geometry.nodes; node++) {
    const here = slabs.filter((page) => pages.nodeOf(page) === node);
    validateNode(context, cache, node, here, findings);
  }
}

/** The arrays themselves; what is in them is visited by the cache. */
function checkArrays(context: CacheContext, cache: KmemCache, findings: Findings): void {
  const { m } = context.views;
  for (let cpu = 0; cpu < context.geometry.cpus; cpu++) {
    const pcs = pcsOf(context.geometry, cpu, cache.desc.slot);
    const array = m[pcs + Pcs.main]!;
    const lock = m[pcs + Pcs.lock]!;
    findings.expect(array !== 0, 'I1', cache.name, () => `CPU ${cpu} has no array`);
    // A used word with operations not yet counted is larger than any array.
    const used = array === 0 ? 0 : m[array + PercpuArray.used]!;
    findings.expect(used >= 0 && used <= cache.mainCapacity, 'I2', cache.name, () => {
      return `the array of CPU ${cpu}: used ${used}, count ${cache.mainCapacity}`;
    });
    findings.expect(lock === 0, 'I20', cache.name, () => {
      return `the array of CPU ${cpu} is locked by 0x${lock.toString(16)}`;
    });
  }
}

function sheafVisitor(context: CacheContext, cache: KmemCache, places: Places, findings: Findings): Visit {
  const { m } = context.views;
  const seen = new Map<number, string>();
  return (sheaf, place, kind, capacity = cache.sheafCapacity) => {
    const before = seen.get(sheaf);
    if (before !== undefined) {
      findings.add('I3', cache.name, `sheaf ${sheaf} is ${place} and ${before}`);
      return false;
    }
    seen.set(sheaf, place);
    findings.expect(
      m[sheaf + Sheaf.cache] === cache.desc.ptr,
      'I3',
      cache.name,
      () => `${place}: foreign sheaf`,
    );
    const size = sheafSize(m, sheaf);
    findings.expect(size <= capacity, 'I2', cache.name, () => `${place}: size ${size}`);
    if (kind === 'full') findings.expect(size > 0, 'I4', cache.name, () => `${place}: empty`);
    if (kind === 'empty') findings.expect(size === 0, 'I4', cache.name, () => `${place}: size ${size}`);
    for (let i = 0; i < Math.min(size, capacity); i++) {
      const p = m[sheaf + SHEAF_OBJECTS + i]!;
      if (!isObject(context, cache, p)) {
        findings.add('I10', cache.name, `0x${p.toString(16)} in ${place} is no object of the cache`);
        continue;
      }
      note(places, p, place, cache, findings);
      // With check 'none' a fast path cannot tell.
      if (context.check !== 'none' && context.slabs.isOfReserve(p)) {
        findings.add('I25', cache.name, `0x${p.toString(16)}, of the reserve, is in ${place}`);
      }
    }
    return true;
  };
}

/** Visits the sheaves that the CPUs and the barns have. */
function collectSheaves(context: CacheContext, cache: KmemCache, visit: Visit, findings: Findings): void {
  const { m } = context.views;
  for (let cpu = 0; cpu < context.geometry.cpus; cpu++) {
    const pcs = pcsOf(context.geometry, cpu, cache.desc.slot);
    const main = m[pcs + Pcs.main] as SheafPtr;
    if (main === 0) findings.add('I1', cache.name, `CPU ${cpu} has no main sheaf`);
    else visit(main, `main of CPU ${cpu}`, 'main');
    const counted = main === 0 || m[pcs + Pcs.lock] !== 0 ? 0 : m[main + Sheaf.size]! >>> COUNT_SHIFT;
    findings.expect(counted === 0, 'I2', cache.name, () => {
      return `main of CPU ${cpu}: ${counted} operations not yet counted`;
    });
    const spare = m[pcs + Pcs.spare] as SheafPtr;
    if (spare !== 0) visit(spare, `spare of CPU ${cpu}`, 'spare');
    const rcuFree = m[pcs + Pcs.rcuFree] as SheafPtr;
    if (rcuFree !== 0) visit(rcuFree, `rcu_free of CPU ${cpu}`, 'spare');
    findings.expect(m[pcs + Pcs.lock] === 0, 'I20', cache.name, () => {
      return `the sheaves of CPU ${cpu} are locked by 0x${m[pcs + Pcs.lock]!.toString(16)}`;
    });
  }
  for (let node = 0; node < context.geometry.nodes; node++) visitBarn(context, cache, node, visit, findings);
}

/** What a thread has borrowed: sheaves of any capacity, in caches without sheaves too. */
function visitPrefilled(context: CacheContext, cache: KmemCache, thread: number, visit: Visit): void {
  const { m } = context.views;
  const head = pcsOf(context.geometry, thread, cache.desc.slot) + Pcs.prefilled;
  for (let sheaf = m[head] as SheafPtr; sheaf !== 0; sheaf = m[sheaf + Sheaf.link] as SheafPtr) {
    if (!visit(sheaf, `prefilled of CPU ${thread}`, 'prefilled', prefilledCapacity(m, sheaf))) break;
  }
}

/** Notes the cache's objects on the CPUs' deferred lists, which hold objects of all caches and blocks of pages. */
function collectDeferred(context: CacheContext, cache: KmemCache, places: Places, findings: Findings): void {
  const { geometry, views } = context;
  const { m } = views;
  for (let id = 0; id < geometry.threads; id++) {
    const record = threadRecordOf(geometry, id);
    const seen = new Set<number>();
    for (const head of [ThreadRecord.deferred, ThreadRecord.draining]) {
      for (let p = m[record + head]!; p !== 0; ) {
        const place = `the deferred list of CPU ${id}`;
        const page = isHeapAddress(geometry, p) ? virtToPage(geometry, p) : 0;
        const owner = page === 0 ? 0 : m[page + Page.cache]!;
        const isBlock = page !== 0 && (m[page + Page.flags]! & PG_DEFERRED) !== 0;
        if (seen.has(p) || (owner === 0 && !isBlock)) {
          findings.add('I10', cache.name, `${place} is a cycle or leads to 0x${p.toString(16)}`);
          break;
        }
        seen.add(p);
        if (owner === cache.desc.ptr && isObject(context, cache, p)) note(places, p, place, cache, findings);
        p = m[isBlock ? p >> 2 : (p + m[owner + KmemCacheStruct.offset]!) >> 2]!;
      }
    }
  }
}

function visitBarn(
  context: CacheContext,
  cache: KmemCache,
  node: number,
  visit: Visit,
  findings: Findings,
): void {
  const { m } = context.views;
  const { barnEmpty, cpus } = context.geometry;
  const barn = barnOf(context.cpu, cache.desc, node);
  // The limit falls before the sheaves do, so what it may have been is what counts.
  const barnFull = context.geometry.barnFull + m[barn + Barn.most]!;
  // An empty sheaf that comes in exchange for a full one knows no limit, so the full ones' limit bounds it too.
  const lists = [
    { kind: 'full', head: Barn.full, nr: Barn.nrFull, limit: barnFull },
    { kind: 'empty', head: Barn.empty, nr: Barn.nrEmpty, limit: barnEmpty + barnFull },
  ] as const;
  for (const { kind, head, nr, limit } of lists) {
    let length = 0;
    for (let sheaf = m[barn + head] as SheafPtr; sheaf !== 0; sheaf = m[sheaf + Sheaf.link] as SheafPtr) {
      length++;
      if (!visit(sheaf, `${kind} in the barn of node ${node}`, kind)) break;
    }
    findings.expect(
      m[barn + nr] === length,
      'I5',
      cache.name,
      () => `node ${node}: ${length} ${kind}, count ${m[barn + nr]}`,
    );
    findings.expect(
      length <= limit + cpus,
      'I6',
      cache.name,
      () => `node ${node}: ${length} ${kind} sheaves`,
    );
  }
  for (
    let sheaf = m[barn + Barn.rcuHead] as SheafPtr;
    sheaf !== 0;
    sheaf = m[sheaf + Sheaf.link] as SheafPtr
  ) {
    if (!visit(sheaf, `waiting for a grace period in the barn of node ${node}`, 'full')) break;
  }
  findings.expect(m[barn + Barn.lock] === 0, 'I20', cache.name, () => `barn lock of node ${node} is held`);
}

function isObject(context: CacheContext, cache: KmemCache, p: number): boolean {
  const { geometry, views } = context;
  const page = isHeapAddress(geometry, p) ? compoundHead(views.m, virtToPage(geometry, p)) : 0;
  if (page === 0 || views.m[page + Page.cache] !== cache.desc.ptr) return false;
  return (p - cache.desc.redLeftPad - pageAddress(geometry, page)) % cache.size === 0;
}

function note(places: Places, p: number, place: string, cache: KmemCache, findings: Findings): void {
  const before = places.get(p);
  if (before !== undefined)
    findings.add('I13', cache.name, `0x${p.toString(16)} is in ${place} and in ${before}`);
  places.set(p, place);
}

function validateSlab(
  context: CacheContext,
  cache: KmemCache,
  page: PagePtr,
  places: Places,
  findings: Findings,
): void {
  const { geometry, views } = context;
  const { m, shadow } = views;
  const { desc } = cache;
  const start = pageAddress(geometry, page);
  const base = start + desc.redLeftPad;
  const where = `${cache.name}, slab 0x${start.toString(16)}`;
  const word = m[page + Page.slabWord]!;
  const said = m[page + Page.objects]!;
  const objects = slabObjects(m, desc, page);
  findings.expect(said === objects && objects > 0, 'I9', where, () => {
    return `it is said to have ${said} objects, with room for ${slabCapacity(m, desc, page)}`;
  });
  const free = freelistIndices(m, geometry, desc, page);
  if (free.includes(-1)) findings.add('I9', where, 'the freelist is a cycle or leads out of the slab');
  findings.expect(inuseOf(word) === objects - free.length, 'I9', where, () => {
    return `inuse is ${inuseOf(word)}, but ${free.length} of ${objects} objects are on the freelist`;
  });
  const listed = (m[page + Page.flags]! & PG_PARTIAL) !== 0;
  findings.expect(
    listed || free.length === 0 || isFrozen(word),
    'I22',
    where,
    () => `${free.length} free, on no list`,
  );
  findings.expect(
    !listed || free.length > 0,
    'I8',
    where,
    () => 'on the partial list with an empty freelist',
  );
  for (const index of free) {
    if (index >= 0) note(places, base + index * desc.size, `the freelist of ${where}`, cache, findings);
  }
  // A debug cache's slab that failed a check: all objects count as used, free or not.
  const isDisabled = isDebug(desc) && isFrozen(word);
  if (context.check === 'none' || isDisabled) return;
  for (let i = 0; i < objects; i++) {
    const p = base + i * desc.size;
    const marked = shadow[p >> 3] === desc.tag || shadow[p >> 3] === RESERVE_MARK;
    const place = places.get(p);
    if (marked === (place === undefined)) continue;
    const what = marked ? `is allocated and in ${place}` : 'is neither allocated nor free anywhere: lost';
    findings.add('I10', cache.name, `0x${p.toString(16)} ${what}`);
  }
}

/** The partial list of one node, and the counts, against the slabs that the memmap shows. */
function validateNode(
  context: CacheContext,
  cache: KmemCache,
  node: number,
  slabs: PagePtr[],
  findings: Findings,
): void {
  const { m } = context.views;
  const n = nodeOf(m, cache.desc, node);
  const where = `${cache.name}, node ${node}`;
  const listed = new Set<number>();
  const known = new Set<number>(slabs);
  let prev = 0;
  let empty = 0;
  for (let page = m[n + KmemCacheNode.head]!; page !== 0; page = m[page + Page.next]!) {
    if (listed.has(page) || !known.has(page)) {
      findings.add('I7', where, `the partial list has a cycle or a page of another owner at word ${page}`);
      break;
    }
    listed.add(page);
    findings.expect(m[page + Page.prev] === prev, 'I7', where, () => `wrong back link at word ${page}`);
    if (inuseOf(m[page + Page.slabWord]!) === 0) empty++;
    prev = page;
  }
  findings.expect(m[n + KmemCacheNode.tail] === prev, 'I7', where, () => 'the list does not end at its tail');
  for (const page of slabs) {
    const marked = (m[page + Page.flags]! & PG_PARTIAL) !== 0;
    findings.expect(marked === listed.has(page), 'I7', where, () => {
      return `slab at word ${page} is ${marked ? 'marked but not' : 'not marked but'} on the partial list`;
    });
  }
  const total = slabs.reduce((sum, page) => sum + m[page + Page.objects]!, 0);
  const count = (field: number, is: number, name: string): void => {
    findings.expect(m[n + field] === is, 'I11', where, () => `${name} is ${m[n + field]}, there are ${is}`);
  };
  count(KmemCacheNode.nrPartial, listed.size, 'nr_partial');
  count(KmemCacheNode.nrSlabs, slabs.length, 'nr_slabs');
  count(KmemCacheNode.totalObjects, total, 'total_objects');
  // A refiller may put private slabs back that became empty meanwhile, one batch per thread.
  const bound = cache.minPartial + context.geometry.threads * Math.max(1, cache.mainCapacity);
  findings.expect(
    empty <= bound,
    'I12',
    where,
    () => `${empty} empty slabs, min_partial ${cache.minPartial}`,
  );
  findings.expect(m[n + KmemCacheNode.listLock] === 0, 'I20', where, () => 'list_lock is held');
}
