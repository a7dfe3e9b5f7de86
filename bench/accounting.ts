/**
 * `npm run bench:accounting`: what it costs to charge an object to a memory group and to give it back, beside a cache of
 * the same stride whose objects are charged to nobody. The two take turns within a round.
 */
import { parseArgs } from 'node:util';
import { Arena, type KmemCache, SLAB_ACCOUNT } from '../src/index.js';
import { bootstrapMedian, formatNs, type Interval, table } from '../src/lab/stats.js';

const USAGE = `usage: npm run bench:accounting -- [options]

  --rounds N   rounds, at least 15 (default 41)
  --check      exit status 1 when an accounted pair costs more than 3 ns more
  --json       print one JSON object instead of the table
  -h, --help   this text
`;

const ROUNDS_MIN = 15;
const WARM_ROUNDS = 5;
const PAIRS = 200_000;
/** Objects that live at a time. */
const BATCHES = [1, 16, 100] as const;
const ACCOUNTED_NS_BAR = 3;
/** Room for the group behind the object: both strides are 64. */
const SHAPE = { size: 56, align: 64 };

// Two copies of a loop, so that each call site sees one class, as a user's does.

function plainPairs(cache: KmemCache, kept: Int32Array, n: number): void {
  for (let i = 0; i < n; i += kept.length) {
    for (let j = 0; j < kept.length; j++) kept[j] = cache.alloc();
    for (let j = 0; j < kept.length; j++) cache.free(kept[j]!);
  }
}

function accountedPairs(cache: KmemCache, kept: Int32Array, n: number): void {
  for (let i = 0; i < n; i += kept.length) {
    for (let j = 0; j < kept.length; j++) kept[j] = cache.alloc();
    for (let j = 0; j < kept.length; j++) cache.free(kept[j]!);
  }
}

type Loop = typeof plainPairs;

interface Figures {
  batch: number;
  plain: Interval;
  accounted: Interval;
  /** Of a round, not of the medians: what slows a round down slows both. */
  extra: Interval;
}

function timed(arena: Arena, loop: Loop, cache: KmemCache, kept: Int32Array): number {
  const ops = PAIRS - (PAIRS % kept.length);
  const start = performance.now();
  loop(cache, kept, ops);
  const ns = ((performance.now() - start) * 1e6) / ops;
  arena.endTurn();
  return ns;
}

function measure(
  arena: Arena,
  plain: KmemCache,
  accounted: KmemCache,
  batch: number,
  rounds: number,
): Figures {
  const kept = new Int32Array(batch);
  const figures: Record<'plain' | 'accounted' | 'extra', number[]> = { plain: [], accounted: [], extra: [] };
  for (let round = -WARM_ROUNDS; round < rounds; round++) {
    // Which of the two goes first changes, too.
    const first = round % 2 === 0 ? timed(arena, plainPairs, plain, kept) : 0;
    const other = timed(arena, accountedPairs, accounted, kept);
    const one = first || timed(arena, plainPairs, plain, kept);
    if (round < 0) continue;
    figures.plain.push(one);
    figures.accounted.push(other);
    figures.extra.push(other - one);
  }
  return {
    batch,
    plain: bootstrapMedian(figures.plain),
    accounted: bootstrapMedian(figures.accounted),
    extra: bootstrapMedian(figures.extra),
  };
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
arena.groups.workFor(arena.groups.create('tasks', { limit: 8 << 20 }));
const plain = arena.createCache('plain', SHAPE);
const accounted = arena.createCache('accounted', { ...SHAPE, flags: SLAB_ACCOUNT });
const figures = BATCHES.map((batch) => measure(arena, plain, accounted, batch, rounds));
arena.offline();

if (values.json) {
  process.stdout.write(`${JSON.stringify({ rounds, pairs: PAIRS, figures })}\n`);
} else {
  const cells = ({ estimate, low, high }: Interval): string[] => [
    formatNs(estimate),
    `${formatNs(low)}..${formatNs(high)}`,
  ];
  const rows = figures.map((each) => [
    each.batch,
    ...cells(each.plain),
    ...cells(each.accounted),
    ...cells(each.extra),
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
if (values.check && !holds) process.exit(1);
