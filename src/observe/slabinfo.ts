/** What a cache is and does, under the kernel's names: /proc/slabinfo and the files of /sys/kernel/slab. */
import { barnFigures, type Caches, definitionOf, type KmemCache, namesOf, sysfsId } from '../cache/index.js';
import { CpuSlab, pcsOf, type Stats, type TrylockStats } from '../cpu/index.js';
import { Page } from '../page/index.js';
import {
  type CacheDesc,
  inuseOf,
  KmemCacheNode,
  KmemCacheStruct,
  nodeOf,
  SLAB_CACHE_DMA,
  SLAB_CONSISTENCY_CHECKS,
  SLAB_CTOR,
  SLAB_DTOR,
  SLAB_FAILSLAB,
  SLAB_HWCACHE_ALIGN,
  SLAB_POISON,
  SLAB_RECLAIM_ACCOUNT,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TRACE,
  SLAB_TYPESAFE_BY_RCU,
} from '../slab/index.js';
import type { Layer } from '../struct/index.js';

/** Attributes by their sysfs names, and the 26 counters; then what the kernel does not count, by names of our own. */
export interface CacheInfo extends TrylockStats {
  name: string;
  /** Bytes of an object as it was asked for, and from one to the next. */
  object_size: number;
  slab_size: number;
  /** Bytes. */
  align: number;
  /** A slab has 2^order pages. */
  order: number;
  objs_per_slab: number;
  /** Objects in a sheaf; 0 without sheaves. */
  sheaf_capacity: number;
  layer: Layer;
  /** Objects in the array of a CPU, in the layer `percpu-array`. */
  array_size: number;
  /** Empty slabs that a node keeps. */
  min_partial: number;
  /** Slabs there are. */
  slabs: number;
  /** Slabs on partial lists. */
  partial: number;
  /** Objects on these that are allocated. */
  objects_partial: number;
  /** Objects that there is room for in its slabs. */
  total_objects: number;
  /** Allocated, in the kernel's sense: objects in sheaves count. */
  objects: number;
  /** Full and empty sheaves in the barns of all nodes. */
  barn_full: number;
  barn_empty: number;
  /** Flags that it was made with. */
  hwcache_align: 0 | 1;
  reclaim_account: 0 | 1;
  cache_dma: 0 | 1;
  /** Debugging: F, T, Z, P, U and A of slab_debug. */
  sanity_checks: 0 | 1;
  trace: 0 | 1;
  red_zone: 0 | 1;
  poison: 0 | 1;
  store_user: 0 | 1;
  failslab: 0 | 1;
  /** Reports about the cache, repairs included. */
  slab_errors: number;
  /** SLAB_TYPESAFE_BY_RCU. */
  destroy_by_rcu: 0 | 1;
  /** Names of the constructor and the destructor, `name [slab]` for the batching forms; empty without. Seed 001. */
  ctor: string;
  dtor: string;
  /** Other names that use this cache's slabs. */
  aliases: number;
  /** `:` and what it may merge by, or its name when it may not. */
  sysfs_id: string;
  /** Its own name, and those of caches that merged into it, sorted; a hidden one has only those. */
  names: string[];
  /** Bytes of an object that may be copied in and out of a hardened arena. */
  usersize: number;
  remote_node_defrag_ratio: number;
  /** Objects that a CPU may have on its partial slabs; 0 without cpu slabs, as in kernels from 7.0 on. */
  cpu_partial: number;
  /** Slabs on cpu partial lists, and the objects that makes at half a slab each: `3(24)`. */
  slabs_cpu_partial: string;
  /** Slabs that CPUs have: cpu slabs, and those on cpu partial lists. */
  cpu_slabs: number;
  /** Slabs and objects by node. */
  nodes: NodeInfo[];
  /** The 26 counters. */
  stats: Stats;
  /** What the layer counts beyond the 26. */
  layer_stats: Record<string, number>;
}

/** The part of a cache that lies on one node; counts of slabs and objects. */
export interface NodeInfo {
  slabs: number;
  partial: number;
  total_objects: number;
  objects_partial: number;
}

interface NodeSums {
  slabs: number;
  total: number;
  partial: number;
  partialInuse: number;
  partialFree: number;
}

/** One node; racy by what happens meanwhile. */
function nodeSums(caches: Caches, cache: KmemCache, node: number): NodeSums {
  const { m } = caches.views;
  const n = nodeOf(m, cache.desc, node);
  let left = m[n + KmemCacheNode.nrPartial]!;
  const slabs = m[n + KmemCacheNode.nrSlabs]!;
  const sums = {
    slabs,
    total: m[n + KmemCacheNode.totalObjects]!,
    partial: left,
    partialInuse: 0,
    partialFree: 0,
  };
  for (let page = m[n + KmemCacheNode.head]!; page !== 0 && left-- > 0; page = m[page + Page.next]!) {
    const inuse = inuseOf(m[page + Page.slabWord]!);
    sums.partialInuse += inuse;
    sums.partialFree += m[page + Page.objects]! - inuse;
  }
  return sums;
}

function eachNode(caches: Caches, cache: KmemCache): NodeSums[] {
  return Array.from({ length: caches.geometry.nodes }, (_, node) => nodeSums(caches, cache, node));
}

function sumNodes(nodes: readonly NodeSums[]): NodeSums {
  const sums = { slabs: 0, total: 0, partial: 0, partialInuse: 0, partialFree: 0 };
  for (const node of nodes)
    for (const key of Object.keys(sums) as Array<keyof NodeSums>) sums[key] += node[key];
  return sums;
}

export function cacheInfo(caches: Caches, cache: KmemCache): CacheInfo {
  const each = eachNode(caches, cache);
  const sums = sumNodes(each);
  const barns = barnFigures(caches, cache);
  const word = (field: number): number => caches.views.m[cache.desc.ptr + field]!;
  const flag = (bit: number): 0 | 1 => ((cache.desc.flags & bit) !== 0 ? 1 : 0);
  return {
    name: cache.name,
    object_size: cache.objectSize,
    slab_size: cache.size,
    align: cache.desc.align,
    order: cache.order,
    objs_per_slab: cache.objsPerSlab,
    sheaf_capacity: cache.sheafCapacity,
    layer: cache.layer,
    array_size: word(KmemCacheStruct.arraySize),
    min_partial: cache.minPartial,
    slabs: sums.slabs,
    partial: sums.partial,
    objects_partial: sums.partialInuse,
    total_objects: sums.total,
    objects: sums.total - sums.partialFree,
    barn_full: barns.full,
    barn_empty: barns.empty,
    hwcache_align: flag(SLAB_HWCACHE_ALIGN),
    reclaim_account: flag(SLAB_RECLAIM_ACCOUNT),
    cache_dma: flag(SLAB_CACHE_DMA),
    sanity_checks: flag(SLAB_CONSISTENCY_CHECKS),
    // The one that can be switched, by any thread.
    trace: (word(KmemCacheStruct.flags) & SLAB_TRACE) === 0 ? 0 : 1,
    red_zone: flag(SLAB_RED_ZONE),
    poison: flag(SLAB_POISON),
    store_user: flag(SLAB_STORE_USER),
    failslab: flag(SLAB_FAILSLAB),
    slab_errors: word(KmemCacheStruct.errors),
    ...callbackNames(cache.desc),
    destroy_by_rcu: flag(SLAB_TYPESAFE_BY_RCU),
    ...callbackNames(cache.desc),
    aliases: Math.max(word(KmemCacheStruct.refcount) - 1, 0),
    sysfs_id: sysfsId(caches, cache.desc.ptr, cache.name),
    names: namesOf(caches, cache),
    usersize: cache.desc.usersize,
    remote_node_defrag_ratio: word(KmemCacheStruct.defragRatio) / 10,
    ...cpuSlabFigures(caches, cache),
    nodes: each.map(({ slabs, partial, total, partialInuse }) => ({
      slabs,
      partial,
      total_objects: total,
      objects_partial: partialInuse,
    })),
    stats: cache.stats(),
    ...cache.trylockStats(),
    layer_stats: cache.layerStats(),
  };
}

/** As /sys/kernel/slab prints the functions' symbols. */
function callbackNames(desc: CacheDesc): Pick<CacheInfo, 'ctor' | 'dtor'> {
  const code = definitionOf(desc.name)?.definition;
  const name = (flag: number, one?: { name: string }, slab?: { name: string }): string => {
    if ((desc.flags & flag) === 0) return '';
    return one?.name ?? (slab === undefined ? '(not imported)' : `${slab.name} [slab]`);
  };
  return {
    ctor: name(SLAB_CTOR, code?.ctor, code?.ctorSlab),
    dtor: name(SLAB_DTOR, code?.dtor, code?.dtorSlab),
  };
}

type CpuSlabFigures = Pick<CacheInfo, 'cpu_partial' | 'slabs_cpu_partial' | 'cpu_slabs'>;

/** Adds up the CPUs; racy by what happens meanwhile. */
function cpuSlabFigures({ views, geometry }: Caches, { desc }: KmemCache): CpuSlabFigures {
  let cpuSlabs = 0;
  let partial = 0;
  for (let cpu = 0; cpu < geometry.cpus && desc.layer === 'cpu-slab'; cpu++) {
    const c = pcsOf(geometry, cpu, desc.slot);
    if (views.m[c + CpuSlab.slabStart] !== 0) cpuSlabs++;
    partial += views.m[c + CpuSlab.nrPartial]!;
  }
  const objects = Math.floor((partial * desc.objects) / 2);
  return {
    cpu_partial: desc.cpuPartial,
    slabs_cpu_partial: `${partial}(${objects})`,
    cpu_slabs: cpuSlabs + partial,
  };
}

const HEADER =
  'slabinfo - version: 2.1\n' +
  '# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>' +
  ' : tunables <limit> <batchcount> <sharedfactor>' +
  ' : slabdata <active_slabs> <num_slabs> <sharedavail>\n';

/** The text of /proc/slabinfo, to the column, so that scripts for it work. */
export function slabinfo(caches: Caches): string {
  const n = (value: number): string => String(value).padStart(6);
  const lines = caches.all().map((cache) => {
    const { slabs, total, partialFree } = sumNodes(eachNode(caches, cache));
    const objects = `${n(total - partialFree)} ${n(total)} ${n(cache.size)}`;
    const perSlab = `${String(cache.objsPerSlab).padStart(4)} ${String(1 << cache.order).padStart(4)}`;
    const tunables = ' : tunables    0    0    0';
    return `${cache.name.padEnd(17)} ${objects} ${perSlab}${tunables} : slabdata ${n(slabs)} ${n(slabs)} ${n(0)}`;
  });
  return `${HEADER}${lines.join('\n')}\n`;
}
