/**
 * CPU slots: which thread is which CPU.
 *
 * | state   | who may change it                              | to      |
 * |---------|------------------------------------------------|---------|
 * | FREE    | a thread that claims it, by compare-exchange    | ONLINE  |
 * | ONLINE  | its own thread, after it flushed its sheaves    | FREE    |
 * | ONLINE  | a survivor that was told the thread is gone     | DYING   |
 * | DYING   | that survivor, after it flushed the slot        | FREE    |
 *
 * The generation grows with each claim and is part of every owner word, so a late write in the name of an earlier
 * thread is recognised.
 */
import { CpuError, type Geometry, LINE_WORDS, type Ptr, struct, type Words } from '../struct/index.js';
import { cmpxchg, GENERATION_MASK, LockRecord, loadAcquire, storeRelease } from '../sync/index.js';

export const CpuRecord = struct(
  'cpu_record',
  // `request` is polled with a plain load in every allocation: its line is written only when somebody asks.
  // `deferred` and `draining` outlive the thread: see deferred.ts.
  {
    request: LINE_WORDS,
    state: 1,
    generation: 1,
    thread: 1,
    deferred: 1,
    draining: 1,
    spare: 11,
    locks: LockRecord.SIZEOF,
  },
  { alignWords: LINE_WORDS },
);
export type CpuRecordPtr = Ptr<'cpu_record'>;

export const CpuState = { FREE: 0, ONLINE: 1, DYING: 2 } as const;

export function cpuRecordOf(geometry: Geometry, cpu: number): CpuRecordPtr {
  return (geometry.cpuRecords + cpu * CpuRecord.SIZEOF) as CpuRecordPtr;
}

/** The node of a CPU: CPUs are dealt to nodes in equal runs, as sockets are. */
export function nodeOfCpu(geometry: Geometry, cpu: number): number {
  return Math.floor((cpu * geometry.nodes) / geometry.cpus);
}

/** States of all CPUs, for reports. */
export function onlineCpus(m: Words, geometry: Geometry): number[] {
  const online: number[] = [];
  for (let cpu = 0; cpu < geometry.cpus; cpu++) {
    if (loadAcquire(m, cpuRecordOf(geometry, cpu) + CpuRecord.state) === CpuState.ONLINE) online.push(cpu);
  }
  return online;
}

/** Takes slot `wanted`, or the lowest free one. Returns the CPU number. */
export function claimCpu(m: Words, geometry: Geometry, wanted: number | undefined, thread: number): number {
  const first = wanted ?? 0;
  const last = wanted ?? geometry.cpus - 1;
  for (let cpu = first; cpu <= last; cpu++) {
    const record = cpuRecordOf(geometry, cpu);
    // Pairs with the release in releaseCpu: the flushed sheaves of the slot's last thread are visible.
    if (cmpxchg(m, record + CpuRecord.state, CpuState.FREE, CpuState.ONLINE) !== CpuState.FREE) continue;
    m[record + CpuRecord.generation] = (m[record + CpuRecord.generation]! + 1) & GENERATION_MASK;
    m[record + CpuRecord.thread] = thread;
    m.fill(0, record + CpuRecord.locks, record + CpuRecord.locks + LockRecord.SIZEOF);
    return cpu;
  }
  if (wanted !== undefined) throw new CpuError(`CPU ${wanted} is taken; omit \`cpu\` to get a free one`);
  throw new CpuError(
    `all ${geometry.cpus} CPU slots are taken; make the arena with more \`cpus\`, or call offline() in a thread that is done`,
  );
}

/** Gives a slot back, for any thread to claim. */
export function releaseCpu(m: Words, geometry: Geometry, cpu: number): void {
  storeRelease(m, cpuRecordOf(geometry, cpu) + CpuRecord.state, CpuState.FREE);
}
