/**
 * `npm run bench:accounting`: what it costs to charge an object to a memory group and to give it back, beside a cache of
 * the same stride whose objects are charged to nobody. The two take turns within a round.
 */
import { Arena, type KmemCache, SLAB_ACCOUNT } from '../src/index.js';
import { bootstrapMedian, type Interval, intervalCells, table } from '../src/lab/stats.js';
import { roundsOptions } from './roundsOptions.js';

const ROUNDS_MIN = 15;
const WARM_ROUNDS = 5;
const PAIRS = 200_000;
/** Objects that live at a time. */
const BATCHES = [1, 16, 100] as const;
const LIVE_MAX = 100;
const ACCOUNTED_NS_BAR = 3;
/** Room for the group behind the object: both strides are 64. */
const SHAPE = { size: 56, align: 64 };

type Loop = (live: number, pairs: number) => void;

// Two copies, each called once: hot code is made once, so that V8 knows its cache as a constant, and sees one class.

function plainLoop(cache: KmemCache, words: Int32Array): Loop {
  const kept = new Int32Array(LIVE_MAX);
  return (live, pairs) => {
    for (let i = 0; i < pairs; i += live) {
      for (let j = 0; j < live; j++) {
        const p = cache.alloc();
        if (p === 0) throw new Error('the arena is too small');
        words[p >> 2] = i; // who allocates an object uses it
        kept[j] = p;
      }
      for (let j = 0; j < live; j++) cache.free(kept[j]!);
    }
  };
}

function accountedLoop(cache: KmemCache, words: Int32Array): Loop {
  const kept = new Int32Array(LIVE_MAX);
  return (live, pairs) => {
    for (let i = 0; i < pairs; i += live) {
      for (let j = 0; j < live; j++) {
        const p = cache.alloc();
        if (p === 0) throw new Error('the arena is too small');
        words[p >> 2] = i; // who allocates an object uses it
        kept[j] = p;
      }
      for (let j = 0; j < live; j++) cache.free(kept[j]!);
    }
  };
}

interface Figures {
  batch: number;
  plain: Interval;
  accounted: Interval;
  /** Of a round, not of the medians: what slows a round down slows both. */
  extra: Interval;
}

type Samples = { batch: number } & Record<'plain' | 'accounted' | 'extra', number[]>;

function timed(arena: Arena, loop: Loop, live: number): number {
  const pairs = PAIRS - (PAIRS % live);
  const start = performance.now();
  loop(live, pairs);
  const ns = ((performance.now() - start) * 1e6) / pairs;
  arena.endTurn();
  return ns;
}

/** A round has each number of objects: what the machine does for a second is in all of them. */
function measure(arena: Arena, plain: Loop, accounted: Loop, rounds: number): Figures[] {
  const samples = BATCHES.map((batch) => ({ batch, plain: [], accounted: [], extra: [] }) as Samples);
  for (let round = -WARM_ROUNDS; round < rounds; round++) {
    for (const sample of samples) {
      // Which of the two goes first changes, too.
      const first = round % 2 === 0 ? timed(arena, plain, sample.batch) : 0;
      const other = timed(arena, accounted, sample.batch);
      const one = first || timed(arena, plain, sample.batch);
      if (round < 0) continue;
      sample.plain.push(one);
      sample.accounted.push(other);
      sample.extra.push(other - one);
    }
  }
  return samples.map(({ batch, ...figures }) => ({
    batch,
    plain: bootstrapMedian(figures.plain),
    accounted: bootstrapMedian(figures.accounted),
    extra: bootstrapMedian(figures.extra),
  }));
}

const { rounds, check, json } = roundsOptions('bench:accounting', {
  measures: 'What it costs to charge an object to a memory group.',
  bar: `an accounted pair costs more than ${ACCOUNTED_NS_BAR} ns more`,
  least: ROUNDS_MIN,
  rounds: 201,
});

const arena = Arena.create({ bytes: 16 << 20, cpus: 2 });
arena.online();
arena.groups.workFor(arena.groups.create('tasks', { limit: 8 << 20 }));
const plain = plainLoop(arena.createCache('plain', SHAPE), arena.i32);
const accounted = accountedLoop(arena.createCache('accounted', { ...SHAPE, flags: SLAB_ACCOUNT }), arena.i32);
const figures = measure(arena, plain, accounted, rounds);
arena.offline();

if (json) {
  process.stdout.write(`${JSON.stringify({ rounds, pairs: PAIRS, figures })}\n`);
} else {
  const rows = figures.map((each) => [
    each.batch,
    ...intervalCells(each.plain),
    ...intervalCells(each.accounted),
    ...intervalCells(each.extra),
  ]);
  const titles = ['objects at a time', 'plain', '95 %', 'accounted', '95 %', 'more', '95 %'];
  process.stdout.write(
    `${table(
      rows,
      titles.map((title) => ({ title })),
    )}\n\n`,
  );
}
const most = Math.max(...figures.map(({ extra }) => extra.estimate));
const holds = most <= ACCOUNTED_NS_BAR;
process.stdout.write(
  `${holds ? 'PASS' : 'MISS'} an accounted allocation and its free cost ${most.toFixed(2)} ns more than plain ones (<= ${ACCOUNTED_NS_BAR})\n`,
);
if (check && !holds) process.exit(1);
