/**
 * Address spaces: what processes do to their maple trees and areas. The shapes of will-it-scale's brk1, mmap1 and mmap2,
 * the stress of 50 areas, and page faults of many threads in one space while another thread changes it.
 *
 * Each thread of the first four has a space of its own, as will-it-scale's processes have.
 */
import type { Arena } from '../../arena.js';
import { type Mm, VM_READ, VM_WRITE } from '../../mm/index.js';
import { fetchAdd, loadAcquire } from '../../sync/index.js';
import { OutOfArenaError, seedFor, type Workload, type WorkloadContext, xorshift32 } from './workload.js';

const PAGE = 4096;
const BASE = 0x100000;
/** What a small process has mapped besides: program, libraries, stack. */
const RESIDENT = 24;
/** will-it-scale maps so much at once. */
const BIG = 128 << 20;
const AREAS = 50;
const AREA_BYTES = 16 * PAGE;
/** Operations between two quiescent states: so often a process enters the kernel anew at least. */
const QUIESCENT_EVERY = 32;
const READ_WRITE = VM_READ | VM_WRITE;

function newSpace(arena: Arena): Mm {
  const mm = arena.mms.create();
  if (mm === null) throw new OutOfArenaError();
  for (let i = 0; i < RESIDENT; i++) mapAt(mm, BASE + 2 * i * PAGE, PAGE, 1 + i);
  return mm;
}

function mapAt(mm: Mm, at: number, bytes: number, flags: number): void {
  if (mm.map(bytes, { at, flags }) === 0) throw new OutOfArenaError();
}

/** Where no two areas of a loop are alike, they are not joined. */
const flagsOf = (i: number): number => ((i & 1) << 4) | READ_WRITE;

/** Maps an area and unmaps it. */
function mmap1(arena: Arena, mm: Mm, n: number): void {
  for (let i = 0; i < n; i++) {
    const start = mm.map(BIG, { flags: READ_WRITE });
    if (start === 0 || mm.unmap(start, BIG) !== 1) throw new OutOfArenaError();
    if (i % QUIESCENT_EVERY === 0) arena.rcu.quiescent();
  }
}

/** Maps an area, unmaps the half that begins at an offset, then the rest. */
function mmap2(arena: Arena, mm: Mm, n: number): void {
  for (let i = 0; i < n; i++) {
    const start = mm.map(BIG, { flags: READ_WRITE });
    const unmapped =
      start !== 0 && mm.unmap(start + BIG / 2, BIG / 2) === 1 && mm.unmap(start, BIG / 2) === 1;
    if (!unmapped) throw new OutOfArenaError();
    if (i % QUIESCENT_EVERY === 0) arena.rcu.quiescent();
  }
}

/** Grows the heap by a page and shrinks it again. */
function brk1(arena: Arena, mm: Mm, n: number): void {
  const end = 0x1000000;
  if (!mm.brk(end) || !mm.brk(end + PAGE)) throw new OutOfArenaError();
  for (let i = 0; i < n; i++) {
    if (!mm.brk(end + 2 * PAGE) || !mm.brk(end + PAGE)) throw new OutOfArenaError();
    if (i % QUIESCENT_EVERY === 0) arena.rcu.quiescent();
  }
}

/** Maps 50 areas, touches each, and unmaps them; an operation is one area's. */
function areas50(arena: Arena, mm: Mm, n: number): void {
  const starts = new Int32Array(AREAS);
  for (let cycle = 0; cycle < n / AREAS; cycle++) {
    for (let i = 0; i < AREAS; i++) {
      const start = mm.map(AREA_BYTES, { flags: flagsOf(i) });
      if (start === 0) throw new OutOfArenaError();
      starts[i] = start;
    }
    for (let i = 0; i < AREAS; i++) mm.fault(starts[i]! + PAGE);
    for (let i = 0; i < AREAS; i++) if (mm.unmap(starts[i]!, AREA_BYTES) !== 1) throw new OutOfArenaError();
    arena.rcu.quiescent();
  }
}

type Loop = (arena: Arena, mm: Mm, n: number) => void;

function spaceWorkload(name: string, about: string, loop: Loop, granule = 1): Workload {
  return {
    name,
    about,
    granule,
    threadsPerOp: 1,
    prepare: ({ arena }, ops) => {
      let mm: Mm | undefined;
      return {
        allocs: ops,
        frees: ops,
        fill: () => {
          mm = newSpace(arena);
        },
        run: () => loop(arena, mm!, ops),
        drain: () => arena.mms.destroy(mm!),
      };
    },
  };
}

/** Areas that are not changed, one page of every two. */
const FIXED = 256;
const FAULTS_PER_TURN = 256;
/** Where the changes are, above all that faults look for. */
const CHANGING = BASE + 2 * FIXED * PAGE;

// Words that the threads share.
const SPACE = 0;
const DONE = 16;

function faultLoop(arena: Arena, mm: Mm, n: number, seed: number, lockless: boolean): void {
  let x = seed;
  let found = 0;
  for (let i = 0; i < n; i++) {
    x = xorshift32(x);
    const address = BASE + 2 * PAGE * ((x >>> 0) % FIXED) + 64;
    if (lockless ? mm.fault(address) : mm.faultUnderMmapLock(address)) found++;
    if (i % FAULTS_PER_TURN === 0) arena.rcu.quiescent();
  }
  if (found !== n) throw new Error(`${n - found} of ${n} page faults found no area`);
}

/** Maps and unmaps until all others are done. */
function changeLoop(arena: Arena, mm: Mm, shared: Int32Array, others: number): void {
  // Pairs with the fetchAdd of each thread that is done.
  for (let i = 0; loadAcquire(shared, DONE) < others; i++) {
    const at = CHANGING + 2 * PAGE * (i % 64);
    mapAt(mm, at, PAGE, READ_WRITE);
    if (i % 2 === 1) mm.unmap(at, PAGE);
    arena.rcu.quiescent();
  }
}

/** Page faults of all threads but the last, which maps and unmaps meanwhile; alone, a thread only faults. */
export function faults(lockless: boolean): Workload {
  return {
    name: lockless ? 'faults-vma-lock' : 'faults-mmap-lock',
    about: `page faults in one space that another thread changes, ${lockless ? 'by RCU and VMA lock' : 'under mmap_lock'}`,
    granule: 1,
    threadsPerOp: 1,
    sharedWords: () => DONE + 1,
    prepare: (context, ops) => prepareFaults(context, ops, lockless),
  };
}

function prepareFaults(context: WorkloadContext, ops: number, lockless: boolean) {
  const { arena, rank, threads, shared, seed } = context;
  let mm: Mm | undefined;
  const changes = threads > 1 && rank === threads - 1;
  return {
    allocs: ops,
    frees: ops,
    fill: () => {
      if (rank === 0) {
        mm = newSpace(arena);
        for (let i = 0; i < FIXED; i++) mapAt(mm, BASE + 2 * i * PAGE, PAGE, flagsOf(i));
        shared[SPACE] = mm.address;
      }
      context.barrier();
      mm ??= arena.mms.open(shared[SPACE]!);
    },
    run: () => {
      if (changes) return changeLoop(arena, mm!, shared, threads - 1);
      try {
        faultLoop(arena, mm!, ops, seedFor(seed, rank), lockless);
      } finally {
        fetchAdd(shared, DONE, 1); // pairs with the load in changeLoop
      }
    },
    drain: () => {
      if (rank === 0) arena.mms.destroy(mm!);
    },
  };
}

export const MM_WORKLOADS: readonly Workload[] = [
  spaceWorkload('mmap1', 'map 128 MiB, unmap it', mmap1),
  spaceWorkload('mmap2', 'map 128 MiB, unmap the half from an offset on, then the rest', mmap2),
  spaceWorkload('brk1', 'grow the heap by a page, shrink it', brk1),
  spaceWorkload('areas-50', 'map 50 areas, touch each, unmap them', areas50, AREAS),
  faults(false),
  faults(true),
];
