import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BARS, type Bar, barsLine, evaluateBars, verdictLine } from '#bench/peers/bars.js';
import { buildNative, findCompiler, findLibraries, type Lookup, realLookup } from '#bench/peers/build.js';
import { Gate } from '#bench/peers/calm.js';
import { Figures, type Series } from '#bench/peers/figures.js';
import { type MachineState, parseCpuTicks, warnings } from '#bench/peers/machine.js';
import {
  type Comparison,
  MomentMeter,
  type Moments,
  timeByTime,
  twoAgainstOne,
} from '#bench/peers/moments.js';
import { NativePeer, parseGreeting } from '#bench/peers/native.js';
import { parseOptions } from '#bench/peers/options.js';
import type { Peer } from '#bench/peers/peer.js';
import {
  allRows,
  freeOrder,
  orderCheckSum,
  type Row,
  rowKey,
  takesPart,
  type Variant,
  wholeBatches,
} from '#bench/peers/plan.js';
import { formatSeconds } from '#bench/peers/progress.js';
import { reportJson, reportText } from '#bench/peers/report.js';
import { consume, produce, RING_BYTES } from '#bench/peers/ring.js';
import { Runner } from '#bench/peers/runner.js';

const pair1: Row = { workload: 'pair', size: 64, threads: 1 };
const pair2: Row = { workload: 'pair', size: 64, threads: 2 };
const ring2: Row = { workload: 'producer-consumer', size: 64, threads: 2 };
const batch16: Row = { workload: 'batch-16', size: 64, threads: 1 };

const series = (variant: Variant, row: Row, ...nsPerOp: number[]): Series => ({
  variant,
  row,
  operations: 1000,
  nsPerOp,
});

const none: ReadonlyMap<Bar, Moments> = new Map();
const state = (figures: Figures, bar: Bar): string => evaluateBars(figures, none, [bar])[0]!.state;

describe('bars', () => {
  const pairBar: Bar = { ours: 'granary', against: 'glibc', row: pair1, atMost: 1 };
  const scaling: Bar = { ours: 'granary', row: pair2, atLeast: 1.8, calm: true };
  const handOver: Bar = { ours: 'granary', against: 'mimalloc', row: ring2, atMost: 1, calm: true };
  const best: Bar = { ours: 'granary-bulk', against: 'best native', row: batch16, atMost: 0.7 };

  it('form the ratio round by round, so that a round which was slow for both does not count', () => {
    const figures = new Figures([series('granary', pair1, 9, 90, 9), series('glibc', pair1, 10, 100, 10)]);
    const [verdict] = evaluateBars(figures, none, [pairBar]);
    expect(verdict).toMatchObject({ state: 'PASS', value: { estimate: 0.9, low: 0.9, high: 0.9 } });
    expect(verdictLine(verdict!)).toBe('PASS granary / glibc, pair 64 B x1: 0.900, 0.900..0.900 (<= 1.00)');
  });

  it('hold at the limit and are missed above it', () => {
    expect(state(new Figures([series('granary', pair1, 5), series('glibc', pair1, 5)]), pairBar)).toBe(
      'PASS',
    );
    expect(state(new Figures([series('granary', pair1, 5.01), series('glibc', pair1, 5)]), pairBar)).toBe(
      'MISS',
    );
  });

  const judge = (bar: Bar, found?: Moments): string =>
    verdictLine(evaluateBars(new Figures([]), new Map(found ? [[bar, found]] : []), [bar])[0]!);
  const moments = (ratio: number, calm: number, taken: number): Moments => ({
    calm: new Array<number>(calm).fill(ratio),
    taken,
  });

  it('judge two threads by calm moments', () => {
    expect(judge(scaling, moments(1.9, 20, 120))).toBe(
      'PASS granary, two threads / one, pair 64 B: 1.900, 1.900..1.900 (>= 1.80; 20 of 120 moments were calm)',
    );
    expect(judge(scaling, moments(1.79, 20, 120))).toMatch(/^MISS .*: 1\.790, /);
    expect(judge(handOver, moments(0.9, 20, 120))).toBe(
      'PASS granary / mimalloc, producer-consumer 64 B x2: 0.900, 0.900..0.900 ' +
        '(<= 1.00; 20 of 120 moments were calm)',
    );
    expect(judge(handOver, moments(1.01, 20, 120))).toMatch(/^MISS .*: 1\.010, /);
  });

  it('give no verdict of two threads where such moments are few', () => {
    const few = 'SKIP granary, two threads / one, pair 64 B: only 14 of 20 moments were calm (>= 1.80)';
    expect(judge(scaling, moments(1.9, 14, 20))).toBe(few);
    expect(judge(scaling, moments(1.9, 15, 20))).toMatch(/^PASS/);
    expect(judge(scaling)).toMatch(/^SKIP .*: not everybody it takes was measured \(>= 1\.80\)$/);
  });

  it('take the native allocator with the lowest median as the best one', () => {
    const figures = new Figures([
      series('granary-bulk', batch16, 5, 5, 5),
      series('glibc', batch16, 20, 20, 20),
      series('mimalloc', batch16, 10, 1, 10),
      series('tcmalloc', batch16, 8, 8, 8),
      series('thi.ng', batch16, 1, 1, 1),
    ]);
    const [verdict] = evaluateBars(figures, none, [best]);
    expect(verdict!.name).toBe('granary-bulk / best native (tcmalloc), batch-16 64 B x1');
    expect(verdict).toMatchObject({ state: 'PASS', value: { estimate: 5 / 8 } });
  });

  it('are skipped, with the reason, where somebody was not measured', () => {
    const noPeer = evaluateBars(new Figures([series('granary', pair1, 5)]), none, [pairBar])[0]!;
    expect(verdictLine(noPeer)).toBe('SKIP granary / glibc, pair 64 B x1: no figures of glibc (<= 1.00)');
    const noneOfOurs = evaluateBars(new Figures([series('glibc', pair1, 5)]), none, [pairBar])[0]!;
    expect(noneOfOurs.why).toBe('no figures of granary');
    const noNative = evaluateBars(new Figures([series('granary-bulk', batch16, 5)]), none, [best])[0]!;
    expect(noNative.why).toBe('no figures of best native');
    const verdicts = evaluateBars(new Figures([]), none);
    expect(barsLine(verdicts)).toBe(`bars: 0 hold, 0 missed, ${BARS.length} skipped`);
  });

  it('only name rows that are measured', () => {
    const keys = new Set(allRows().map(rowKey));
    for (const bar of BARS) expect(keys).toContain(rowKey(bar.row));
  });
});

describe('plan', () => {
  it('has each workload in both sizes, and one thread where that makes sense', () => {
    expect(allRows()).toHaveLength(5 * 2 * 2 + 2);
    expect(allRows(/^producer/).map(rowKey)).toEqual(['producer-consumer/64/2', 'producer-consumer/256/2']);
  });

  it('leaves variants out of rows they cannot do', () => {
    expect(takesPart('thi.ng', pair2)).toBe(false);
    expect(takesPart('granary-bulk', pair1)).toBe(false);
    expect(takesPart('granary-bulk', batch16)).toBe(true);
    expect(takesPart('Uint8Array', { workload: 'producer-consumer', size: 64, threads: 2 })).toBe(false);
  });

  it('counts operations in whole batches, at least one', () => {
    expect(wholeBatches('batch-16', 100)).toBe(96);
    expect(wholeBatches('shuffled-1000', 10)).toBe(1000);
    expect(wholeBatches('producer-consumer', 65)).toBe(64);
  });

  it('frees every slot once, in an order that is not the order of allocation', () => {
    const order = freeOrder();
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i));
    expect(orderCheckSum(order)).not.toBe(orderCheckSum(order.slice().sort()));
  });
});

const nowhere: Lookup = { list: () => [], which: () => undefined };

describe('missing pieces', () => {
  it('names the package for a missing compiler', () => {
    expect(findCompiler(nowhere)).toEqual({
      missing: 'native allocators: no C compiler, none of cc, gcc, clang (Debian package gcc)',
    });
    const clangOnly = { ...nowhere, which: (name: string) => (name === 'clang' ? '/opt/clang' : undefined) };
    expect(findCompiler(clangOnly)).toEqual({ path: '/opt/clang' });
  });

  it('names the package for each missing library', () => {
    const { paths, missing } = findLibraries(nowhere);
    expect(paths.size).toBe(0);
    expect(missing).toEqual([
      'jemalloc: libjemalloc.so.2 not found (Debian package libjemalloc2)',
      'mimalloc: libmimalloc.so.2 not found (Debian package libmimalloc2.0)',
      'tcmalloc: libtcmalloc_minimal.so.4 not found (Debian package libtcmalloc-minimal4)',
    ]);
  });

  it('prefers the libraries of its own architecture, and looks in the plain folders too', () => {
    const folders: Record<string, string[]> = {
      '/usr/lib': ['aarch64-linux-gnu', 'x86_64-linux-gnu', 'python3'],
      '/usr/lib/aarch64-linux-gnu': ['libjemalloc.so.2'],
      '/usr/lib/x86_64-linux-gnu': ['libjemalloc.so.2', 'libjemalloc.so.2.old', 'libmimalloc.so.2.0'],
      '/usr/local/lib': ['libtcmalloc_minimal.so.4'],
    };
    const { paths, missing } = findLibraries({ ...nowhere, list: (folder) => folders[folder] ?? [] }, 'x64');
    expect(Object.fromEntries(paths)).toEqual({
      jemalloc: '/usr/lib/x86_64-linux-gnu/libjemalloc.so.2',
      mimalloc: '/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0',
      tcmalloc: '/usr/local/lib/libtcmalloc_minimal.so.4',
    });
    expect(missing).toEqual([]);
  });
});

const compiler = findCompiler(realLookup);
const canBuild = process.platform === 'linux' && 'path' in compiler;

describe.runIf(canBuild)('the native program', () => {
  const path = 'path' in compiler ? compiler.path : '';

  it('runs every workload, and frees in the order of the JavaScript loops', async () => {
    const built = await buildNative(path);
    const peer = new NativePeer('glibc', built.program);
    try {
      expect((await peer.greet()).orderCheckSum).toBe(orderCheckSum(freeOrder()));
      for (const row of allRows()) {
        const ns = await peer.run({ ...row, operations: wholeBatches(row.workload, 64_000) });
        expect(ns, rowKey(row)).toBeGreaterThan(1000);
      }
      expect(peer.pids()).toHaveLength(allRows().length);
    } finally {
      await peer.close();
      built.remove();
    }
    expect(existsSync(dirname(built.program))).toBe(false);
  });

  it('says what it did not understand', async () => {
    const built = await buildNative(path);
    const peer = new NativePeer('glibc', built.program);
    const unknown = peer.run({ workload: 'probe', size: 64, threads: 1, operations: 1 });
    await expect(unknown).rejects.toThrow(/exit status 1: peer: unknown workload/);
    await peer.close();
    built.remove();
  });

  it('notices that a library was not preloaded', async () => {
    const built = await buildNative(path);
    const peer = new NativePeer('mimalloc', built.program, '/nonexistent/libmimalloc.so.2');
    await expect(peer.greet()).rejects.toThrow(/libmimalloc.so.2 was not preloaded: malloc is in .*libc/);
    built.remove();
  });

  it('passes on the first complaint of the compiler', async () => {
    const source = join(tmpdir(), `granary-peers-test-${process.pid}.c`);
    writeFileSync(source, 'int main(void) { return nothing; }\n');
    await expect(buildNative(path, source)).rejects.toThrow(/did not compile .*nothing/);
    rmSync(source);
  });

  it('must greet as agreed', () => {
    expect(parseGreeting('ready /lib/libc.so.6 2.36 17')).toEqual({
      library: '/lib/libc.so.6',
      libc: '2.36',
      orderCheckSum: 17,
    });
    expect(() => parseGreeting('hello')).toThrow(/must start with "ready/);
  });
});

describe('the ring', () => {
  it('carries addresses in order, and the reader checks the words it finds', () => {
    const ring = new Int32Array(new SharedArrayBuffer(RING_BYTES));
    const m = new Int32Array(new SharedArrayBuffer(1 << 16));
    let next = 0;
    const freed: number[] = [];
    const heap = {
      alloc: () => {
        next += 4;
        return next;
      },
      free: (p: number) => freed.push(p),
    };
    produce(heap, m, 4096, ring, () => {});
    consume(heap, m, 4096, ring, () => {});
    expect(freed).toEqual(Array.from({ length: 4096 }, (_, i) => (i + 1) * 4));
    next = 0;
    produce(heap, m, 64, ring, () => {});
    m[1] = 77;
    expect(() => consume(heap, m, 64, ring, () => {})).toThrow(
      /64 words read add up to 2093, those written to 2016/,
    );
  });
});

/** A variant whose operations cost what the test says. */
function pretend(variant: Variant, nsPerOp: (row: Row) => number): Peer {
  const peer: { -readonly [K in keyof Peer]: Peer[K] } = {
    variant,
    spoilt: false,
    async run(command) {
      try {
        return nsPerOp(command as Row) * command.operations;
      } catch (e) {
        peer.spoilt = true;
        throw e;
      }
    },
    close: async () => undefined,
    pids: () => [],
  };
  return peer;
}

const pace = { rounds: 4, tries: 3, patienceMs: 60_000, sampleMs: 10, warmUpMs: 20, nativeWarmUpMs: 5 };
const silent = { step: () => {} };

describe('the runner', () => {
  it('takes one sample a round from everybody who can, of the wanted length', async () => {
    const peers = [pretend('granary', () => 10), pretend('glibc', () => 20), pretend('thi.ng', () => 1000)];
    const shares: number[] = [];
    const progress = { step: (_: string, share: number) => shares.push(share) };
    const { series: measured, failures } = await new Runner(peers, [pair1, pair2], pace, 1, progress).run();
    expect(failures).toEqual([]);
    expect(measured.map((s) => `${s.variant} ${s.row.threads}`)).toEqual([
      'granary 1',
      'glibc 1',
      'thi.ng 1',
      'granary 2',
      'glibc 2',
    ]);
    expect(measured.map((s) => s.operations)).toEqual([1e6, 5e5, 1e4, 1e6, 5e5]);
    for (const s of measured) expect(s.nsPerOp).toHaveLength(4);
    expect(shares).toEqual([...shares].sort((a, b) => a - b));
    expect(shares.at(-1)).toBeLessThan(1);
  });

  it('takes a sample again until it is calm, and else the one that came nearest to it', async () => {
    // None of the first round's three tries is calm, the third comes nearest; calm from then on.
    const disturbed = [2, 3, 1.5];
    let bracket = -1;
    const probe = pretendProbe((threads, i) => {
      if (threads === 1) return 1;
      bracket = Math.floor(i / 2);
      return disturbed[bracket] ?? 1;
    });
    const peer = pretend('granary', () => [7, 8, 9][bracket] ?? 10);
    const { series: measured, calm } = await new Runner(
      ...([[peer], [pair1], pace, 1, silent, { gate: await Gate.open(probe) }] as const),
    ).run();
    expect(measured[0]!.nsPerOp).toEqual([9, 10, 10, 10]);
    expect(calm).toBe(0.75);
  });

  it('goes on without a variant that fails, and names it once', async () => {
    const broken = pretend('granary', (row) => {
      if (row.threads === 2) throw new Error('out of memory');
      return 10;
    });
    const { series: measured, failures } = await new Runner(
      [broken, pretend('glibc', () => 20)],
      [pair1, pair2, batch16],
      pace,
      1,
      silent,
    ).run();
    expect(measured.map((s) => s.variant)).toEqual(['glibc', 'glibc', 'glibc']);
    expect(failures).toEqual([
      'granary, pair 64 B, 2 threads: out of memory (its other rows are left out as well)',
    ]);
  });
});

/** Two threads that share nothing; `nsPerStep` gets the threads and how many commands for two came before. */
function pretendProbe(nsPerStep: (threads: number, commands: number) => number): Peer {
  let commands = 0;
  const run: Peer['run'] = async ({ threads, operations }) =>
    operations * nsPerStep(threads, threads === 2 ? commands++ : 0);
  return { ...pretend('glibc', () => 0), variant: 'probe', run };
}

describe('the gate', () => {
  it('finds a bracket calm when both probes ran like one thread alone', async () => {
    const speeds = [1.05, 1.05, 1.05, 1.2, 1.2, 1.05];
    const gate = await Gate.open(pretendProbe((threads, i) => (threads === 1 ? 1 : speeds[i]!)));
    const found = [];
    for (let i = 0; i < 3; i++) found.push(await gate.bracket(async () => i));
    expect(found.map((b) => b.values)).toEqual([[0], [1], [2]]);
    expect(found.map((b) => gate.isCalm(b.slowest))).toEqual([true, false, false]);
  });

  it('probes between two samples as well', async () => {
    const gate = await Gate.open(pretendProbe((threads, i) => (threads === 1 || i !== 1 ? 1 : 2)));
    const found = await gate.bracket(
      async () => 7,
      async () => 8,
    );
    expect(found).toEqual({ values: [7, 8], slowest: 2 });
  });

  it('measures earlier brackets by a faster probe that comes later', async () => {
    const gate = await Gate.open(pretendProbe((threads, i) => (threads === 1 || i < 2 ? 1 : 0.8)));
    const early = await gate.bracket(async () => 0);
    expect(gate.isCalm(early.slowest)).toBe(true);
    const late = await gate.bracket(async () => 0);
    expect([early, late].map((b) => gate.isCalm(b.slowest))).toEqual([false, true]);
  });
});

describe('calm moments', () => {
  const pace = { apartMs: 1, togetherMs: 1, wanted: 2, limitMs: 60_000 };
  const nine = async (): Promise<number> => 9;
  const three: Comparison = { samples: [nine, async () => 3], figure: (above, below) => above / below };

  it('are looked for in each spell until there are enough', async () => {
    // Every other comparison has a slow probe in its middle.
    const gate = await Gate.open(pretendProbe((threads, i) => (threads === 2 && i % 6 === 1 ? 2 : 1)));
    const meter = new MomentMeter(gate, three, pace);
    for (let i = 0; i < 3; i++) await meter.spell();
    expect(meter.result()).toEqual({ calm: new Array(6).fill(3), taken: 12 });
  });

  it('may not come before a spell has to end', async () => {
    const gate = await Gate.open(pretendProbe((threads) => threads));
    const meter = new MomentMeter(gate, three, { ...pace, limitMs: 20 });
    await meter.spell();
    expect(meter.result()!.calm).toEqual([]);
    expect(meter.result()!.taken).toBeGreaterThan(0);
  });

  it('end with the reason when the variant fails, which is left alone then', async () => {
    let calls = 0;
    const broken = async (): Promise<number> => {
      calls++;
      throw new Error('out of memory');
    };
    const gate = await Gate.open(pretendProbe(() => 1));
    const meter = new MomentMeter(gate, { ...three, samples: [broken, nine] }, pace);
    await meter.spell();
    await meter.spell();
    expect([meter.failure, meter.result(), calls]).toEqual(['out of memory', undefined, 1]);
  });

  const figureOf = async ({ samples: [first, second], figure }: Comparison): Promise<number> =>
    figure(await first(), await second());

  it('compare what two threads get done with what one does', async () => {
    const granary = pretend('granary', (row) => (row.threads === 1 ? 9 : 10));
    expect(await figureOf(twoAgainstOne(granary, pair2, 1))).toBeCloseTo(1.8);
  });

  it('compare one variant with another', async () => {
    const [granary, mimalloc] = [pretend('granary', () => 9), pretend('mimalloc', () => 10)];
    expect(await figureOf(timeByTime(granary, mimalloc, ring2, 1))).toBeCloseTo(0.9);
  });
});

const machine: MachineState = {
  environment: { cpu: 'cpu', cores: 2, kernel: 'linux', node: 'v20', v8: '11', loadAverage: [0, 0, 0] },
  busyBefore: 0.01,
  calm: 0.95,
  occupation: { others: 0.02, stolen: 0 },
};

describe('the report', () => {
  it('warns when the machine was not idle', () => {
    expect(warnings(machine)).toEqual([]);
    const busy = {
      ...machine,
      busyBefore: 0.4,
      calm: 0.3,
      occupation: { others: 0.3, stolen: 0.05 },
    };
    expect(warnings(busy)).toEqual([
      '40 % of the processors were busy before the start',
      'two threads that share nothing ran slower than one around 70 % of the samples',
      'other programs used 30 % of the processors during the run',
      "the hypervisor gave 5 % of the processors' time to others",
    ]);
  });

  it('reads the processor times of the system', () => {
    const ticks = parseCpuTicks('cpu  10 1 5 100 4 2 3 7 0 0\ncpu0 1 1 1 1\n');
    expect(ticks).toEqual({ busy: 28, stolen: 7, total: 132 });
    expect(parseCpuTicks('intr 1 2 3')).toBeUndefined();
  });

  it('has a line per row and a column per variant that was measured', () => {
    const figures = new Figures([series('granary', pair1, 5, 6, 7), series('glibc', pair1, 10, 12, 14)]);
    const text = reportText(figures, [pair1, pair2]);
    expect(text).toMatch(/^workload +bytes +threads +granary +glibc$/m);
    expect(text).toMatch(/^pair +64 +1 +6.0 +12.0$/m);
    expect(text).toMatch(/^pair +64 +1 +0.50 0.50..0.50$/m);
    expect(text).toMatch(/^pair +64 +1 +glibc +12.0 +0.50 0.50..0.50$/m);
    expect(text).not.toContain('mimalloc');
  });

  it('has the raw samples in its JSON', () => {
    const figures = new Figures([series('granary', pair1, 5, 6, 7), series('glibc', pair1, 10, 12, 14)]);
    const verdicts = evaluateBars(figures, none);
    const text = reportJson({
      figures,
      moments: none,
      rows: [pair1],
      machine,
      libraries: ['glibc 2.36'],
      seed: 1,
      rounds: 3,
      quick: false,
      notes: [],
      verdicts,
    });
    const parsed = JSON.parse(text);
    expect(parsed.series[0]).toMatchObject({ variant: 'granary', median: 6, nsPerOp: [5, 6, 7] });
    expect(parsed.ratios).toEqual([
      { ours: 'granary', peer: 'glibc', row: 'pair/64/1', median: 0.5, low: 0.5, high: 0.5 },
    ]);
    expect(parsed.bars).toHaveLength(BARS.length);
  });

  it('says how long is left in minutes and seconds', () => {
    expect(formatSeconds(42.4)).toBe('42s');
    expect(formatSeconds(125)).toBe('2m05s');
  });
});

describe('options', () => {
  it('have fewer rounds when quick, unless told', () => {
    expect(parseOptions([])).toMatchObject({ rounds: 15, quick: false, seed: 1, check: false });
    expect(parseOptions(['--quick']).rounds).toBe(3);
    expect(parseOptions(['--quick', '--rounds', '5']).rounds).toBe(5);
  });

  it('refuse what makes no sense, with the value', () => {
    expect(() => parseOptions(['--rounds', '0'])).toThrow(
      '--rounds takes a whole number from 1 to 10000, got "0"',
    );
    expect(() => parseOptions(['--seed', 'x'])).toThrow(/--seed takes a whole number/);
    expect(() => parseOptions(['--filter', '('])).toThrow('--filter takes a regular expression, got "("');
    expect(() => parseOptions(['--fast'])).toThrow(/--fast/);
  });
});
