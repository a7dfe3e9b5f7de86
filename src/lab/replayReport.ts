/** A replay's report, for people. */
import type { ReplayMemory, ReplayReport } from './replay.js';
import { formatCount, formatNs, table } from './stats.js';

const CACHES_SHOWN = 12;
const PAGE_KIB = 4;
const percent = (share: number): string => (share * 100).toFixed(1);

function cacheTable({ caches }: ReplayReport): string {
  const cells = caches
    .slice(0, CACHES_SHOWN)
    .map(({ name, objectSize, allocs, frees, fastPathShare, slabShare }) => [
      name,
      objectSize,
      allocs,
      frees,
      percent(fastPathShare),
      percent(slabShare),
    ]);
  const titles = ['bytes', 'allocs', 'frees', 'fast %', 'slab %'].map((title) => ({ title }));
  const rest = caches.length - CACHES_SHOWN;
  return table(cells, [{ title: 'cache', align: 'left' }, ...titles]) + (rest > 0 ? `\n(${rest} more)` : '');
}

function lockTable({ locks }: ReplayReport): string {
  const cells = locks
    .filter(({ acquisitions }) => acquisitions > 0)
    .sort((a, b) => b.waitTotalNs - a.waitTotalNs)
    .map((lock) => [
      lock.name,
      lock.contentions,
      lock.acquisitions,
      formatNs(lock.waitTotalNs),
      formatNs(lock.waitMaxNs),
      `${percent(lock.bounces / lock.acquisitions)} %`,
    ]);
  const titles = ['contentions', 'acquisitions', 'wait total', 'wait max', 'bounces'].map((title) => ({
    title,
  }));
  return table(cells, [{ title: 'lock', align: 'left' }, ...titles]);
}

/** Pages may be more than before, since what each CPU keeps for itself has moved about; objects may not. */
function sameObjects({ objectsBefore, objectsAfter }: ReplayMemory): boolean {
  return Object.entries(objectsAfter).every(([name, objects]) => objects === objectsBefore[name]);
}

function eventLines(report: ReplayReport): string[] {
  const r = report;
  const lines = [
    `events     ${r.events} on ${r.kernelCpus} CPUs of the kernel: ${r.allocs} allocations, ${r.frees} frees, ` +
      `${r.percpuEvents} percpu`,
    `percpu     ${r.percpuAllocs} areas of ${r.percpuBytes} bytes on each CPU (${r.percpuAtomic} atomic), ` +
      `${r.percpuFrees} frees, ${r.percpuLiveAtEnd} alive at the end; ${r.percpuLeftOut} left out`,
    `           ${r.implicitFrees} frees that left no event, ${r.unknownFrees} frees of older objects (left out), ` +
      `${r.nullEvents} of NULL`,
    `           ${r.liveAtEnd} objects alive at the end, ${r.livePeak} at most`,
    `replayed   ${r.replayedAllocs} allocations and ${r.replayedFrees} frees a pass; on ${r.cpus} ` +
      `${r.cpus === 1 ? 'CPU' : 'CPUs'} ${r.crossCpuFrees + r.implicitCrossFrees} frees cross, ${r.waits} waited ` +
      `(${r.waitedMs.toFixed(1)} ms)`,
  ];
  if (r.rcuFrees > 0) lines.push(`           ${r.rcuFrees} frees of the kernel's own contexts, by kfree_rcu`);
  if (r.otherEvents > 0) lines.push(`           ${r.otherEvents} events of other kinds (left out)`);
  if (r.foreignLines > 0) {
    lines.push(`           ${r.foreignLines} lines that are no events, such as call chains (left out)`);
  }
  if (r.lostEvents > 0) lines.push(`           the recorder lost ${r.lostEvents} events`);
  return lines;
}

/** The whole report. */
export function replayText(report: ReplayReport): string {
  const { eventsPerSecond, eventsPerSecondLow: low, eventsPerSecondHigh: high, memory, perRound } = report;
  const kib = (pages: number): string => `${formatCount(pages * PAGE_KIB)} KiB`;
  const parts = [
    `trace      ${report.file}`,
    ...eventLines(report),
    `speed      ${formatCount(eventsPerSecond)} events/s: median of ${perRound.length} warm rounds of ` +
      `${report.passesPerRound} passes, 95 % ${formatCount(low)} to ${formatCount(high)}, best ` +
      `${formatCount(report.eventsPerSecondBest)} (by the slowest CPU's time)`,
    `arena      ${report.memory.arenaBytes / 2 ** 20} MiB, ${report.nodes} ${report.nodes === 1 ? 'node' : 'nodes'}, ` +
      `layer '${report.layer}', policy '${report.policy}', check '${report.check}'`,
    `memory     at most ${kib(memory.highWaterPages)} in use; ${kib(memory.pagesBefore)} before, ` +
      `${kib(memory.pagesAfter)} after the caches were destroyed` +
      (sameObjects(memory) ? ', held by as many objects as before' : ''),
    '',
    'Caches by allocations; fast %: calls that sheaves served, slab %: objects fetched from slabs per allocation',
    '',
    cacheTable(report),
    '',
    'Locks, from passes of their own with statistics on',
    '',
    lockTable(report),
    '',
    ...report.problems.map((problem) => `UNSOUND    ${problem}`),
    ...(report.problems.length === 0
      ? [`sound      ${report.lost} objects lost, ${report.findings.length} findings of validate`]
      : []),
  ];
  return `${parts.join('\n')}\n`;
}
