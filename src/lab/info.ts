/** A look at an arena from inside, after a short mixed load. */

import type { Arena } from '../arena.js';
import type { GroupInfo, TraceGroup } from '../cache/index.js';
import { STAT_ITEMS, type StatItem, TRYLOCK_ITEMS } from '../cpu/index.js';
import type { Finding, SlabReport } from '../debug/index.js';
import { type CacheInfo, lockStatText, perfLockContention, perfLockReport } from '../observe/index.js';
import type { Meminfo } from '../reports.js';
import { SLAB_ACCOUNT, SLAB_NO_MERGE } from '../slab/index.js';
import { type LockPolicy, type MergeMode, SlabBugError } from '../struct/index.js';
import type { LockStatRow } from '../sync/index.js';
import { checkShape, Stage } from './stage.js';
import { table } from './stats.js';

interface InfoOptions {
  bytes?: number;
  cpus?: number;
  /** Threads of the load, by default as many as CPUs; more share them, which needs lockPolicy 'op'. */
  threads?: number;
  nodes?: number;
  lockPolicy?: LockPolicy;
  /** Whether the load runs with full lock statistics. */
  locks?: boolean;
  merge?: MergeMode;
  /** `slabinfo -s`: shrink before looking, all caches or those that match. */
  shrink?: boolean;
  /** `slabinfo -v`: what validate finds in them is a problem. */
  validate?: boolean;
  /** `slab_debug` of the arena; some objects are then kept while it is looked at, so that there are traces. */
  slabDebug?: string;
  /** `slabinfo -d`: the letters of FZPUT that each cache is to have, no others. */
  debug?: string | undefined;
  /** Which caches shrink, validate and debug are for. */
  pattern?: RegExp | undefined;
}

export interface InfoReport {
  bytes: number;
  cpus: number;
  threads: number;
  nodes: number;
  meminfo: Meminfo;
  slabinfo: string;
  caches: CacheInfo[];
  /** By class; empty unless asked for. */
  locks: LockStatRow[];
  /** Memory groups, with a small task of the main thread in one. */
  groups: GroupInfo[];
  /** Of caches with SLAB_STORE_USER, by name: who allocated what is out, and who freed it before. */
  traces: Record<string, { alloc: TraceGroup[]; free: TraceGroup[] }>;
  /** What `debug` asked for and could not have. */
  refused: string[];
  findings: Finding[];
  problems: string[];
}

const OPS = 20_000;
/** Where each call may capture a stack. */
const DEBUG_OPS = 1000;
const TASK_LIMIT = 64 << 10;

/** Makes an arena, runs a short load on all CPUs, and tells what is in it then. */
export async function demoInfo(options: InfoOptions = {}): Promise<InfoReport> {
  const {
    bytes = 64 << 20,
    cpus = 2,
    threads = cpus,
    nodes = 1,
    lockPolicy = 'turn',
    locks = false,
    merge = 'off',
    slabDebug = '',
  } = options;
  checkShape(cpus, threads, nodes, lockPolicy);
  const lockStat = locks ? 'full' : 'off';
  const shared = threads > cpus ? { cpus } : {};
  const stage = new Stage({ bytes, threads, nodes, lockPolicy, lockStat, merge, slabDebug, ...shared });
  // Cookies fill a block up to its ksize, where a debug cache has the red zone of what was asked for.
  const heap = slabDebug === '' ? 'verify' : 'plain';
  const ops = slabDebug === '' ? OPS : DEBUG_OPS;
  // A page about caches, not one about every object that comes and goes.
  if (slabDebug !== '') stage.arena.onSlabReport(printFaults);
  const problems: string[] = [];
  try {
    for (const workload of ['mixed', 'batch-1000', 'larson', ...(merge === 'off' ? [] : ['kin-8'])]) {
      problems.push(...(await stage.runWorkload(workload, ops, { threads, heap })).problems);
    }
    const { arena, findings } = stage;
    problems.push(...act(arena, options));
    const refused = options.debug === undefined ? [] : switchDebug(arena, options.debug, options.pattern);
    const giveBack = slabDebug === '' ? () => {} : keepSome(arena);
    const meminfo = arena.meminfo();
    const report = {
      bytes,
      cpus,
      threads,
      nodes,
      meminfo,
      slabinfo: arena.slabinfo(),
      caches: arena.cacheInfo(),
      locks: arena.lockStat(),
      groups: chargedTask(arena),
      traces: tracesOf(arena),
      refused,
      findings,
      problems,
    };
    giveBack();
    return report;
  } finally {
    await stage.close();
  }
}

/** Shrinks and validates as asked. Returns what was wrong. */
function act(arena: Arena, { shrink = false, validate = false, pattern }: InfoOptions): string[] {
  const problems: string[] = [];
  for (const name of arena.cacheNames().filter((each) => pattern?.test(each) ?? true)) {
    if (shrink) arena.writeAttribute(name, 'shrink', '1');
    if (!validate) continue;
    try {
      arena.writeAttribute(name, 'validate', '1');
    } catch (error) {
      if (!(error instanceof SlabBugError)) throw error;
      problems.push(error.message);
    }
  }
  return problems;
}

/** Prints reports of faults; traces are left out. */
function printFaults({ kind, text }: SlabReport): void {
  if (kind !== 'trace') console.error(text);
}

/** Objects of some sizes that nobody frees before the function that is returned is called. */
function keepSome(arena: Arena): () => void {
  const blocks: number[] = [];
  for (const size of [24, 100, 100, 1000]) blocks.push(arena.kmalloc(size));
  return () => {
    for (const p of blocks) arena.kfree(p);
  };
}

function tracesOf(arena: Arena): InfoReport['traces'] {
  const tracked = arena.cacheInfo().filter(({ store_user: on }) => on === 1);
  return Object.fromEntries(
    tracked.map(({ name }) => {
      const { debug } = arena.openCache(name);
      return [name, { alloc: debug.allocTraces(), free: debug.freeTraces() }];
    }),
  );
}

const DEBUG_FILES = [
  ['F', 'sanity_checks'],
  ['Z', 'red_zone'],
  ['P', 'poison'],
  ['U', 'store_user'],
  ['T', 'trace'],
] as const;

/** Writes what differs from the letters that are wanted. Returns what could not be written, and why. */
export function switchDebug(arena: Arena, letters: string, pattern?: RegExp): string[] {
  const wanted = letters.toUpperCase().replace('A', 'FZPU');
  const caches = arena.cacheInfo().filter(({ name }) => pattern?.test(name) ?? true);
  return caches.flatMap((info) =>
    DEBUG_FILES.flatMap(([letter, file]) => {
      const on = wanted.includes(letter) ? 1 : 0;
      if (info[file] === on) return [];
      if (file === 'trace' && on === 1 && caches.length > 1)
        return [`${info.name} can only enable trace for one slab at a time`];
      try {
        arena.writeAttribute(info.name, file, String(on));
        return [];
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        return [`Cannot write to ${info.name}/${file}: ${error.message}`];
      }
    }),
  );
}

const PAGE_KIB = 4;

function meminfoText({ meminfo }: InfoReport): string {
  const row = (name: string, pages: number): [string, string] => [name, `${pages * PAGE_KIB} kB`];
  const lines: Array<[string, string]> = [
    row('MemTotal:', meminfo.totalPages),
    row('MemFree:', meminfo.freePages),
    row('MemUsed:', meminfo.usedPages),
    row('MemUsedMax:', meminfo.highWaterPages),
  ];
  const text = table(lines, [{ title: '', align: 'left' }, { title: '' }]).trimStart();
  const orders = meminfo.nodes.map(({ node, freeBlocks }) => `Node ${node}, zone   ${freeBlocks.join(' ')}`);
  return `${text}\n\nFree blocks by order, 0 to 10\n${orders.join('\n')}`;
}

/** Counters of all caches together; those that are 0 are left out. */
function countersText({ caches }: InfoReport): string {
  const sum = (item: StatItem): number => caches.reduce((total, { stats }) => total + stats[item], 0);
  const rows = STAT_ITEMS.map((item): [string, number] => [item, sum(item)]).filter(([, n]) => n > 0);
  return table(rows, [{ title: 'counter', align: 'left' }, { title: 'all caches' }]);
}

/** Caches whose sheaves were found locked by another thread, and what that came to; empty when there are none. */
function trylockText({ caches }: InfoReport): string[] {
  const rows = caches
    .filter((cache) => TRYLOCK_ITEMS.some((item) => cache[item] > 0))
    .map((cache) => [cache.name, ...TRYLOCK_ITEMS.map((item) => cache[item])]);
  if (rows.length === 0) return [];
  return [table(rows, [{ title: 'cache', align: 'left' }, ...TRYLOCK_ITEMS.map((title) => ({ title }))]), ''];
}

/** What the locks did, as three of the kernel's tools show it. */
function locksText({ locks }: InfoReport): string[] {
  if (locks.length === 0) return [];
  return [lockStatText(locks), perfLockReport(locks), perfLockContention(locks)];
}

/** What a task of some objects is charged with, while it has them. */
function chargedTask(arena: Arena): GroupInfo[] {
  const { groups } = arena;
  const cache = arena.createCache('task', { size: 96, flags: SLAB_ACCOUNT | SLAB_NO_MERGE });
  const all = groups.create('tasks', { limit: 16 << 20 });
  const task = groups.create('main', { parent: all, limit: TASK_LIMIT });
  groups.workFor(task);
  const objects: number[] = [];
  for (let p = cache.alloc(); p !== 0; p = cache.alloc()) objects.push(p);
  for (const p of objects.splice(0, objects.length >> 1)) cache.free(p);
  arena.endTurn();
  const info = groups.list();
  for (const p of objects) cache.free(p);
  cache.destroy();
  groups.workFor(null);
  for (const group of [task, all]) groups.destroy(group);
  return info;
}

function groupsText({ groups }: InfoReport): string {
  const bytes = (n: number | null): string => (n === null ? '-' : String(n));
  const rows = groups.map(({ name, parent, limit, usage, peak, failures, forced }) => [
    name,
    parent ?? '-',
    bytes(limit),
    bytes(usage),
    bytes(peak),
    failures,
    forced,
  ]);
  const titles = ['limit', 'usage', 'peak', 'failures', 'forced'].map((title) => ({ title }));
  return table(rows, [{ title: 'group', align: 'left' }, { title: 'in', align: 'left' }, ...titles]);
}

/** The report, for people. */
export function infoText(report: InfoReport): string {
  const { bytes, cpus, threads, nodes, problems } = report;
  const who =
    threads > cpus
      ? `${cpus} CPUs for ${threads} threads and the main one`
      : `${cpus} CPUs and one of the main thread`;
  const parts = [
    `An arena of ${bytes / 2 ** 20} MiB, ${who}, ${nodes} ${nodes === 1 ? 'node' : 'nodes'}, after a short load.`,
    '',
    report.slabinfo,
    meminfoText(report),
    '',
    countersText(report),
    '',
    groupsText(report),
    '',
    ...trylockText(report),
    ...locksText(report),
    ...problems.map((problem) => `UNSOUND  ${problem}`),
    ...(problems.length === 0 ? [`validate: ${report.findings.length} findings`] : []),
  ];
  return `${parts.join('\n')}\n`;
}
