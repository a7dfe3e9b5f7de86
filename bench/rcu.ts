/**
 * `npm run bench:rcu`: what a read section costs beside the bare loop, how long grace periods take while others are
 * idle, read, or are parked, how many objects a second are freed after one, and how much memory that holds back.
 */
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { Arena, type KmemCache, type Rcu } from '../src/index.js';
import { bootstrapMedian, formatCount, type Interval, intervalCells, table } from '../src/lab/stats.js';
import { Control } from '../workers/litmus/control.js';
import { roundsOptions } from './roundsOptions.js';

const ROUNDS_MIN = 15;
const SECTIONS = 200_000;
const GRACE_PERIODS = 200;
const FREES = 20_000;
/** Operations between two quiescent states of the thread that frees. */
const QUIESCENT_EVERY = 256;
const PAGE_KIB = 4;
const READ_SECTION_NS_BAR = 2;
const LITMUS = fileURLToPath(import.meta.resolve('#workers/litmus.js'));

/**
 * Load a word in turn from a small ring, as a lookup would; the sum keeps the loads. Made once with what they work on, as
 * hot code is to be (CONTRIBUTING.md): for V8 the view and the RCU state are constants.
 */
function makeLoops({ rcu, i32: m }: Arena, at: number): Record<'bare' | 'section', (n: number) => number> {
  return {
    bare: (n) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum = (sum + m[at + (i & 15)]!) | 0;
      return sum;
    },
    section: (n) => {
      let sum = 0;
      for (let i = 0; i < n; i++) {
        rcu.readLock();
        sum = (sum + m[at + (i & 15)]!) | 0;
        rcu.readUnlock();
      }
      return sum;
    },
  };
}

function timed(ops: number, work: () => unknown): number {
  const start = performance.now();
  work();
  return ((performance.now() - start) * 1e6) / ops;
}

function readSections(arena: Arena, rounds: number): { bare: Interval; section: Interval; extra: Interval } {
  const loops = makeLoops(arena, arena.kzalloc(64) >> 2);
  const bare: number[] = [];
  const section: number[] = [];
  for (let round = -5; round < rounds; round++) {
    const one = timed(SECTIONS, () => loops.bare(SECTIONS));
    const other = timed(SECTIONS, () => loops.section(SECTIONS));
    arena.endTurn();
    if (round < 0) continue; // warm
    bare.push(one);
    section.push(other);
  }
  const extra = bootstrapMedian(section.map((ns, i) => ns - bare[i]!));
  return { bare: bootstrapMedian(bare), section: bootstrapMedian(section), extra };
}

/** Runs `measure` on an arena on whose other CPU a thread has `role`; '' is nobody. */
async function beside<T>(role: string, measure: (arena: Arena) => T): Promise<T> {
  const arena = Arena.create({ bytes: 64 << 20, cpus: 2 });
  arena.online();
  arena.createCache('c', { size: 64 });
  arena.endTurn();
  const control = new Control();
  const args = { cpu: 1, seed: 1, ms: 600_000, writes: 0 };
  const task = { role, control: control.buffer, handle: arena.handle, args };
  const worker = role === '' ? undefined : new Worker(LITMUS, { workerData: task });
  while (worker !== undefined && control.arrived === 0)
    await new Promise((resolve) => setTimeout(resolve, 1));
  control.open();
  const measured = measure(arena);
  control.stop();
  if (worker !== undefined) await new Promise((resolve) => worker.once('exit', resolve));
  arena.offline();
  return measured;
}

/** Of one synchronize() after the other. */
function latency({ rcu }: Arena, rounds: number): Interval {
  const wait = (): void => {
    for (let i = 0; i < GRACE_PERIODS; i++) rcu.synchronize();
  };
  return bootstrapMedian(Array.from({ length: rounds }, () => timed(GRACE_PERIODS, wait)));
}

const WAYS = {
  'call(), which frees': { layer: 'sheaves', later: (cache, rcu, p) => rcu.call(() => cache.free(p)) },
  'freeRcu, in sheaves': { layer: 'sheaves', later: (cache, _, p) => cache.freeRcu(p) },
  'freeRcu, in pages of addresses': { layer: 'none', later: (cache, _, p) => cache.freeRcu(p) },
} as const satisfies Record<string, { layer: string; later(cache: KmemCache, rcu: Rcu, p: number): unknown }>;

interface Frees {
  /** Of an allocation and its free. */
  ns: Interval;
  perSecond: number;
  /** Most pages in use above those before. */
  heldBackKib: number;
}

function frees(arena: Arena, way: keyof typeof WAYS, rounds: number): Frees {
  const { layer, later } = WAYS[way];
  const { rcu } = arena;
  const cache = arena.createCache('freed', { size: 64, layer });
  const before = arena.meminfo().usedPages;
  let most = before;
  const run = (): void => {
    for (let i = 0; i < FREES; i++) {
      later(cache, rcu, cache.alloc());
      if (i % QUIESCENT_EVERY !== QUIESCENT_EVERY - 1) continue;
      rcu.quiescent();
      most = Math.max(most, arena.meminfo().usedPages);
    }
    rcu.barrier();
    cache.rcuBarrier();
  };
  run(); // warm
  const ns = bootstrapMedian(Array.from({ length: rounds }, () => timed(FREES, run)));
  cache.destroy();
  return { ns, perSecond: Math.round(1e9 / ns.estimate), heldBackKib: (most - before) * PAGE_KIB };
}

const { rounds, check, json } = roundsOptions('bench:rcu', {
  measures: 'Read sections, grace periods, and frees after one.',
  bar: `a read section costs more than ${READ_SECTION_NS_BAR} ns`,
  least: ROUNDS_MIN,
  rounds: 41,
});

const arena = Arena.create({ bytes: 16 << 20, cpus: 2 });
arena.online();
const sections = readSections(arena, rounds);
arena.offline();
const OTHERS = {
  'nobody else': '',
  'a CPU that reads in turns of 200 sections': 'rcu-torture',
  'a CPU that is parked': 'rcu-park',
};
const latencies: Record<string, Interval> = {};
const freed: Record<string, Frees> = {};
for (const [who, role] of Object.entries(OTHERS)) {
  latencies[who] = await beside(role, (each) => latency(each, rounds));
  if (role === 'rcu-park') continue;
  for (const way of Object.keys(WAYS) as (keyof typeof WAYS)[])
    freed[`${way}, beside ${who}`] = await beside(role, (each) => frees(each, way, Math.ceil(rounds / 4)));
}

if (json) {
  process.stdout.write(`${JSON.stringify({ rounds, sections, latencies, frees: freed })}\n`);
} else {
  const rows = [
    ['bare loop, per round', ...intervalCells(sections.bare)],
    ['the same in a read section', ...intervalCells(sections.section)],
    ...Object.entries(latencies).map(([who, each]) => [
      `synchronize(), beside ${who}`,
      ...intervalCells(each),
    ]),
  ];
  const left = { title: 'what', align: 'left' as const };
  process.stdout.write(`${table(rows, [left, { title: 'median' }, { title: '95 %' }])}\n\n`);
  const freeRows = Object.entries(freed).map(([what, { ns, perSecond, heldBackKib }]) => [
    what,
    ...intervalCells(ns),
    formatCount(perSecond),
    heldBackKib,
  ]);
  const titles = ['median', '95 %', 'frees/s', 'held back KiB'].map((title) => ({ title }));
  process.stdout.write(
    `${table(freeRows, [{ ...left, title: 'an allocation and its free by' }, ...titles])}\n\n`,
  );
}
const holds = sections.extra.estimate <= READ_SECTION_NS_BAR;
process.stdout.write(
  `${holds ? 'PASS' : 'MISS'} a read section costs ${sections.extra.estimate.toFixed(2)} ns more than the bare loop (<= ${READ_SECTION_NS_BAR})\n`,
);
if (check && !holds) process.exit(1);
