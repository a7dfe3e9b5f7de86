/**
 * Thread slots: which thread is which, and which CPU it runs on.
 *
 * A thread slot is what one thread alone writes: owner word, lock record, counters. A CPU slot is what the threads that
 * run on it share: the sheaves. An arena has as many of one as of the other, and they are the same, unless it was made
 * with more `threads` than `cpus`: then thread slot t runs on CPU t % cpus if its thread does not choose another, and
 * the threads of a CPU find each other in the way when they trylock its sheaves.
 *
 * | state   | who may change it                              | to      |
 * |---------|------------------------------------------------|---------|
 * | FREE    | a thread that claims it, by compare-exchange    | ONLINE  |
 * | ONLINE  | its own thread, after it left its CPU           | FREE    |
 * | ONLINE  | a survivor that was told the thread is gone     | DYING   |
 * | DYING   | that survivor, after it reaped the thread       | FREE    |
 * | DYING   | that survivor, when it could not                | ONLINE  |
 * | DYING   | who reaps that survivor, which is gone as well  | ONLINE  |
 *
 * DYING names the survivor, in the same word: there is no moment at which a slot is DYING and nobody's. A slot that is
 * ONLINE again is reaped from the beginning, so each step of that may be done twice (see reap.ts).
 *
 * `runsOn` is 0 from when the thread has left its CPU, which happens under slab_mutex: of two threads that leave at
 * once, the second sees that it is the last. `cameTo` stays until the slot is FREE: who dies in leaving has left things on
 * that CPU, and so has who is reaped for the second time.
 *
 * The generation grows with each claim and is part of every owner word, so a late write in the name of an earlier
 * thread is recognised.
 */
import { CpuError, type Geometry, LINE_WORDS, type Ptr, struct, type Words } from '../struct/index.js';
import {
  cmpxchg,
  GENERATION_MASK,
  LockRecord,
  loadAcquire,
  ownerThread,
  storeRelease,
} from '../sync/index.js';

export const ThreadRecord = struct(
  'thread_record',
  // `request` is polled with a plain load in every allocation: its line is written only when somebody asks.
  {
    request: LINE_WORDS,
    state: 1,
    generation: 1,
    tid: 1,
    runsOn: 1,
    deferred: 1,
    draining: 1,
    /** Slabs in the hands of this thread's constructors and destructors; see slab/slabCallbacks.ts. */
    constructing: 1,
    destructing: 1,
    destructingOf: 1,
    /** The memory group that this thread works for, and what it has charged ahead; see cache/groups/memoryGroup.ts. */
    stockOf: 1,
    stockBytes: 1,
    /** The CPU that the slot's thread came to, plus 1. */
    cameTo: 1,
    /** Counts the changes of `constructing`. */
    constructions: 1,
    /** Bytes on their way between a memory group and what the thread has charged ahead. */
    charging: 1,
    spare: 2,
    locks: LockRecord.SIZEOF,
  },
  { alignWords: LINE_WORDS },
);
export type ThreadRecordPtr = Ptr<'thread_record'>;

export const ThreadState = { FREE: 0, ONLINE: 1, DYING: 2 } as const;
const STATE_BITS = 2;
const STATE_MASK = (1 << STATE_BITS) - 1;

/** The state of a slot that the thread with this owner word reaps. */
const dyingBy = (reaper: number): number => ThreadState.DYING | (reaper << STATE_BITS);

const { state: STATE, runsOn: RUNS_ON, cameTo: CAME_TO } = ThreadRecord;

export function threadRecordOf(geometry: Geometry, thread: number): ThreadRecordPtr {
  return (geometry.threadRecords + thread * ThreadRecord.SIZEOF) as ThreadRecordPtr;
}

/** The node of a CPU: CPUs are dealt to nodes in equal runs, as sockets are. */
export function nodeOfCpu(geometry: Geometry, cpu: number): number {
  return Math.floor((cpu * geometry.nodes) / geometry.cpus);
}

/** Whether several threads may run on one CPU. */
export const sharesCpus = (geometry: Geometry): boolean => geometry.threads > geometry.cpus;

/** What a thread slot is called where people read it: its CPU, if each CPU has one. */
export function threadName(geometry: Geometry, thread: number): string {
  return sharesCpus(geometry) ? `thread slot ${thread}` : `CPU ${thread}`;
}

/** The CPU that a slot's thread runs on, or -1 when it has left, or not yet come. */
export function cpuOfThread(m: Words, geometry: Geometry, thread: number): number {
  return loadAcquire(m, threadRecordOf(geometry, thread) + RUNS_ON) - 1;
}

/** The same until the slot is given back, of a thread that has left, too. For whoever reaps it. */
export function lastCpuOf(m: Words, geometry: Geometry, thread: number): number {
  return m[threadRecordOf(geometry, thread) + CAME_TO]! - 1;
}

/** Whether a thread other than `thread` runs on `cpu`; dead ones count until they are reaped. */
export function hasOtherThread(m: Words, geometry: Geometry, cpu: number, thread: number): boolean {
  for (let other = 0; other < geometry.threads; other++) {
    if (other !== thread && cpuOfThread(m, geometry, other) === cpu) return true;
  }
  return false;
}

/** Thread slots that have a thread. */
export function onlineThreads(m: Words, geometry: Geometry): number[] {
  const online: number[] = [];
  for (let thread = 0; thread < geometry.threads; thread++) {
    if (loadAcquire(m, threadRecordOf(geometry, thread) + STATE) === ThreadState.ONLINE) online.push(thread);
  }
  return online;
}

/** CPUs that have at least one thread, in order. */
export function onlineCpus(m: Words, geometry: Geometry): number[] {
  const cpus = onlineThreads(m, geometry).map((thread) => cpuOfThread(m, geometry, thread));
  return [...new Set(cpus)].filter((cpu) => cpu >= 0).sort((a, b) => a - b);
}

/** What a thread asks for; what it leaves out is chosen for it. */
export interface WantedSlot {
  readonly cpu?: number | undefined;
  readonly thread?: number | undefined;
}

/** Takes a thread slot and puts its thread on a CPU. Returns the slot. `tid` is what the thread calls itself. */
export function claimThread(m: Words, geometry: Geometry, wanted: WantedSlot, tid: number): number {
  const thread = takeSlot(m, geometry, wanted);
  if (thread < 0) throw new CpuError(whyNoSlot(geometry, wanted));
  const record = threadRecordOf(geometry, thread);
  m[record + ThreadRecord.generation] = (m[record + ThreadRecord.generation]! + 1) & GENERATION_MASK;
  m[record + ThreadRecord.tid] = tid;
  m.fill(0, record + ThreadRecord.locks, record + ThreadRecord.locks + LockRecord.SIZEOF);
  const cameTo = (wanted.cpu ?? thread % geometry.cpus) + 1;
  m[record + CAME_TO] = cameTo;
  // Pairs with cpuOfThread: whoever sees it leaves the CPU's sheaves to us.
  storeRelease(m, record + RUNS_ON, cameTo);
  return thread;
}

/** The slot that was asked for; or the lowest free one, of those that belong to the wanted CPU if there is any. */
function takeSlot(m: Words, geometry: Geometry, { cpu, thread }: WantedSlot): number {
  if (thread !== undefined) return tryTake(m, geometry, thread) ? thread : -1;
  const { cpus, threads } = geometry;
  if (cpu !== undefined) {
    for (let slot = cpu; slot < threads; slot += cpus) if (tryTake(m, geometry, slot)) return slot;
    if (!sharesCpus(geometry)) return -1;
  }
  for (let slot = 0; slot < threads; slot++) if (tryTake(m, geometry, slot)) return slot;
  return -1;
}

function tryTake(m: Words, geometry: Geometry, thread: number): boolean {
  const state = threadRecordOf(geometry, thread) + STATE;
  // Pairs with the release in releaseThread: what the slot's last thread did is visible.
  return cmpxchg(m, state, ThreadState.FREE, ThreadState.ONLINE) === ThreadState.FREE;
}

function whyNoSlot(geometry: Geometry, { cpu, thread }: WantedSlot): string {
  const { cpus, threads } = geometry;
  if (thread !== undefined)
    return `${threadName(geometry, thread)} is taken; omit \`thread\` to get a free one`;
  if (sharesCpus(geometry)) {
    return `all ${threads} thread slots of ${cpus} CPUs are taken; make the arena with more \`threads\`, or call offline() in a thread that is done`;
  }
  if (cpu !== undefined) return `CPU ${cpu} is taken; omit \`cpu\` to get a free one`;
  return `all ${cpus} CPU slots are taken; make the arena with more \`cpus\`, or call offline() in a thread that is done`;
}

/** ONLINE becomes DYING, in the hands of `reaper`, an owner word. Throws CpuError that says why it cannot. */
export function beginReap(m: Words, geometry: Geometry, thread: number, reaper: number): void {
  const state = threadRecordOf(geometry, thread) + STATE;
  const seen = cmpxchg(m, state, ThreadState.ONLINE, dyingBy(reaper));
  if (seen === ThreadState.ONLINE) return;
  const name = threadName(geometry, thread);
  if ((seen & STATE_MASK) !== ThreadState.DYING) throw new CpuError(`${name} has no thread`);
  const other = ownerThread(seen >>> STATE_BITS);
  throw new CpuError(
    `${name} is being reaped by another thread, ${threadName(geometry, other)}; if that is gone too, call arena.cpuDead(${other}) before`,
  );
}

/** The thread could not be reaped: anybody may try again. */
export function endReap(m: Words, geometry: Geometry, thread: number): void {
  storeRelease(m, threadRecordOf(geometry, thread) + STATE, ThreadState.ONLINE);
}

/** Slots that `reaper`, which is gone, was reaping: anybody may reap them from now on. Returns them. */
export function endReapsOf(m: Words, geometry: Geometry, reaper: number): number[] {
  const ended: number[] = [];
  for (let thread = 0; thread < geometry.threads; thread++) {
    const state = threadRecordOf(geometry, thread) + STATE;
    // Nobody else changes it but who reaps us meanwhile, with us gone: to the same.
    if (cmpxchg(m, state, dyingBy(reaper), ThreadState.ONLINE) === dyingBy(reaper)) ended.push(thread);
  }
  return ended;
}

/** The thread runs on no CPU any more: the sheaves there are the others', or flushed. slab_mutex held. */
export function leaveCpu(m: Words, geometry: Geometry, thread: number): void {
  storeRelease(m, threadRecordOf(geometry, thread) + RUNS_ON, 0);
}

/** Gives a slot back, for any thread to claim. */
export function releaseThread(m: Words, geometry: Geometry, thread: number): void {
  leaveCpu(m, geometry, thread);
  m[threadRecordOf(geometry, thread) + CAME_TO] = 0;
  storeRelease(m, threadRecordOf(geometry, thread) + STATE, ThreadState.FREE);
}
