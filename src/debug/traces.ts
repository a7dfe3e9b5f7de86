/** alloc_traces and free_traces: the allocated objects of a cache by who allocated them, or freed them before. */
import type { Caches, TraceGroup } from '../cache/index.js';
import { Page, type PagePtr } from '../page/index.js';
import {
  type CacheDesc,
  KmemCacheNode,
  listLock,
  nodeOf,
  now,
  origSize,
  readTrack,
  type Track,
  type TrackId,
  tracksOrigSize,
} from '../slab/index.js';
import { LockClass } from '../sync/index.js';

interface Sample {
  node: number;
  /** undefined: nobody has done it to this object yet. */
  track: Track | undefined;
  waste: number;
}

export function groupTraces(
  caches: Caches,
  s: CacheDesc,
  which: TrackId,
  framesOf: (handle: number) => string[],
): TraceGroup[] {
  const samples: Sample[] = [];
  for (let node = 0; node < s.nodes; node++) collect(caches, s, node, which, samples);
  const groups = new Map<string, { stack: string[]; samples: Sample[] }>();
  for (const sample of samples) {
    const stack = framesOf(sample.track?.stack ?? 0);
    const key = `${sample.waste} ${stack.join('\n')}`;
    const group = groups.get(key) ?? { stack, samples: [] };
    group.samples.push(sample);
    groups.set(key, group);
  }
  const keepsSize = tracksOrigSize(s.flags);
  return [...groups.values()]
    .map(({ stack, samples: of }) => summarise(stack, of, keepsSize))
    .sort((a, b) => b.count - a.count);
}

/** The allocated objects of a node; takes list_lock, under which nobody allocates or frees in a debug cache. */
function collect(caches: Caches, s: CacheDesc, node: number, which: TrackId, samples: Sample[]): void {
  const { m, f64 } = caches.views;
  const { checks } = caches.slabs;
  const { locks } = caches.cpu;
  const n = nodeOf(m, s, node);
  locks.lock(listLock(n), LockClass.ListLock);
  try {
    for (const list of [KmemCacheNode.head, KmemCacheNode.full]) {
      for (let page = m[n + list] as PagePtr; page !== 0; page = m[page + Page.next] as PagePtr) {
        const free = checks.onFreelist(s, page, 0) ? checks.freeIndices(s, page) : new Set<number>();
        for (let i = 0; i < m[page + Page.objects]!; i++) {
          if (free.has(i)) continue;
          const p = checks.objectAt(s, page, i);
          const waste = s.objectSize - origSize(m, s, p);
          samples.push({ node, track: readTrack(m, f64, s, p, which), waste });
        }
      }
    }
  } finally {
    locks.unlock(listLock(n), LockClass.ListLock);
  }
  checks.sink.flush();
}

const sorted = (values: number[]): number[] => [...new Set(values)].sort((a, b) => a - b);

function summarise(stack: string[], samples: Sample[], keepsSize: boolean): TraceGroup {
  const at = now();
  const tracks = samples.flatMap(({ track }) => (track === undefined ? [] : [track]));
  const ages = tracks.map(({ when }) => Math.max(0, at - when));
  const tids = sorted(tracks.map(({ tid }) => tid));
  return {
    count: samples.length,
    stack,
    ...(keepsSize ? { waste: samples[0]!.waste } : {}),
    age: {
      min: Math.min(...ages, Number.POSITIVE_INFINITY),
      average: ages.reduce((sum, age) => sum + age, 0) / Math.max(1, ages.length),
      max: Math.max(...ages, 0),
    },
    tids: { min: tids[0] ?? 0, max: tids.at(-1) ?? 0 },
    cpus: sorted(tracks.map(({ cpu }) => cpu)),
    nodes: sorted(samples.map(({ node }) => node)),
  };
}
