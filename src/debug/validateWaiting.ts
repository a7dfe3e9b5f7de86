/** Slabs whose pages wait for a grace period: they are the cache's still, and in none of its counts. */
import type { CacheContext, KmemCache } from '../cache/index.js';
import { Page, type PageAllocator, type PagePtr, PG_PARTIAL } from '../page/index.js';
import { inuseOf, KmemCacheNode, nodeOf } from '../slab/index.js';
import type { Findings } from './finding.js';

/** Checks them, and returns the cache's other slabs. */
export function validateWaiting(
  context: CacheContext,
  cache: KmemCache,
  slabs: readonly PagePtr[],
  pages: PageAllocator,
  findings: Findings,
): PagePtr[] {
  const { m } = context.views;
  const known = new Set<number>(slabs);
  for (let node = 0; node < context.geometry.nodes; node++) {
    const n = nodeOf(m, cache.desc, node);
    const where = `${cache.name}, node ${node}`;
    let last = 0;
    for (
      let page = m[n + KmemCacheNode.rcuHead] as PagePtr;
      page !== 0;
      page = m[page + Page.next] as PagePtr
    ) {
      if (!known.delete(page) || pages.nodeOf(page) !== node) {
        findings.add('I14', where, `the list has a cycle or a page of another owner at word ${page}`);
        break;
      }
      const sound = inuseOf(m[page + Page.slabWord]!) === 0 && (m[page + Page.flags]! & PG_PARTIAL) === 0;
      findings.expect(sound, 'I14', where, () => `the slab at word ${page} has objects, or is on two lists`);
      last = page;
    }
    findings.expect(
      m[n + KmemCacheNode.rcuTail] === last,
      'I14',
      where,
      () => 'the list does not end at its tail',
    );
  }
  return slabs.filter((page) => known.has(page));
}
