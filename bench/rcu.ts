/**
 * `npm run bench:rcu`: what a read section costs beside the bare loop, how long grace periods take while others are
 * idle, read, or are parked, how many callbacks a second there are, and how much memory they hold back.
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { Arena, type Rcu } from '../src/index.js';
import { bootstrapMedian, formatNs, type Interval, table } from '../src/lab/stats.js';
import { Control } from '../workers/litmus/control.js';

const USAGE = `usage: npm run bench:rcu -- [options]

  --rounds N   rounds, at least 15 (default 41)
  --check      exit status 1 when the read section costs more than 2 ns
  --json       print one JSON object instead of the tables
  -h, --help   this text
`;

const ROUNDS_MIN = 15;
const SECTIONS = 200_000;
const GRACE_PERIODS = 200;
const CALLBACKS = 50_000;
const READ_SECTION_NS_BAR = 2;
const LITMUS = fileURLToPath(new URL('../workers/litmus.js', import.meta.url));

/** Loads a word in turn from a small ring, as a lookup would; the sum keeps the loads. */
function bareLoop(m: Int32Array, at: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum = (sum + m[at + (i & 15)]!) | 0;
  return sum;
}

function sectionLoop(rcu: Rcu, m: Int32Array, at: number, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    rcu.readLock();
    sum = (sum + m[at + (i & 15)]!) | 0;
    rcu.readUnlock();
  }
  return sum;
}

function timed(ops: number, work: () => unknown): number {
  const start = performance.now();
  work();
  return ((performance.now() - start) * 1e6) / ops;
}

function readSections(arena: Arena, rounds: number): { bare: Interval; section: Interval; extra: Interval } {
  const at = arena.kzalloc(64) >> 2;
  const { rcu, i32 } = arena;
  const bare: number[] = [];
  const section: number[] = [];
  for (let round = -5; round < rounds; round++) {
    const one = timed(SECTIONS, () => bareLoop(i32, at, SECTIONS));
    const other = timed(SECTIONS, () => sectionLoop(rcu, i32, at, SECTIONS));
    arena.endTurn();
    if (round < 0) continue; // warm
    bare.push(one);
    section.push(other);
  }
  const extra = bootstrapMedian(section.map((ns, i) => ns - bare[i]!));
  return { bare: bootstrapMedian(bare), section: bootstrapMedian(section), extra };
}

/** Latency of synchronize() while `role` runs on the other CPU; '' is nobody. */
async function latency(role: string, rounds: number): Promise<Interval> {
  const arena = Arena.create({ bytes: 16 << 20, cpus: 2 });
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
  const samples: number[] = [];
  for (let round = 0; round < rounds; round++) {
    samples.push(
      timed(GRACE_PERIODS, () => {
        for (let i = 0; i < GRACE_PERIODS; i++) arena.rcu.synchronize();
      }),
    );
  }
  control.stop();
  if (worker !== undefined) await new Promise((resolve) => worker.once('exit', resolve));
  return bootstrapMedian(samples);
}

/** Frees through call(): how long each takes, and the most objects that waited. */
function callbacks(rounds: number): { ns: Interval; heldBack: number } {
  const arena = Arena.create({ bytes: 64 << 20, cpus: 2 });
  arena.online();
  const cache = arena.createCache('c', { size: 64 });
  const { rcu } = arena;
  const samples: number[] = [];
  let waiting = 0;
  let heldBack = 0;
  const freeLater = (p: number): void => {
    heldBack = Math.max(heldBack, ++waiting);
    rcu.call(() => {
      waiting--;
      cache.free(p);
    });
  };
  for (let round = 0; round < rounds; round++) {
    samples.push(
      timed(CALLBACKS, () => {
        for (let i = 0; i < CALLBACKS; i++) {
          freeLater(cache.alloc());
          if (i % 256 === 255) rcu.quiescent();
        }
        rcu.barrier();
      }),
    );
  }
  return { ns: bootstrapMedian(samples), heldBack };
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '41' },
    check: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});
const rounds = Number(values.rounds);
if (values.help || !Number.isInteger(rounds) || rounds < ROUNDS_MIN) {
  process.stdout.write(USAGE);
  process.exit(values.help ? 0 : 2);
}

const arena = Arena.create({ bytes: 16 << 20, cpus: 2 });
arena.online();
const sections = readSections(arena, rounds);
const latencies = {
  'nobody else': await latency('', rounds),
  'a CPU that reads in turns of 200 sections': await latency('rcu-torture', rounds),
  'a CPU that is parked': await latency('rcu-park', rounds),
};
const called = callbacks(rounds);

if (values.json) {
  process.stdout.write(`${JSON.stringify({ rounds, sections, latencies, callbacks: called })}\n`);
} else {
  const cells = (each: Interval): string[] => [
    formatNs(each.estimate),
    `${formatNs(each.low)}..${formatNs(each.high)}`,
  ];
  const rows = [
    ['bare loop, per round', ...cells(sections.bare)],
    ['the same in a read section', ...cells(sections.section)],
    ...Object.entries(latencies).map(([who, each]) => [`synchronize(), beside ${who}`, ...cells(each)]),
    ['alloc, call(), free in the callback', ...cells(called.ns)],
  ];
  const columns = [{ title: 'what', align: 'left' as const }, { title: 'median' }, { title: '95 %' }];
  process.stdout.write(`${table(rows, columns)}\n`);
  process.stdout.write(`at most ${called.heldBack} objects waited for their callbacks\n`);
}
const holds = sections.extra.estimate <= READ_SECTION_NS_BAR;
process.stdout.write(
  `${holds ? 'PASS' : 'MISS'} a read section costs ${sections.extra.estimate.toFixed(2)} ns more than the bare loop (<= ${READ_SECTION_NS_BAR})\n`,
);
if (values.check && !holds) process.exit(1);
