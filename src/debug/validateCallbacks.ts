/** Slabs between two lives: those that are being constructed, and those that wait for destructors. */
import type { Caches } from '../cache/index.js';
import { ThreadRecord, threadName, threadRecordOf } from '../cpu/index.js';
import { Page, type PagePtr, PG_CALLBACK, PG_HEAD, PG_SLAB, pageToPfn, pfnToPage } from '../page/index.js';
import { type CacheDesc, freelistOf, inuseOf, KmemCacheStruct } from '../slab/index.js';
import type { Findings } from './finding.js';

const { constructing: CONSTRUCTING, destructing: DESTRUCTING } = ThreadRecord;

/** Each such slab is on one list, of its cache or of a thread, and says how far its callbacks are. */
export function validateCallbacks(caches: Caches, findings: Findings): void {
  const { geometry, views } = caches;
  const { m } = views;
  const seen = new Map<number, string>();
  for (const { desc } of caches.all()) {
    walk(caches, m[desc.ptr + KmemCacheStruct.dtorSlabs]!, `the list of ${desc.name}`, seen, findings, desc);
  }
  for (let thread = 0; thread < geometry.threads; thread++) {
    const record = threadRecordOf(geometry, thread);
    const whose = threadName(geometry, thread);
    walk(caches, m[record + CONSTRUCTING]!, `the constructors of ${whose}`, seen, findings);
    walk(caches, m[record + DESTRUCTING]!, `the destructors of ${whose}`, seen, findings);
  }
  for (let pfn = geometry.firstPfn; pfn < geometry.endPfn; pfn++) {
    const page = pfnToPage(geometry, pfn);
    const flags = m[page + Page.flags]!;
    if ((flags & PG_CALLBACK) === 0 || seen.has(page)) continue;
    findings.add('I24', `page 0x${(pfn << 12).toString(16)}`, 'awaits callbacks and is on no list');
  }
}

function walk(
  { geometry, views }: Caches,
  first: number,
  place: string,
  seen: Map<number, string>,
  findings: Findings,
  owner?: CacheDesc,
): void {
  const { m } = views;
  for (let page = first as PagePtr; page !== 0; page = m[page + Page.next] as PagePtr) {
    const pfn = pageToPfn(geometry, page);
    if (!Number.isInteger(pfn) || pfn < geometry.firstPfn || pfn >= geometry.endPfn) {
      findings.add('I24', place, `leads out of the memmap to word ${page}`);
      return;
    }
    const before = seen.get(page);
    if (before !== undefined) {
      findings.add('I24', place, `the page at word ${page} is also on ${before}`);
      return;
    }
    seen.set(page, place);
    const flags = m[page + Page.flags]!;
    const kinds = flags & (PG_HEAD | PG_SLAB | PG_CALLBACK);
    findings.expect(kinds === (PG_HEAD | PG_CALLBACK), 'I24', place, () => {
      return `the page at word ${page} has flags 0x${flags.toString(16)}`;
    });
    findings.expect(owner === undefined || m[page + Page.cache] === owner.ptr, 'I24', place, () => {
      return `the page at word ${page} is of the cache at word ${m[page + Page.cache]}`;
    });
    const word = m[page + Page.slabWord]!;
    const end = inuseOf(word);
    findings.expect(freelistOf(word) <= end && end <= m[page + Page.objects]!, 'I24', place, () => {
      return `callbacks of the page at word ${page} are at ${freelistOf(word)} of ${end} objects`;
    });
  }
}
