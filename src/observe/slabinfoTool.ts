/**
 * The tables of the kernel's slabinfo tool, of what cacheInfo tells: rows are caches with slabs of their own, columns and
 * letters are the tool's. `Objsize` is what was asked for; `%Fr` the share of slabs on partial lists; `%Ef` the share of
 * the memory that allocated objects fill.
 */
import type { CacheDebug } from '../cache/index.js';
import { requireKnown, requireObject, requireRows } from '../struct/index.js';
import type { CacheInfo } from './slabinfo.js';
import { opsText, reportText, trackingText } from './slabinfoReport.js';
import { left, lossOf, right, spaceOf, storeSize, usedOf } from './slabinfoSizes.js';
import { totalsText } from './slabinfoTotals.js';

/** What the rows are sorted by. */
export type SlabinfoSort = 'name' | 'size' | 'activity' | 'loss' | 'partial';

/** The tool's options, with its letters. */
export interface SlabinfoOptions {
  /** `-a`: which names each cache has, instead of the table. */
  aliases?: boolean;
  /** `-1`: with aliases, a line for each name. */
  single?: boolean;
  /** `-f`: a cache that others merged into goes by the first of its names. */
  firstAlias?: boolean;
  /** `-B`: bytes, not K, M and G. */
  bytes?: boolean;
  /** `-D`: how much is allocated and freed, and how fast. */
  activity?: boolean;
  /** `-e`: empty caches alone. */
  empty?: boolean;
  /** `-z`: empty caches, too. */
  zero?: boolean;
  /** `-i`: the order turned round. */
  inverted?: boolean;
  /** `-L`: memory that holds no objects, instead of all. */
  loss?: boolean;
  /** `-n`: slabs by node. */
  numa?: boolean;
  /** `-r`: a page about each cache. */
  report?: boolean;
  /** `-S` size, `-A` activity, `-L` loss, `-P` partial slabs. By name unless given. */
  sort?: SlabinfoSort;
  /** `-t`: who allocated, and who freed, what each cache has out, from what this gives for its name. */
  tracking?: (name: string) => Pick<CacheDebug, 'allocTraces' | 'freeTraces'>;
  /** `-o`: constructor and destructor of each cache. */
  ops?: boolean;
  /** `-N K`: so many rows at most. */
  lines?: number;
  /** `-T`: sums and averages over all caches. */
  totals?: boolean;
  /** `-X`: totals, and the caches that are largest and that lose most, in bytes. */
  extended?: boolean;
  /** `-U`: without those whose memory can be reclaimed. */
  unreclaimable?: boolean;
  /** Only names that match. */
  pattern?: RegExp;
}

const KNOWN = Object.keys({
  aliases: true,
  single: true,
  firstAlias: true,
  bytes: true,
  activity: true,
  empty: true,
  zero: true,
  inverted: true,
  loss: true,
  numa: true,
  report: true,
  sort: true,
  tracking: true,
  ops: true,
  lines: true,
  totals: true,
  extended: true,
  unreclaimable: true,
  pattern: true,
} satisfies Record<keyof SlabinfoOptions, true>);

const allocsOf = ({ stats }: CacheInfo): number => stats.ALLOC_FASTPATH + stats.ALLOC_SLOWPATH;
const freesOf = ({ stats }: CacheInfo): number => stats.FREE_FASTPATH + stats.FREE_SLOWPATH;

const whole = (part: number, all: number): number => (all === 0 ? 100 : Math.floor((part * 100) / all));

/** `*` has aliases, `d` DMA, `A` aligned to cache lines, `P` poison, `a` reclaimable, `Z` red zones, `F` checks, `U` tracks, `T` trace. */
function flagLetters(s: CacheInfo): string {
  const letters: Array<[boolean, string]> = [
    [s.aliases > 0, '*'],
    [s.cache_dma === 1, 'd'],
    [s.hwcache_align === 1, 'A'],
    [s.poison === 1, 'P'],
    [s.reclaim_account === 1, 'a'],
    [s.red_zone === 1, 'Z'],
    [s.sanity_checks === 1, 'F'],
    [s.store_user === 1, 'U'],
    [s.trace === 1, 'T'],
  ];
  return letters
    .filter(([on]) => on)
    .map(([, letter]) => letter)
    .join('');
}

function shownName(s: CacheInfo, { firstAlias = false }: SlabinfoOptions): string {
  if (s.sysfs_id === s.name) return s.name;
  return firstAlias ? (s.names[0] ?? s.name) : s.name;
}

const KEYS: Readonly<Record<Exclude<SlabinfoSort, 'name'>, (s: CacheInfo) => number>> = {
  size: spaceOf,
  activity: (s) => allocsOf(s) + freesOf(s),
  loss: lossOf,
  partial: (s) => s.partial,
};

function isShown(s: CacheInfo, options: SlabinfoOptions): boolean {
  const { empty = false, zero = false, unreclaimable = false, pattern } = options;
  if (pattern !== undefined && ![s.name, s.sysfs_id, ...s.names].some((name) => pattern.test(name)))
    return false;
  if (unreclaimable && s.reclaim_account === 1) return false;
  return empty ? s.slabs === 0 : zero || s.slabs > 0;
}

/** The caches that the options ask for, in their order. */
export function selectCaches(caches: readonly CacheInfo[], options: SlabinfoOptions = {}): CacheInfo[] {
  const { sort = 'name', inverted = false, lines = Number.POSITIVE_INFINITY } = options;
  const byName = (a: CacheInfo, b: CacheInfo): number => (a.name < b.name ? -1 : 1);
  const key = sort === 'name' ? undefined : KEYS[sort];
  const order = (a: CacheInfo, b: CacheInfo): number =>
    (key === undefined ? 0 : key(b) - key(a)) || byName(a, b);
  const chosen = caches.filter((s) => isShown(s, options)).sort(order);
  if (inverted) chosen.reverse();
  return chosen.slice(0, lines);
}

/** `slabs/partial/cpu`; those of CPUs are not counted twice. */
const distribution = (s: CacheInfo): string => `${s.slabs - s.cpu_slabs}/${s.partial}/${s.cpu_slabs}`;

function tableText(caches: readonly CacheInfo[], options: SlabinfoOptions): string[] {
  const { loss = false, bytes = false } = options;
  const titles = `${left('Name', 21)} ${right('Objects', 9)} ${right('Objsize', 7)} ${right(loss ? 'Loss' : 'Space', 15)}`;
  const head = `${titles} ${right('Slabs/Part/Cpu', 15)}  O/S O %Fr %Ef Flg`;
  const rows = caches.map((s) => {
    const space = storeSize(loss ? lossOf(s) : spaceOf(s), bytes);
    const figures = `${right(s.objects, 9)} ${right(s.object_size, 7)} ${right(space, 15)} ${right(distribution(s), 15)}`;
    const shares = `${right(whole(s.partial, s.slabs), 3)} ${right(whole(usedOf(s), spaceOf(s)), 3)}`;
    const row = `${left(shownName(s, options), 21)} ${figures} ${right(s.objs_per_slab, 4)} ${s.order} ${shares} ${flagLetters(s)}`;
    return row.trimEnd();
  });
  return [head, ...rows];
}

function activityText(caches: readonly CacheInfo[], options: SlabinfoOptions): string[] {
  const head = `${left('Name', 21)} ${right('Objects', 9)} ${right('Alloc', 10)} ${right('Free', 10)}   %Fast Fallb O CmpX   UL`;
  const rows = caches
    .filter((s) => allocsOf(s) + freesOf(s) > 0)
    .map((s) => {
      const { stats } = s;
      const fast = `${right(whole(stats.ALLOC_FASTPATH, allocsOf(s)), 3)} ${right(whole(stats.FREE_FASTPATH, freesOf(s)), 3)}`;
      // UL counted a race between the two ways to a cpu slab, which no kernel has any more.
      const races = `${right(stats.ORDER_FALLBACK, 5)} ${s.order} ${right(stats.CMPXCHG_DOUBLE_FAIL, 4)} ${right(0, 4)}`;
      return `${left(shownName(s, options), 21)} ${right(s.objects, 9)} ${right(allocsOf(s), 10)} ${right(freesOf(s), 10)} ${fast} ${races}`;
    });
  return [head, ...rows];
}

function aliasText(caches: readonly CacheInfo[], { single = false }: SlabinfoOptions): string[] {
  return caches.flatMap((s) => {
    if (single) return s.names.map((name) => `${left(name, 21)} -> ${s.sysfs_id}`);
    return s.names.length > 1 ? [`${left(s.sysfs_id, 21)} <- ${s.names.join(' ')}`] : [];
  });
}

function numaText(caches: readonly CacheInfo[], options: SlabinfoOptions): string[] {
  const nodes = caches[0]?.nodes.length ?? 0;
  const titles = Array.from({ length: nodes }, (_, node) => right(`Node ${node}`, 10));
  const head = `${left('NUMA nodes', 21)}:${titles.join('')}`;
  const rows = caches.flatMap((s) => {
    const line = (title: string, of: (node: CacheInfo['nodes'][number]) => number): string =>
      `${left(title, 21)} ${s.nodes.map((node) => right(of(node), 10)).join('')}`;
    return [
      line(shownName(s, options), ({ slabs }) => slabs),
      ...(s.partial > 0 ? [line('  Partial slabs', ({ partial }) => partial)] : []),
    ];
  });
  return [head, ...rows];
}

function extendedText(caches: readonly CacheInfo[], options: SlabinfoOptions): string[] {
  const { lines = 1, ...rest } = options;
  const top = (sort: SlabinfoSort, title: string, loss: boolean): string[] => {
    const chosen = selectCaches(caches, { ...rest, sort, lines });
    return ['', title, '-'.repeat(title.length), ...tableText(chosen, { ...rest, loss, bytes: true })];
  };
  return [
    ...totalsText(selectCaches(caches, rest), { bytes: true }),
    ...top('size', 'Slabs sorted by size', false),
    ...top('loss', 'Slabs sorted by loss', true),
  ];
}

/**
 * The text that slabinfo would print.
 * @example
 * console.log(slabinfoTool(arena.cacheInfo(), { sort: 'loss', lines: 5 }));
 * console.log(slabinfoTool(arena.cacheInfo(), { tracking: (name) => arena.openCache(name).debug }));
 */
export function slabinfoTool(caches: readonly CacheInfo[], options: SlabinfoOptions = {}): string {
  requireRows('caches', caches);
  requireObject('options', options);
  requireKnown('options', options, KNOWN);
  const chosen = selectCaches(caches, options);
  let lines: string[];
  if (options.extended) lines = extendedText(caches, options);
  else if (options.totals) lines = totalsText(chosen, options);
  else if (options.aliases || options.single)
    lines = aliasText(selectCaches(caches, { zero: true, ...options }), options);
  else if (options.report)
    lines = chosen.flatMap((s) => [
      ...reportText(s, flagLetters(s), options.bytes ?? false),
      ...(options.tracking === undefined ? [] : trackingText(s, options.tracking)),
      ...numaText([s], options),
      '',
    ]);
  else if (options.tracking !== undefined) {
    const { tracking } = options;
    lines = chosen.flatMap((s) => trackingText(s, tracking));
  } else if (options.ops) lines = chosen.map(opsText);
  else if (options.numa) lines = numaText(chosen, options);
  else if (options.activity) lines = activityText(chosen, options);
  else lines = tableText(chosen, options);
  return `${lines.join('\n')}\n`;
}
