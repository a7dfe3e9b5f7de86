/**
 * `npm run bench:maple`: lookups in a maple tree of 100,000 ranges, on one CPU and on two at once beside what the machine
 * makes of two threads that only calculate; stores; and the empty areas found.
 */
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Arena, type ArenaHandle, type MapleTree } from '../src/index.js';
import { bootstrapMedian, intervalCells, table } from '../src/lab/stats.js';
import { exchange, futexWait, futexWake, loadAcquire } from '../src/sync/index.js';
import { roundsOptions } from './roundsOptions.js';

const ROUNDS_MIN = 5;
const RANGES = 100_000;
const PITCH = 16_384;
const LENGTH = 12_288;
const LOOKUPS = 200_000;
const STORES = 20_000;
const LOOKUPS_PER_SECOND_BAR = 5e6;
const CEILING_SHARE_BAR = 0.9;

/** Random keys, by a generator in the loop: what it costs is in `calculate`. */
function lookups(tree: MapleTree, n: number, seed: number): number {
  let x = seed | 1;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    sum = (sum + tree.load((((x >>> 8) * RANGES) >>> 24) * PITCH + (x & 4095))) | 0;
  }
  return sum;
}

/** About as long, and touches no memory that others share. */
function calculate(n: number, seed: number): number {
  let x = seed | 1;
  let sum = 0;
  for (let i = 0; i < n * 16; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    sum = (sum + (x >>> 8)) | 0;
  }
  return sum;
}

interface Task {
  handle: ArenaHandle;
  tree: number;
  /**
   * Words: 0 round, 1 last round that the worker has done, 2 index of the loop; 3 and 4 the results of the worker and of
   * the main thread, stored so that V8 keeps the loop.
   */
  control: SharedArrayBuffer;
}

const loops = [
  (tree: MapleTree, seed: number): number => lookups(tree, LOOKUPS, seed),
  (_: MapleTree, seed: number): number => calculate(LOOKUPS, seed),
];

function member({ handle, tree: address, control }: Task): void {
  const arena = Arena.attach(handle);
  arena.online();
  const tree = arena.maple.open(address);
  const words = new Int32Array(control);
  parentPort!.postMessage('ready');
  for (let round = 0; ; ) {
    arena.endTurn();
    while (loadAcquire(words, 0) === round) futexWait(words, 0, round, 1000); // pairs with both()
    round = loadAcquire(words, 0);
    if (round < 0) break;
    words[3] = loops[words[2]!]!(tree, round);
    exchange(words, 1, round);
    futexWake(words, 1, 1);
  }
  arena.offline();
}

const msOf = (work: () => unknown): number => {
  const start = performance.now();
  work();
  return performance.now() - start;
};

async function main(rounds: number, check: boolean, json: boolean): Promise<void> {
  const arena = Arena.create({ bytes: 128 << 20, cpus: 2 });
  arena.online();
  const tree = arena.maple.create()!;
  const fillMs = msOf(() => {
    for (let i = 0; i < RANGES; i++) {
      if (!tree.store(i * PITCH, i * PITCH + LENGTH - 1, i + 1)) throw new Error('out of memory');
      if ((i & 255) === 0) arena.rcu.quiescent();
    }
  });
  arena.endTurn();
  const control = new SharedArrayBuffer(64);
  const words = new Int32Array(control);
  const task: Task = { handle: arena.handle, tree: tree.address, control };
  const worker = new Worker(fileURLToPath(import.meta.url), { workerData: task });
  await new Promise((resolve) => worker.once('message', resolve));
  let round = 0;
  /** One loop on both threads: from the start to the later end. */
  const both = (loop: number): number =>
    msOf(() => {
      words[2] = loop;
      exchange(words, 0, ++round);
      futexWake(words, 0, 1);
      words[4] = loops[loop]!(tree, round);
      while (loadAcquire(words, 1) !== round) futexWait(words, 1, round - 1, 1000);
      arena.endTurn();
    });
  const one = (loop: number): number =>
    msOf(() => {
      words[4] = loops[loop]!(tree, ++round + 7);
      round--;
      arena.endTurn();
    });
  const figures = {
    one: [] as number[],
    scaling: [] as number[],
    ceiling: [] as number[],
    store: [] as number[],
    gap: [] as number[],
  };
  for (let i = -3; i < rounds; i++) {
    const single = one(0);
    const double = both(0);
    const plain = one(1);
    const plainBoth = both(1);
    if (i < 0) continue; // warm
    figures.one.push((single * 1e6) / LOOKUPS);
    figures.scaling.push((2 * single) / double);
    figures.ceiling.push((2 * plain) / plainBoth);
  }
  exchange(words, 0, -1);
  futexWake(words, 0, 1);
  await new Promise((resolve) => worker.once('exit', resolve));
  // Only now: what one CPU has written comes slowly into the caches of the other.
  for (let i = 0; i < rounds; i++) {
    figures.store.push((msOf(() => storeAndErase(arena, tree, i + 1)) * 1e6) / STORES);
    figures.gap.push((msOf(() => emptyAreas(tree)) * 1e6) / 1000);
  }
  const faults = tree.validate();
  if (faults.length > 0) throw new Error(faults[0]);
  report(tree, fillMs, figures, json);
  const bars = barsOf(figures);
  if (!json) for (const { holds, text } of bars) process.stdout.write(`${holds ? 'PASS' : 'MISS'} ${text}\n`);
  if (check && bars.some(({ holds }) => !holds)) process.exitCode = 1;
}

function barsOf({ one, scaling, ceiling }: Record<'one' | 'scaling' | 'ceiling', number[]>) {
  const perSecond = 1e9 / bootstrapMedian(one).estimate;
  const [two, most] = [scaling, ceiling].map((each) => bootstrapMedian(each).estimate) as [number, number];
  return [
    {
      holds: two >= CEILING_SHARE_BAR * most,
      text: `two CPUs look up ${two.toFixed(2)} x as much as one; the machine allows ${most.toFixed(2)} x (>= ${CEILING_SHARE_BAR} of it)`,
    },
    {
      holds: perSecond >= LOOKUPS_PER_SECOND_BAR,
      text: `${(perSecond / 1e6).toFixed(1)} million lookups a second on one CPU (>= 5)`,
    },
  ];
}

/** Pairs that put an entry into a free range and take it out again. */
function storeAndErase(arena: Arena, tree: MapleTree, seed: number): void {
  let x = seed | 1;
  for (let i = 0; i < STORES / 2; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) | 0;
    const first = (((x >>> 8) * RANGES) >>> 24) * PITCH + LENGTH + 100;
    tree.store(first, first + 100, 7);
    tree.erase(first, first + 100);
    if ((i & 63) === 0) arena.rcu.quiescent();
  }
}

function emptyAreas(tree: MapleTree): void {
  for (let i = 0; i < 1000; i++) tree.emptyAreaReverse(4096 + i, 0, RANGES * PITCH - 1);
}

function report(tree: MapleTree, fillMs: number, figures: Record<string, number[]>, json: boolean): void {
  const judged = Object.fromEntries(
    Object.entries(figures).map(([name, each]) => [name, bootstrapMedian(each)]),
  );
  if (json) {
    process.stdout.write(`${JSON.stringify({ ranges: RANGES, height: tree.height, fillMs, ...judged })}\n`);
    return;
  }
  const times = (value: number): string => `${value.toFixed(2)}x`;
  const rows = [
    ['a lookup, random keys, one CPU', ...intervalCells(judged.one!)],
    ['lookups of two CPUs at once', ...intervalCells(judged.scaling!, times)],
    ['calculations of two threads at once: the ceiling', ...intervalCells(judged.ceiling!, times)],
    ['a store or an erase', ...intervalCells(judged.store!)],
    ['a search for an empty area, from above', ...intervalCells(judged.gap!)],
  ];
  const columns = [{ title: 'what', align: 'left' as const }, { title: 'median' }, { title: '95 %' }];
  process.stdout.write(
    `${RANGES} ranges, ${tree.height} levels, filled in ${fillMs.toFixed(0)} ms\n${table(rows, columns)}\n`,
  );
}

if (!isMainThread) member(workerData as Task);
else {
  const { rounds, check, json } = roundsOptions('bench:maple', {
    measures: 'Lookups, stores and searches for empty areas in a maple tree of 100,000 ranges.',
    bar:
      'one CPU looks up fewer than 5 million times a second, or two together do less than 0.9 of what the machine ' +
      'makes of two threads that only calculate',
    least: ROUNDS_MIN,
    rounds: 21,
  });
  await main(rounds, check, json);
}
