/**
 * `npm run bench:growth`: whether an operation costs more when there is more of everything. Populations of 64-byte
 * objects live in one arena, each in a cache of its own; rounds are interleaved, so that all see the same machine.
 * And whether the largest arena is made at once, without touching its memory.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ARENA_BYTES_MAX, Arena, type KmemCache } from '../src/index.js';
import { bootstrapMedian, formatCount, type Interval, intervalCells, table } from '../src/lab/stats.js';
import { roundsOptions } from './roundsOptions.js';

const POPULATIONS = [1e3, 1e5, 1e6, 1e7];
const OBJECT_SIZE = 64;
const ARENA_BYTES = 1 << 30;
const ROUNDS_MIN = 15;
/** A sample of a millisecond: many short ones see through what else the machine does. */
const PAIRS = 100_000;
const BATCH = 1000;
const WARM_ROUNDS = 20;

const RATIO_BAR = 1.3;
const CREATE_MS_BAR = 50;
const RSS_BYTES_BAR = 64 * 2 ** 20;

function pairs(cache: KmemCache, m: Int32Array, n: number): void {
  for (let i = 0; i < n; i++) {
    const p = cache.alloc();
    m[p >> 2] = i;
    cache.free(p);
  }
}

function batches(cache: KmemCache, m: Int32Array, n: number, kept: Int32Array): void {
  for (let i = 0; i < n; i += BATCH) {
    for (let j = 0; j < BATCH; j++) {
      const p = cache.alloc();
      m[p >> 2] = i;
      kept[j] = p;
    }
    for (let j = 0; j < BATCH; j++) cache.free(kept[j]!);
  }
}

interface Population {
  readonly live: number;
  readonly cache: KmemCache;
  readonly pairNs: number[];
  readonly batchNs: number[];
}

function populate(arena: Arena, live: number): Population {
  const cache = arena.createCache(`live-${live}`, { size: OBJECT_SIZE });
  for (let i = 0; i < live; i++) {
    const p = cache.alloc();
    if (p === 0) throw new Error(`out of memory after ${i} of ${live} objects`);
    arena.i32[p >> 2] = i;
  }
  return { live, cache, pairNs: [], batchNs: [] };
}

/** Nanoseconds for one operation. */
function timed(ops: number, work: () => void): number {
  const start = performance.now();
  work();
  return ((performance.now() - start) * 1e6) / ops;
}

function measureGrowth(rounds: number): Population[] {
  const arena = Arena.create({ bytes: ARENA_BYTES, cpus: 1 });
  arena.online();
  const populations = POPULATIONS.map((live) => populate(arena, live));
  const kept = new Int32Array(BATCH);
  for (let round = -WARM_ROUNDS; round < rounds; round++) {
    for (let i = 0; i < populations.length; i++) {
      // Everyone is first as often as the others.
      const { cache, pairNs, batchNs } = populations[(i + round + WARM_ROUNDS) % populations.length]!;
      const pairTime = timed(PAIRS, () => pairs(cache, arena.i32, PAIRS));
      const batchTime = timed(PAIRS / 4, () => batches(cache, arena.i32, PAIRS / 4, kept));
      if (round < 0) continue;
      pairNs.push(pairTime);
      batchNs.push(batchTime);
    }
  }
  return populations;
}

interface Creation {
  readonly ms: number;
  readonly rssBytes: number;
}

const CREATE_FLAG = '--create-only';

/** In a process of its own: what other tests have touched is in the figure otherwise. */
function createLargest(): void {
  const before = process.memoryUsage.rss();
  const start = performance.now();
  const arena = Arena.create({ bytes: ARENA_BYTES_MAX, cpus: 8 });
  const ms = performance.now() - start;
  const rssBytes = process.memoryUsage.rss() - before;
  process.stdout.write(JSON.stringify({ ms, rssBytes, bytes: arena.buffer.byteLength }));
}

function measureCreation(): Creation {
  const output = execFileSync(process.execPath, [fileURLToPath(import.meta.url), CREATE_FLAG], {
    encoding: 'utf8',
  });
  return JSON.parse(output) as Creation;
}

interface Line {
  readonly live: number;
  readonly pair: Interval;
  readonly batch: Interval;
}

interface Verdict {
  readonly what: string;
  readonly met: boolean;
}

function verdicts(lines: readonly Line[], creation: Creation): Verdict[] {
  const ratioOf = (of: (line: Line) => Interval): number => {
    const medians = lines.map((line) => of(line).estimate);
    return Math.max(...medians) / Math.min(...medians);
  };
  const ratio = (name: string, value: number): Verdict => ({
    what: `${name} ${value.toFixed(2)}x of the smallest (bar ${RATIO_BAR}x)`,
    met: value <= RATIO_BAR,
  });
  const rssMib = creation.rssBytes / 2 ** 20;
  return [
    ratio(
      'pair',
      ratioOf((line) => line.pair),
    ),
    ratio(
      `batch-${BATCH}`,
      ratioOf((line) => line.batch),
    ),
    {
      what: `create ${creation.ms.toFixed(1)} ms (bar ${CREATE_MS_BAR} ms)`,
      met: creation.ms < CREATE_MS_BAR,
    },
    {
      what: `memory touched ${rssMib.toFixed(1)} MiB (bar ${RSS_BYTES_BAR / 2 ** 20} MiB)`,
      met: creation.rssBytes < RSS_BYTES_BAR,
    },
  ];
}

function main(rounds: number, json: boolean): boolean {
  const creation = measureCreation();
  const populations = measureGrowth(rounds);
  const lines = populations.map(({ live, pairNs, batchNs }) => ({
    live,
    pair: bootstrapMedian(pairNs),
    batch: bootstrapMedian(batchNs),
  }));
  const all = verdicts(lines, creation);
  const met = all.every((verdict) => verdict.met);
  if (json) {
    const samples = populations.map(({ live, pairNs, batchNs }) => ({ live, pairNs, batchNs }));
    process.stdout.write(
      `${JSON.stringify({ schemaVersion: 1, rounds, lines, samples, creation, verdicts: all, met })}\n`,
    );
    return met;
  }
  const smallest = lines[0]!;
  const fixed = (ns: number): string => ns.toFixed(2);
  const cells = lines.map((line) => [
    formatCount(line.live),
    ...intervalCells(line.pair, fixed),
    (line.pair.estimate / smallest.pair.estimate).toFixed(2),
    ...intervalCells(line.batch, fixed),
    (line.batch.estimate / smallest.batch.estimate).toFixed(2),
  ]);
  const titles = ['live objects', 'pair ns', '95 %', 'ratio', `batch-${BATCH} ns`, '95 %', 'ratio'];
  process.stdout.write(
    `${rounds} interleaved rounds, objects of ${OBJECT_SIZE} bytes; medians\n\n` +
      `${table(
        cells,
        titles.map((title) => ({ title })),
      )}\n\n` +
      `an arena of ${ARENA_BYTES_MAX} bytes: made in ${creation.ms.toFixed(1)} ms, ` +
      `${(creation.rssBytes / 2 ** 20).toFixed(1)} MiB of memory touched\n\n` +
      `${met ? 'GROWTH BARS MET' : 'GROWTH BARS MISSED'}: ${all.map(({ what, met: ok }) => `${what} ${ok ? 'ok' : 'MISSED'}`).join('; ')}\n`,
  );
  return met;
}

if (process.argv[2] === CREATE_FLAG) createLargest();
else {
  const { rounds, check, json } = roundsOptions('bench:growth', {
    measures: 'The cost of an operation with 10^3 to 10^7 live objects, in about 1.2 GiB of memory.',
    bar: 'it grows, or the largest arena is not made at once',
    least: ROUNDS_MIN,
    rounds: 101,
  });
  if (!main(rounds, json) && check) process.exitCode = 1;
}
