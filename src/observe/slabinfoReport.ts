/** What `slabinfo -r`, `-t` and `-o` tell of one cache. */
import type { CacheDebug } from '../cache/index.js';
import { formatTraces } from '../debug/index.js';
import type { CacheInfo } from './slabinfo.js';
import { left, lossOf, right, slabBytes, spaceOf, storeSize, usedOf } from './slabinfoSizes.js';

type Traces = Pick<CacheDebug, 'allocTraces' | 'freeTraces'>;

const onOff = (flag: 0 | 1): string => left(flag === 1 ? 'On' : 'Off', 5);

/** Sizes, slabs, debugging and memory beside each other, then the counters. */
export function reportText(s: CacheInfo, flags: string, inBytes: boolean): string[] {
  const size = (value: number): string => right(storeSize(value, inBytes), 8);
  const n = (value: number): string => right(value, 8);
  const used = s.objects * s.slab_size;
  const padding = s.slabs * (slabBytes(s) - s.objs_per_slab * s.slab_size);
  const line = (...parts: string[]): string => parts.join('').trimEnd();
  return [
    `Slabcache: ${s.name}  Id: ${s.sysfs_id}  Aliases: ${s.aliases}  Order: ${s.order}  Objects: ${s.objects}`,
    `Names: ${s.names.join(' ')}  Layer: ${s.layer}  Flags: ${flags || '-'}`,
    '',
    'Sizes (bytes)       Slabs               Debug                  Memory',
    '---------------------------------------------------------------------------',
    line(
      `Object : ${n(s.object_size)}   Total  : ${n(s.slabs)}   Sanity Checks : ${onOff(s.sanity_checks)}  Total: ${size(spaceOf(s))}`,
    ),
    line(
      `SlabObj: ${n(s.slab_size)}   Full   : ${n(s.slabs - s.partial - s.cpu_slabs)}   Redzoning     : ${onOff(s.red_zone)}  Used : ${size(usedOf(s))}`,
    ),
    line(
      `SlabSiz: ${n(slabBytes(s))}   Partial: ${n(s.partial)}   Poisoning     : ${onOff(s.poison)}  Loss : ${size(lossOf(s))}`,
    ),
    line(
      `Loss   : ${n(s.slab_size - s.object_size)}   CpuSlab: ${n(s.cpu_slabs)}   Tracking      : ${onOff(s.store_user)}  Lalig: ${size(used - usedOf(s))}`,
    ),
    line(
      `Align  : ${n(s.align)}   Objects: ${n(s.objs_per_slab)}   Tracing       : ${onOff(s.trace)}  Lpadd: ${size(padding)}`,
    ),
    '',
    ...Object.entries(s.stats)
      .filter(([, value]) => value > 0)
      .map(([item, value]) => `${left(item, 24)} ${right(value, 12)}`),
    '',
  ];
}

/** Who allocated what is out, and who freed those objects before. Only a cache with SLAB_STORE_USER knows. */
export function trackingText(s: CacheInfo, tracking: (name: string) => Traces): string[] {
  const traces = s.store_user === 1 ? tracking(s.name) : undefined;
  const part = (title: string, text: string): string[] => [
    '',
    `${s.name}: ${title}`,
    '-'.repeat(71),
    ...text.trimEnd().split('\n'),
  ];
  return [
    ...part('Kernel object allocation', formatTraces(traces?.allocTraces() ?? [])),
    ...part('Kernel object freeing', formatTraces(traces?.freeTraces() ?? [])),
  ];
}

export function opsText({ name, ctor, dtor }: CacheInfo): string {
  const ops = [ctor === '' ? '' : `ctor ${ctor}`, dtor === '' ? '' : `dtor ${dtor}`].filter(
    (op) => op !== '',
  );
  return `${name} ${ops.length === 0 ? 'has no kmem_cache operations' : `: ${ops.join(', ')}`}`;
}
