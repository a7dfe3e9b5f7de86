/** A look at an arena from inside, after a short mixed load. */
import type { Meminfo } from '../arena.js';
import { STAT_ITEMS, type StatItem } from '../cpu/index.js';
import type { Finding } from '../debug/index.js';
import type { CacheInfo } from '../observe/index.js';
import { Stage } from './stage.js';
import { table } from './stats.js';

export interface InfoOptions {
  bytes?: number;
  cpus?: number;
  nodes?: number;
}

export interface InfoReport {
  bytes: number;
  cpus: number;
  nodes: number;
  meminfo: Meminfo;
  slabinfo: string;
  caches: CacheInfo[];
  findings: Finding[];
  problems: string[];
}

const OPS = 20_000;

/** Makes an arena, runs a short load on all CPUs, and tells what is in it then. */
export async function demoInfo(options: InfoOptions = {}): Promise<InfoReport> {
  const { bytes = 64 << 20, cpus = 2, nodes = 1 } = options;
  const stage = new Stage({ bytes, threads: cpus, nodes });
  const problems: string[] = [];
  try {
    for (const workload of ['mixed', 'batch-1000', 'larson']) {
      problems.push(...(await stage.runWorkload(workload, OPS, { threads: cpus, heap: 'verify' })).problems);
    }
    const { arena, findings } = stage;
    const meminfo = arena.meminfo();
    return {
      bytes,
      cpus,
      nodes,
      meminfo,
      slabinfo: arena.slabinfo(),
      caches: arena.cacheInfo(),
      findings,
      problems,
    };
  } finally {
    await stage.close();
  }
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

/** The report, for people. */
export function infoText(report: InfoReport): string {
  const { bytes, cpus, nodes, problems } = report;
  const parts = [
    `An arena of ${bytes / 2 ** 20} MiB, ${cpus} CPUs and one of the main thread, ${nodes} ` +
      `${nodes === 1 ? 'node' : 'nodes'}, after a short load.`,
    '',
    report.slabinfo,
    meminfoText(report),
    '',
    countersText(report),
    '',
    ...problems.map((problem) => `UNSOUND  ${problem}`),
    ...(problems.length === 0 ? [`validate: ${report.findings.length} findings`] : []),
  ];
  return `${parts.join('\n')}\n`;
}
