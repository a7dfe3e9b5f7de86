/** Pages: every free block is on its list once, nothing overlaps, and the counts agree. */
import type { CacheContext } from '../cache/index.js';
import {
  NR_PAGE_ORDERS,
  orderOf,
  Page,
  type PagePtr,
  PG_BUDDY,
  PG_HEAD,
  PG_TAIL,
  pageToPfn,
  pfnToPage,
  Zone,
  zoneOf,
} from '../page/index.js';
import type { Findings } from './finding.js';

const hex = (pfn: number): string => `page 0x${(pfn << 12).toString(16)}`;

export function validatePages(context: CacheContext, findings: Findings): void {
  for (let node = 0; node < context.geometry.nodes; node++) {
    const listed = walkFreeAreas(context, node, findings);
    walkPages(context, node, listed, findings);
  }
}

/** Page frame numbers of the blocks on the free lists, with their order. */
function walkFreeAreas(context: CacheContext, node: number, findings: Findings): Map<number, number> {
  const { geometry, views } = context;
  const { m } = views;
  const zone = zoneOf(geometry, node);
  const where = `zone ${node}`;
  const listed = new Map<number, number>();
  for (let order = 0; order < NR_PAGE_ORDERS; order++) {
    let length = 0;
    let prev = 0;
    for (
      let page = m[zone + Zone.freeArea + order] as PagePtr;
      page !== 0;
      page = m[page + Page.next] as PagePtr
    ) {
      const pfn = pageToPfn(geometry, page);
      if (!Number.isInteger(pfn) || pfn < m[zone + Zone.startPfn]! || pfn >= m[zone + Zone.endPfn]!) {
        findings.add('PAGES', where, `free area ${order} leads out of the zone to word ${page}`);
        break;
      }
      if (listed.has(pfn)) {
        findings.add('PAGES', where, `${hex(pfn)} is on two free lists, or its list is a cycle`);
        break;
      }
      listed.set(pfn, order);
      const flags = m[page + Page.flags]!;
      findings.expect((flags & PG_BUDDY) !== 0 && orderOf(flags) === order, 'PAGES', where, () => {
        return `${hex(pfn)} on free area ${order} has flags 0x${flags.toString(16)}`;
      });
      findings.expect(
        m[page + Page.prev] === prev,
        'PAGES',
        where,
        () => `${hex(pfn)} has a wrong back link`,
      );
      findings.expect(
        pfn % (1 << order) === 0,
        'PAGES',
        where,
        () => `${hex(pfn)} is not aligned to order ${order}`,
      );
      prev = page;
      length++;
    }
    findings.expect(m[zone + Zone.nrFreeArea + order] === length, 'PAGES', where, () => {
      return `free area ${order} has ${length} blocks, its count says ${m[zone + Zone.nrFreeArea + order]}`;
    });
  }
  return listed;
}

/** Steps from block to block: each is a free one that is listed, or an allocated one with its tails. */
function walkPages(
  context: CacheContext,
  node: number,
  listed: Map<number, number>,
  findings: Findings,
): void {
  const { geometry, views } = context;
  const { m } = views;
  const zone = zoneOf(geometry, node);
  const where = `zone ${node}`;
  let free = 0;
  for (let pfn = m[zone + Zone.startPfn]!; pfn < m[zone + Zone.endPfn]!; ) {
    const page = pfnToPage(geometry, pfn);
    const flags = m[page + Page.flags]!;
    const pages = 1 << orderOf(flags);
    if ((flags & PG_BUDDY) !== 0) {
      findings.expect(listed.has(pfn), 'PAGES', where, () => `${hex(pfn)} is marked free but on no list`);
      free += pages;
    } else if ((flags & PG_HEAD) !== 0) {
      for (let i = 1; i < pages; i++) {
        const tail = page + i * Page.SIZEOF;
        findings.expect(
          (m[tail + Page.flags]! & PG_TAIL) !== 0 && m[tail + Page.head] === page,
          'PAGES',
          where,
          () => `${hex(pfn + i)} is no tail of the block at ${hex(pfn)}`,
        );
      }
    } else {
      findings.add('PAGES', where, `${hex(pfn)} is neither free nor allocated`);
      pfn++;
      continue;
    }
    pfn += pages;
  }
  findings.expect(m[zone + Zone.nrFree] === free, 'PAGES', where, () => {
    return `${free} pages are free, the count says ${m[zone + Zone.nrFree]}`;
  });
}
