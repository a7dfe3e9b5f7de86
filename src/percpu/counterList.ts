/**
 * The list of percpu counters, for folding the part of a CPU that goes. Under percpu_counters_lock. One store puts a
 * counter on it and one takes it off: read forwards, the list is whole at any moment.
 */
import { type Ptr, struct, WORD_BYTES } from '../struct/index.js';
import { Lock } from '../sync/index.js';
import { PcpuRoot, type PcpuView } from './layout.js';

/** Kernel: `struct percpu_counter`. Lies in an object of its user, at an address that is a multiple of 8. */
export const PercpuCounter = struct('percpu_counter', {
  lock: Lock.SIZEOF,
  /** A double, exact to 2^53 where the kernel's is exact to 2^63. */
  count: 2,
  next: 1,
  prev: 1,
  /** Percpu address of the parts that the CPUs have, 0 when the counter is not initialised. */
  counters: 1,
  unused: 1,
});
export type PercpuCounterPtr = Ptr<'percpu_counter'>;

/** Bytes of a counter: how far apart those of an array are. */
export const PERCPU_COUNTER_BYTES = PercpuCounter.SIZEOF * WORD_BYTES;

const { next: NEXT, prev: PREV } = PercpuCounter;
const { counters: HEAD } = PcpuRoot;
/** A list that is longer is a cycle. */
const COUNTERS_MAX = 1 << 24;

export function linkCounter(v: PcpuView, fbc: PercpuCounterPtr): void {
  const { m, root } = v;
  const first = m[root + HEAD]!;
  m[fbc + NEXT] = first;
  m[fbc + PREV] = 0;
  if (first !== 0) m[first + PREV] = fbc;
  m[root + HEAD] = fbc;
}

export function unlinkCounter(v: PcpuView, fbc: PercpuCounterPtr): void {
  const { m, root } = v;
  const next = m[fbc + NEXT]!;
  const prev = m[fbc + PREV]!;
  m[prev === 0 ? root + HEAD : prev + NEXT] = next;
  if (next !== 0) m[next + PREV] = prev;
}

/** All counters from the front; ends where a link leads out of the arena, or back. */
export function countersInOrder(v: PcpuView): PercpuCounterPtr[] {
  const { m, root } = v;
  const found: PercpuCounterPtr[] = [];
  for (let fbc = m[root + HEAD]!; fbc > 0 && fbc + PercpuCounter.SIZEOF <= m.length; fbc = m[fbc + NEXT]!) {
    if (found.length === COUNTERS_MAX) break;
    found.push(fbc as PercpuCounterPtr);
  }
  return found;
}

export function setBackLinks(v: PcpuView): void {
  let prev = 0;
  for (const fbc of countersInOrder(v)) {
    v.m[fbc + PREV] = prev;
    prev = fbc;
  }
}
