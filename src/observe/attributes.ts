/**
 * The files of /sys/kernel/slab/<cache>, as text that is read and written. A cache goes by any of its names, and by its
 * id. What the kernel answers with -EINVAL or -ERANGE is a RangeError that says what would be right.
 */
import type { Caches, KmemCache } from '../cache/index.js';
import { countersOf, STAT_ITEMS, Stat, type StatItem } from '../cpu/index.js';
import { type Finding, validateSlabCache } from '../debug/index.js';
import { KmemCacheStruct, SLAB_DEBUG_FLAGS, SLAB_TRACE } from '../slab/index.js';
import { optionError, requireString, SlabBugError } from '../struct/index.js';
import { type CacheInfo, cacheInfo } from './slabinfo.js';

const NUMBERS = [
  'slab_size',
  'object_size',
  'align',
  'objs_per_slab',
  'order',
  'sheaf_capacity',
  'min_partial',
  'cpu_partial',
  'slabs_cpu_partial',
  'objects',
  'aliases',
  'hwcache_align',
  'reclaim_account',
  'destroy_by_rcu',
  'cache_dma',
  'sanity_checks',
  'trace',
  'red_zone',
  'poison',
  'store_user',
  'failslab',
  'ctor',
  'dtor',
  'usersize',
  'remote_node_defrag_ratio',
] as const satisfies ReadonlyArray<keyof CacheInfo>;

/** Why these cannot be switched while a cache is in use; the kernel has given it up, too. */
const FIXED: Readonly<Record<string, string>> = {
  sanity_checks: 'slabs that failed a check are kept apart by it',
  red_zone: 'it is a part of the layout',
  poison: 'it is a part of the layout',
  store_user: 'it is a part of the layout',
  failslab: 'handles of the cache are of another class',
};

/** Sums with a part for each node: `12 N0=5 N1=7`. */
const BY_NODE = {
  slabs: 'slabs',
  partial: 'partial',
  total_objects: 'total_objects',
  objects_partial: 'objects_partial',
} as const satisfies Record<string, keyof CacheInfo['nodes'][number]>;

const STAT_FILES: ReadonlyMap<string, StatItem> = new Map(
  STAT_ITEMS.map((item) => [item.toLowerCase(), item]),
);

/** A file that has been found: how it is read and, unless it is read-only, written. */
interface Attribute {
  read(info: CacheInfo): string;
  write?(value: string): void;
}

/** The report of what validate found in a cache. */
function corrupt(cache: string, findings: readonly Finding[]): SlabBugError {
  const { invariant, where, what } = findings[0]!;
  return new SlabBugError(
    'corrupt',
    cache,
    0,
    `validate found ${findings.length} faults, the first: ${invariant}, ${where}: ${what}`,
  );
}

function parseCount(file: string, text: string, max: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= max)) throw optionError(file, text, `a whole number from 0 to ${max}`);
  return value;
}

function mustBeOne(file: string, text: string): void {
  if (text !== '1') throw optionError(file, text, '1, which does it');
}

function statFile({ views, geometry }: Caches, cache: KmemCache, item: StatItem): Attribute {
  const at = (thread: number): number => countersOf(geometry, thread, cache.desc.slot) + Stat[item];
  return {
    read: ({ stats }) => {
      const parts: string[] = [];
      for (let thread = 0; thread < geometry.threads; thread++) {
        const count = views.f64[at(thread)]!;
        if (count !== 0) parts.push(` C${thread}=${count}`);
      }
      return `${stats[item]}${parts.join('')}`;
    },
    write: (text) => {
      if (!text.startsWith('0')) throw optionError(item.toLowerCase(), text, '0, which clears it');
      // Racy by what threads count meanwhile, as the kernel's.
      for (let thread = 0; thread < geometry.threads; thread++) views.f64[at(thread)] = 0;
    },
  };
}

function byNode(file: keyof typeof BY_NODE): Attribute {
  return {
    read: (info) => {
      const parts = info.nodes.map((node, i) =>
        node[BY_NODE[file]] > 0 ? ` N${i}=${node[BY_NODE[file]]}` : '',
      );
      return `${info[file]}${parts.join('')}`;
    },
  };
}

/** What is done by writing; reading tells nothing. */
const action = (file: string, act: () => void): Attribute => ({
  read: () => '',
  write: (text) => {
    mustBeOne(file, text);
    act();
  },
});

function settable(caches: Caches, cache: KmemCache, file: string): ((text: string) => void) | undefined {
  const { m } = caches.views;
  switch (file) {
    case 'min_partial':
      return (text) => {
        cache.minPartial = parseCount(file, text, 0x7fffffff);
      };
    case 'cpu_partial':
      return (text) => {
        if (parseCount(file, text, 0x7fffffff) !== 0) throw optionError(file, text, '0');
      };
    case 'remote_node_defrag_ratio':
      return (text) => {
        m[cache.desc.ptr + KmemCacheStruct.defragRatio] = parseCount(file, text, 100) * 10;
      };
    case 'trace':
      return (text) => setTrace(caches, cache, text);
    default:
      return undefined;
  }
}

/** Of a debug cache, which stays one: what is not debugged goes other ways, past where traces are written. */
function setTrace(caches: Caches, { name, desc }: KmemCache, text: string): void {
  const { m } = caches.views;
  const on = parseCount('trace', text, 1) === 1;
  if ((desc.flags & SLAB_DEBUG_FLAGS & ~SLAB_TRACE) === 0) {
    throw new RangeError(
      `trace of cache ${name} cannot be switched: it needs another debug flag, which it has from its start`,
    );
  }
  const at = desc.ptr + KmemCacheStruct.flags;
  // Under slab_mutex nobody else writes it. Who allocates or frees meanwhile may or may not see it.
  caches.withSlabMutex(() => {
    m[at] = on ? m[at]! | SLAB_TRACE : m[at]! & ~SLAB_TRACE;
  });
}

function attribute(caches: Caches, cache: KmemCache, file: string): Attribute {
  const stat = STAT_FILES.get(file);
  if (stat !== undefined) return statFile(caches, cache, stat);
  if (Object.hasOwn(BY_NODE, file)) return byNode(file as keyof typeof BY_NODE);
  if (file === 'shrink') return action(file, () => cache.shrink());
  if (file === 'validate') {
    return action(file, () => {
      caches.cpu.endTurn();
      const findings = validateSlabCache(caches, cache);
      if (findings.length > 0) throw corrupt(cache.name, findings);
    });
  }
  const number = NUMBERS.find((known) => known === file);
  if (number === undefined) throw optionError('file', file, `one of ${attributeFiles().join(', ')}`);
  const write = settable(caches, cache, file);
  return { read: (info) => String(info[number]), ...(write === undefined ? {} : { write }) };
}

/** Names of all files, sorted. */
export function attributeFiles(): string[] {
  return [...NUMBERS, ...Object.keys(BY_NODE), ...STAT_FILES.keys(), 'shrink', 'validate'].sort();
}

/** The handle for a name or an id. Throws as openCache does. */
function find(caches: Caches, name: string): KmemCache {
  requireString('name', name);
  const byId = name.startsWith(':')
    ? caches.withSlabMutex(() => caches.all().find((cache) => cacheInfo(caches, cache).sysfs_id === name))
    : undefined;
  return (byId ?? caches.open(name)).primary;
}

/** Reads a file, without a line feed at its end. */
export function readAttribute(caches: Caches, name: string, file: string): string {
  const cache = find(caches, name);
  const found = attribute(caches, cache, file);
  return found.read(caches.withSlabMutex(() => cacheInfo(caches, cache)));
}

/** Writes a file; white space around the text is nothing. */
export function writeAttribute(caches: Caches, name: string, file: string, text: string): void {
  if (typeof text !== 'string') throw new TypeError(`text is ${typeof text}; it must be a string`);
  const { write } = attribute(caches, find(caches, name), file);
  if (write === undefined) {
    const why = Object.hasOwn(FIXED, file) ? `: ${FIXED[file]}; slabDebug of Arena.create sets it` : '';
    throw new RangeError(`${file} is read-only${why}`);
  }
  write(text.trim());
}
