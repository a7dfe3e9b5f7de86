import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  compileTrace,
  compileTraceText,
  createReplayCaches,
  createSlotTable,
  finishReplay,
  OP_ARG_SHIFT,
  OP_CROSS,
  OP_FREE,
  OP_KMALLOC,
  OP_WORDS,
  type ReplayCounts,
  ReplayTimeoutError,
  replayCpu,
  summarizeReplay,
  type TraceProgram,
} from '#src/lab/trace/index.js';
import { BumpArena, createMemory } from './fixtures/bumpArena.mjs';

const shipped = fileURLToPath(new URL('../../bench/traces/git.ftrace.txt.gz', import.meta.url));
const workerFile = new URL('fixtures/replayWorker.mjs', import.meta.url);

const line = (cpu: number, rest: string): string => `sh-7 [${cpu}] ..... 1.5: ${rest}\n`;
const alloc = (cpu: number, ptr: number, size = 64): string =>
  line(cpu, `kmalloc: call_site=f ptr=${ptr.toString(16)} bytes_req=${size} bytes_alloc=${size}`);
const cacheAlloc = (cpu: number, ptr: number, name: string): string =>
  line(cpu, `kmem_cache_alloc: call_site=f ptr=${ptr.toString(16)} name=${name} bytes_req=32 bytes_alloc=32`);
const free = (cpu: number, ptr: number): string => line(cpu, `kfree: call_site=f ptr=${ptr.toString(16)}`);

interface Step {
  cpu: number;
  ptr: number;
  /** Free, or allocate from the cache of this number; 0 is kmalloc. */
  action: 'free' | number;
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    cpu: fc.nat(5),
    ptr: fc.integer({ min: 1, max: 12 }),
    action: fc.oneof(fc.constant('free' as const), fc.nat(3)),
  }),
  { maxLength: 120 },
);

const textOf = (list: Step[]): string =>
  list
    .map(({ cpu, ptr, action }) => {
      if (action === 'free') return free(cpu, ptr);
      return action === 0 ? alloc(cpu, ptr, 8 + ptr) : cacheAlloc(cpu, ptr, `cache${action}`);
    })
    .join('');

/** An object by its place: `2:5` is the sixth allocation of target CPU 2; and how it was allocated. */
interface Model {
  /** By target CPU, the objects it frees, in order. */
  frees: string[][];
  live: string[];
  unknown: number;
  implicit: number;
}

/** What the rules say, computed from the events and not from the text. */
function modelOf(list: Step[], cpus: number): Model {
  const model: Model = { frees: Array.from({ length: cpus }, () => []), live: [], unknown: 0, implicit: 0 };
  const allocs = new Array<number>(cpus).fill(0);
  const live = new Map<number, string>();
  for (const { cpu, ptr, action } of list) {
    const target = cpu % cpus;
    const known = live.get(ptr);
    if (known !== undefined) {
      model.frees[target]!.push(known);
      live.delete(ptr);
      if (action !== 'free') model.implicit++;
    } else if (action === 'free') model.unknown++;
    if (action !== 'free') {
      const how = action === 0 ? `kmalloc ${8 + ptr}` : `cache${action}`;
      live.set(ptr, `${target}:${allocs[target]!++} ${how}`);
    }
  }
  model.live = [...live.values()].sort();
  return model;
}

/** Runs a program on a table of names, one operation at a time, on the CPU that `choose` picks. */
class Simulation {
  readonly slots = new Map<number, string>();
  readonly frees: string[][];
  readonly #program: TraceProgram;
  readonly #next: number[];
  readonly #allocs: number[];

  constructor(program: TraceProgram) {
    this.#program = program;
    this.#next = program.ops.map(() => 0);
    this.#allocs = program.ops.map(() => 0);
    this.frees = program.ops.map(() => []);
  }

  run(choose: (ready: number) => number): void {
    for (;;) {
      const left = this.#next
        .map((_, cpu) => cpu)
        .filter((cpu) => this.#next[cpu]! < this.#program.ops[cpu]!.length);
      if (left.length === 0) return;
      const ready = left.filter((cpu) => !this.#waits(cpu));
      if (ready.length === 0) throw new Error('deadlock');
      this.#step(ready[choose(ready.length) % ready.length]!);
    }
  }

  how(op: number): string {
    const arg = op >>> OP_ARG_SHIFT;
    return (op & OP_KMALLOC) === 0 ? this.#program.caches[arg]!.name : `kmalloc ${arg}`;
  }

  #waits(cpu: number): boolean {
    const [op, slot] = this.#op(cpu);
    return (op & OP_FREE) !== 0 && (op & OP_CROSS) !== 0 && !this.slots.has(slot);
  }

  #step(cpu: number): void {
    const [op, slot] = this.#op(cpu);
    this.#next[cpu]! += OP_WORDS;
    const held = this.slots.get(slot);
    if ((op & OP_FREE) === 0) {
      if (held !== undefined) throw new Error(`slot ${slot} already holds ${held}`);
      this.slots.set(slot, `${cpu}:${this.#allocs[cpu]!++} ${this.how(op)}`);
      return;
    }
    if (held === undefined) throw new Error(`slot ${slot} freed while empty`);
    if (!held.endsWith(` ${this.how(op)}`)) throw new Error(`${held} freed as ${this.how(op)}`);
    this.slots.delete(slot);
    this.frees[cpu]!.push(held);
  }

  #op(cpu: number): [number, number] {
    const at = this.#next[cpu]!;
    return [this.#program.ops[cpu]![at]!, this.#program.ops[cpu]![at + 1]!];
  }
}

describe('a compiled program', () => {
  it('does what the trace did, in every order that the slots allow', () => {
    const property = fc.property(
      steps,
      fc.integer({ min: 1, max: 4 }),
      fc.infiniteStream(fc.nat(99)),
      (list, cpus, picks) => {
        fc.pre(list.length > 0);
        const program = compileTraceText(textOf(list), { cpus });
        const model = modelOf(list, cpus);
        const simulation = new Simulation(program);
        simulation.run(() => picks.next().value);
        expect(simulation.frees).toEqual(model.frees);
        expect([...simulation.slots.values()].sort()).toEqual(model.live);
        const { summary, live } = program;
        expect(summary).toMatchObject({ unknownFrees: model.unknown, implicitFrees: model.implicit });
        expect(summary.allocs).toBe(summary.frees + summary.implicitFrees + summary.liveAtEnd);
        for (let at = 0; at < live.length; at += OP_WORDS) {
          expect(simulation.slots.get(live[at + 1]!)).toMatch(new RegExp(` ${simulation.how(live[at]!)}$`));
        }
      },
    );
    fc.assert(property, { numRuns: 300 });
  });

  it('keeps the slots of different CPUs on different cache lines', () => {
    const property = fc.property(steps, (list) => {
      fc.pre(list.length > 0);
      const program = compileTraceText(textOf(list), { cpus: 3 });
      const owner = new Map<number, string>();
      program.ops.forEach((ops, cpu) => {
        for (let at = 0; at < ops.length; at += OP_WORDS) {
          const who = (ops[at]! & OP_CROSS) === 0 ? `cpu ${cpu}` : 'cross';
          const row = ops[at + 1]! >> 5;
          expect(owner.get(row) ?? who).toBe(who);
          owner.set(row, who);
          expect(ops[at + 1]).toBeLessThan(program.slots);
        }
      });
    });
    fc.assert(property, { numRuns: 50 });
  });
});

function singleCpu(text: string, objects = 1000) {
  const program = compileTraceText(text, { cpus: 1 });
  const arena = new BumpArena(createMemory(objects), []);
  createReplayCaches(arena, program);
  return { program, arena, slots: createSlotTable(program) };
}

describe('replaying', () => {
  it('runs the trace that ships, twice on one slot table, and gives everything back', async () => {
    const program = await compileTrace(shipped, { cpus: 1 });
    const arena = new BumpArena(createMemory(2 * program.summary.events), []);
    createReplayCaches(arena, program);
    const slots = createSlotTable(program);
    for (let round = 0; round < 2; round++) {
      const counts = replayCpu(program, arena, 0, slots);
      const total = summarizeReplay(program, [counts], finishReplay(program, arena, slots));
      expect(total).toMatchObject({ replayedAllocs: 24663, replayedFrees: 22537, freedAtEnd: 2126 });
      expect(total).toMatchObject({ lost: 0, failures: 0, cookieErrors: 0, waits: 0, skippedFrees: 0 });
      expect(slots.every((word) => word === 0)).toBe(true);
    }
    expect(arena.turns).toBeGreaterThan(10);
  });

  it('hands every 64th latency to a sink, by kind, and does the same work', async () => {
    const program = await compileTrace(shipped, { cpus: 1 });
    const arena = new BumpArena(createMemory(2 * program.summary.events), []);
    createReplayCaches(arena, program);
    const seen = { allocs: 0, frees: 0, least: Number.POSITIVE_INFINITY };
    const latency = {
      recordAlloc: (ns: number) => {
        seen.allocs++;
        seen.least = Math.min(seen.least, ns);
      },
      recordFree: (ns: number) => {
        seen.frees++;
        seen.least = Math.min(seen.least, ns);
      },
    };
    const counts = replayCpu(program, arena, 0, createSlotTable(program), { latency });
    expect(counts.allocs + counts.frees).toBe(program.ops[0]!.length / OP_WORDS);
    expect(seen.allocs + seen.frees).toBe((counts.allocs + counts.frees) >> 6);
    expect(Math.min(seen.allocs, seen.frees)).toBeGreaterThan(50);
    expect(seen.least).toBeGreaterThanOrEqual(0);
  });

  it('counts allocations that fail, and leaves out their frees', () => {
    const { program, arena, slots } = singleCpu(alloc(0, 1) + alloc(0, 2) + alloc(0, 3) + free(0, 2), 1);
    const counts = replayCpu(program, arena, 0, slots);
    expect(counts).toMatchObject({ allocs: 1, failures: 2, frees: 0, skippedFrees: 1 });
    const finish = finishReplay(program, arena, slots);
    expect(finish).toEqual({ freed: 1, percpuFreed: 0, neverAllocated: 1, cookieErrors: 0 });
    expect(summarizeReplay(program, [counts], finish)).toMatchObject({
      lost: 0,
      failures: 2,
      skippedFrees: 2,
    });
  });

  it('notices an object that is handed out twice', () => {
    const { program, arena, slots } = singleCpu(alloc(0, 1) + alloc(0, 2) + free(0, 1) + free(0, 2));
    arena.kmalloc = () => 256;
    arena.kfree = () => {};
    expect(replayCpu(program, arena, 0, slots).cookieErrors).toBe(1);
  });

  it('gives up, naming CPU and operation, when the other CPU does not come', () => {
    const text = alloc(1, 9) + alloc(0, 1) + free(1, 1);
    const program = compileTraceText(text, { cpus: 2 });
    const arena = new BumpArena(createMemory(9), []);
    const run = () => replayCpu(program, arena, 1, createSlotTable(program), { waitLimitMs: 20 });
    expect(run).toThrow(ReplayTimeoutError);
    expect(run).toThrow(/^replay CPU 1, operation 1: waited \d+ ms for the object of slot 64/);
  });

  it('refuses a CPU that the program does not have, a short slot table, and an early finish', () => {
    const { program, arena, slots } = singleCpu(alloc(0, 1));
    expect(() => replayCpu(program, arena, 1, slots)).toThrow(/cpu must be from 0 to 0/);
    expect(() => replayCpu(program, arena, 0, new Int32Array(3))).toThrow(/slot table has 3 words/);
    expect(() => finishReplay(program, arena, slots)).toThrow(/slot 0 holds no object/);
  });

  it('passes a failed allocation on to the CPU that waits for it', () => {
    const program = compileTraceText(alloc(0, 1) + free(1, 1), { cpus: 2 });
    const arena = new BumpArena(createMemory(0), []);
    const slots = createSlotTable(program);
    const counts = [0, 1].map((cpu) => replayCpu(program, arena, cpu, slots));
    expect(counts).toMatchObject([
      { failures: 1, allocs: 0 },
      { skippedFrees: 1, frees: 0, waits: 0 },
    ]);
  });
});

function replayInWorker(workerData: object): Promise<ReplayCounts> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(workerFile, { workerData });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

describe('replaying on threads', () => {
  it.each([2, 3])('keeps the recorded order of objects that cross between %d CPUs', async (cpus) => {
    const program = crossingProgram(cpus);
    const names: string[] = [];
    const memory = createMemory(program.summary.allocs);
    const arena = new BumpArena(memory, names);
    createReplayCaches(arena, program);
    const slots = createSlotTable(program);
    const jobs = program.ops.map((_, cpu) => replayInWorker({ program, memory, names, cpu, slots }));
    const counts = await Promise.all(jobs);
    const total = summarizeReplay(program, counts, finishReplay(program, arena, slots));
    expect(total).toMatchObject({
      lost: 0,
      cookieErrors: 0,
      failures: 0,
      replayedAllocs: program.summary.allocs,
    });
    expect(total.crossCpuFrees).toBeGreaterThan(10_000);
    expect(slots.every((word) => word === 0)).toBe(true);
  });
});

/** Every CPU allocates and frees the objects of the next one, a window behind. */
function crossingProgram(cpus: number): TraceProgram {
  const events: string[] = [];
  const window = 100;
  for (let i = 0; i < 12_000; i++) {
    events.push(i % 2 === 0 ? alloc(i % cpus, i + 1) : cacheAlloc(i % cpus, i + 1, 'dentry'));
    if (i >= window) events.push(free((i + 1) % cpus, i - window + 1));
  }
  return compileTraceText(events.join(''), { cpus });
}
