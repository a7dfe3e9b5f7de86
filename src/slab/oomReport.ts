/** The report of an object for which there was no memory. Kernel: `slab_out_of_memory`. */
import type { ThisCpu } from '../cpu/index.js';
import { gfpNames, NUMA_NO_NODE, Page, type PageAllocator } from '../page/index.js';
import { LockClass } from '../sync/index.js';
import { type CacheDesc, KmemCacheNode, listLock, nodeOf } from './kmemCache.js';
import { inuseOf } from './slabWord.js';

/** Free objects on a node's partial list. Takes list_lock. Kernel: `count_partial` with `count_free`. */
function countFree({ m, locks }: ThisCpu, s: CacheDesc, node: number): number {
  const n = nodeOf(m, s, node);
  let free = 0;
  locks.lock(listLock(n), LockClass.ListLock);
  try {
    for (let page = m[n + KmemCacheNode.head]!; page !== 0; page = m[page + Page.next]!) {
      free += m[page + Page.objects]! - inuseOf(m[page + Page.slabWord]!);
    }
  } finally {
    locks.unlock(listLock(n), LockClass.ListLock);
  }
  return free;
}

/** Who wanted what from which cache, and what each node has of it. No lock is held. */
export function oomReport(
  cpu: ThisCpu,
  pages: PageAllocator,
  s: CacheDesc,
  gfp: number,
  node: number = NUMA_NO_NODE,
): string {
  const { m } = cpu;
  const where = node === NUMA_NO_NODE ? 'any node' : `node ${node}`;
  const lines = [
    `out of memory: CPU ${cpu.id} of node ${cpu.node} wanted an object of ${s.name} on ${where}, ` +
      `gfp 0x${gfp.toString(16)} (${gfpNames(gfp)})`,
    `  cache ${s.name}: object size ${s.objectSize}, stride ${s.size}, order ${s.order}, least order ${s.minOrder}`,
  ];
  for (let id = 0; id < s.nodes; id++) {
    const n = nodeOf(m, s, id);
    const [slabs, objects] = [m[n + KmemCacheNode.nrSlabs]!, m[n + KmemCacheNode.totalObjects]!];
    lines.push(`  node ${id}: ${slabs} slabs, ${objects} objects, ${countFree(cpu, s, id)} free`);
  }
  return [...lines, ...pages.describeZones()].join('\n');
}
