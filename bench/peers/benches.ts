/** The JavaScript variants: from a command to the loop that it measures. */
import type { MemPool } from '@thi.ng/malloc';
import { Arena } from '../../src/index.js';
import type { AddressHeap, AddressLoops } from './loops.js';
import * as loops from './loops.js';
import { freeOrder, type Workload } from './plan.js';
import { type Command, cacheName, PROBE_WORD, type TeamSetup } from './protocol.js';
import { type BeforeSleep, consume, produce } from './ring.js';

export interface Bench {
  /** Everything that does not belong into the measured time; the result does the command's work. */
  prepare(command: Command): () => void;
  close(): void;
}

interface AddressBench {
  readonly heap: AddressHeap;
  readonly words: Int32Array;
  readonly loops: AddressLoops;
  readonly beforeSleep: BeforeSleep;
}

const THI_NG_BYTES = 64 << 20;

const impossible = (setup: TeamSetup, command: Command): Error =>
  new Error(`${setup.kind} has no ${command.workload} with ${command.threads} threads`);

export async function openBench(setup: TeamSetup): Promise<Bench> {
  if (setup.kind === 'probe') return probeBench(setup);
  if (setup.kind === 'Uint8Array') return arrayBench(setup);
  if (setup.kind === 'thi.ng') return await thiNgBench(setup);
  return granaryBench(setup);
}

/** The loop of a command over blocks known by address. */
function addressWork(setup: TeamSetup, ring: Int32Array, bench: AddressBench, command: Command): () => void {
  const { heap, words: m, beforeSleep } = bench;
  const own = bench.loops;
  const n = command.operations;
  switch (command.workload) {
    case 'pair':
      return () => own.pair(n);
    case 'batch-16':
      return () => own.batch16(n);
    case 'batch-1000':
      return () => own.batch1000(n);
    case 'batch-10000':
      return () => own.batch10000(n);
    case 'shuffled-1000':
      return () => own.shuffled1000(n, ORDER);
    case 'producer-consumer':
      return setup.thread === 0
        ? () => produce(heap, m, n, ring, beforeSleep)
        : () => consume(heap, m, n, ring, beforeSleep);
    default:
      throw impossible(setup, command);
  }
}

const ORDER = freeOrder();

function granaryBench(setup: TeamSetup): Bench {
  if (!setup.handle) throw new Error(`a ${setup.kind} worker needs the handle of an arena`);
  const arena = Arena.attach(setup.handle);
  arena.online();
  const ring = new Int32Array(setup.ring);
  const words = arena.i32;
  const beforeSleep = (): void => arena.endTurn();
  // One row per worker: each factory below runs once, or its constants would be none.
  let bulk: ReturnType<typeof loops.bulkLoop> | undefined;
  let bench: AddressBench | undefined;
  const workOf = (command: Command): (() => void) => {
    const heap = arena.openCache(cacheName(command.workload as Workload, command.size));
    if (setup.kind === 'granary-bulk') {
      bulk ??= loops.bulkLoop(heap, words);
      const loop = bulk;
      return () => loop(command.operations);
    }
    bench ??= { heap, words, loops: loops.addressLoops(heap, words), beforeSleep };
    return addressWork(setup, ring, bench, command);
  };
  return {
    prepare(command) {
      const work = workOf(command);
      return () => {
        work();
        arena.endTurn();
      };
    },
    close: () => arena.offline(),
  };
}

/** A pool serves every size; the loops want an allocator of one. */
class PoolHeap implements AddressHeap {
  readonly pool: MemPool;
  readonly size: number;

  constructor(pool: MemPool, size: number) {
    this.pool = pool;
    this.size = size;
  }

  alloc(): number {
    return this.pool.malloc(this.size);
  }

  free(p: number): boolean {
    return this.pool.free(p);
  }
}

async function thiNgBench(setup: TeamSetup): Promise<Bench> {
  const { MemPool } = await import('@thi.ng/malloc').catch(() => {
    throw new Error('@thi.ng/malloc is not installed (npm install --save-dev @thi.ng/malloc)');
  });
  const buf = new SharedArrayBuffer(THI_NG_BYTES);
  const pool = new MemPool({ buf });
  const words = new Int32Array(buf);
  const ring = new Int32Array(setup.ring);
  return {
    prepare(command) {
      if (command.threads !== 1) throw impossible(setup, command);
      // Its one list would carry blocks from row to row.
      pool.freeAll();
      const heap = new PoolHeap(pool, command.size);
      return addressWork(
        setup,
        ring,
        { heap, words, loops: loops.addressLoops(heap, words), beforeSleep: () => {} },
        command,
      );
    },
    close: () => {},
  };
}

function arrayBench(setup: TeamSetup): Bench {
  const works: Partial<Record<Command['workload'], (size: number, n: number, order: Int32Array) => void>> = {
    pair: loops.arrayPair,
    'batch-16': loops.arrayBatch16,
    'batch-1000': loops.arrayBatch1000,
    'batch-10000': loops.arrayBatch10000,
    'shuffled-1000': loops.arrayShuffled1000,
  };
  return {
    prepare(command) {
      const work = works[command.workload];
      if (!work) throw impossible(setup, command);
      return () => work(command.size, command.operations, ORDER);
    },
    close: () => {},
  };
}

/**
 * Six chains of additions that do not wait for each other: as many instructions at once as a core can do, so a core
 * that is shared shows. Atomic adds would not do: two threads of one core can wait at the same time.
 */
function probeLoop(n: number): number {
  let [a, b, c, d, e, f] = [1, 2, 3, 4, 5, 6];
  for (let i = 0; i < n; i++) {
    a = (a + i) | 0;
    b = (b ^ i) | 0;
    c = (c + 3) | 0;
    d = (d - i) | 0;
    e = (e ^ (i + 7)) | 0;
    f = (f + (i ^ 5)) | 0;
  }
  return a ^ b ^ c ^ d ^ e ^ f;
}

const PROBE_WARM_UPS = 300;
const PROBE_WARM_UP_STEPS = 20_000;

function probeBench(setup: TeamSetup): Bench {
  const words = new Int32Array(setup.control);
  // Stored where others can reach it, or the compiler might leave the loop out.
  const work = (n: number): void => {
    words[PROBE_WORD] = probeLoop(n);
  };
  for (let i = 0; i < PROBE_WARM_UPS; i++) work(PROBE_WARM_UP_STEPS);
  return { prepare: (command) => () => work(command.operations), close: () => {} };
}
