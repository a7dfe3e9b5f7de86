/**
 * Grace periods: when it is certain that nobody reads any more what was unpublished before.
 *
 * Who waits drives: there is no thread for it. A grace period g is over when every CPU is quiescent or has been so
 * since g was asked for. The proof, with R a reader and U who unpublished:
 *
 *  G1  R stores its seq, then loads the pointer. U stores the pointer, then asks for g, then loads R's seq. All four
 *      are sequentially consistent, so either U sees R's seq or R sees the new pointer.
 *  G2  R took its seq from `current`. If U sees a seq older than g, R may have loaded the old pointer: U waits. If it
 *      sees g or younger, R's store came after U asked for g, so after the pointer changed: R sees the new one.
 *  G3  R may load `current` = g - 2, be delayed while U asks for g and sees R quiescent, and then store g - 2. It loads
 *      pointers only after that store, so by G1 it sees the new one; it only holds up later grace periods.
 *  G4  R's end of reading is a sequentially consistent store of 0 (or of a younger number), which U loads: all that R
 *      read happened before what U does next.
 *  G5  Numbers wrap, and are compared by their difference. So `current` gets no more than LEAD_MAX, and a step for each
 *      thread, ahead of the oldest seq and of `completed`: all that are compared are less than 2^31 apart.
 */
import type { Geometry, Words } from '../struct/index.js';
import {
  cmpxchg,
  exchange,
  fetchAdd,
  futexWait,
  futexWake,
  loadAcquire,
  storeRelease,
} from '../sync/index.js';
import {
  FIRST_GRACE_PERIOD,
  GRACE_PERIOD_STEP,
  LEAD_MAX,
  RcuCpu,
  RcuState,
  type RcuStatePtr,
  rcuCpuOf,
  rcuStateOf,
} from './rcuRecord.js';

const { current: CURRENT, completed: COMPLETED, waiters: WAITERS, wake: WAKE } = RcuState;

/** Once per arena, before anybody is online. */
export function initGracePeriods(m: Words, geometry: Geometry): void {
  const state = rcuStateOf(geometry);
  m[state + CURRENT] = FIRST_GRACE_PERIOD;
  m[state + COMPLETED] = FIRST_GRACE_PERIOD;
}

export class GracePeriods {
  private readonly m: Words;
  private readonly geometry: Geometry;
  private readonly state: RcuStatePtr;

  constructor(m: Words, geometry: Geometry) {
    this.m = m;
    this.geometry = geometry;
    this.state = rcuStateOf(geometry);
  }

  /** The number for a CPU that begins to read now. */
  get current(): number {
    return loadAcquire(this.m, this.state + CURRENT);
  }

  /**
   * Asks for a grace period that begins now. Returns its number, for {@link poll}. Kernel:
   * `start_poll_synchronize_rcu`.
   */
  request(): number {
    const { m, state } = this;
    if (this.lead(loadAcquire(m, state + COMPLETED)) >= LEAD_MAX) return this.requestFarAhead();
    return (fetchAdd(m, state + CURRENT, GRACE_PERIOD_STEP) + GRACE_PERIOD_STEP) | 0;
  }

  /**
   * Nobody has polled for very long; or somebody has been reading all the while. Then no number may be given out for which
   * that reader would look younger (G5): all who ask now share the next, and who polls for it afterwards begins it.
   */
  private requestFarAhead(): number {
    const oldest = this.oldestReader();
    this.noteCompleted(oldest);
    return this.lead(oldest) >= LEAD_MAX ? this.snapshot() : this.request();
  }

  /** How far the youngest grace period is ahead of another. */
  private lead(number: number): number {
    return (this.current - number) | 0;
  }

  /**
   * The number of a grace period that would begin now. It asks for none: somebody else's request, or one's own later, or a
   * poll for it, lets it end. Kernel: `get_state_synchronize_rcu`.
   */
  snapshot(): number {
    return (this.current + GRACE_PERIOD_STEP) | 0;
  }

  /** Whether grace period `number` is over. Looks at every CPU if need be. Kernel: `poll_state_synchronize_rcu`. */
  poll(number: number): boolean {
    const { m, state } = this;
    if (isSince(loadAcquire(m, state + COMPLETED), number)) return true;
    const oldest = this.oldestReader();
    this.noteCompleted(oldest);
    return (
      isSince(oldest, number) || (this.beginPutOff(number, oldest) && isSince(this.oldestReader(), number))
    );
  }

  /** Asks for a grace period of which requestFarAhead has only told the number, if that may be now. */
  private beginPutOff(number: number, oldest: number): boolean {
    const before = (number - GRACE_PERIOD_STEP) | 0;
    if (this.current !== before || this.lead(oldest) >= LEAD_MAX) return false;
    cmpxchg(this.m, this.state + CURRENT, before, number); // as the add in request
    return true;
  }

  /** CPUs that hold grace period `number` up. */
  holdouts(number: number): number[] {
    const found: number[] = [];
    for (let cpu = 0; cpu < this.geometry.threads; cpu++) {
      const seq = this.seqOf(cpu);
      if (seq !== 0 && !isSince(seq, number)) found.push(cpu);
    }
    return found;
  }

  /** The thread of `cpu` is gone: it reads no more. Returns how many callbacks died with it. For whoever reaps it. */
  forget(cpu: number): number {
    const { m } = this;
    const own = rcuCpuOf(this.geometry, cpu);
    const queued = m[own + RcuCpu.queued]!;
    const lost = (queued - m[own + RcuCpu.invoked]!) | 0;
    storeRelease(m, own + RcuCpu.invoked, queued);
    storeRelease(m, own + RcuCpu.seq, 0);
    this.wakeWaiters();
    return lost;
  }

  /** A CPU became quiescent: wakes whoever waits for that. The store of its seq comes before (pairs with sleep). */
  wakeWaiters(): void {
    const { m, state } = this;
    // The mark is taken before WAKE moves: who sets it anew after that sleeps on the next number, or not at all.
    if (loadAcquire(m, state + WAITERS) === 0 || exchange(m, state + WAITERS, 0) === 0) return;
    fetchAdd(m, state + WAKE, 1);
    futexWake(m, state + WAKE, Number.POSITIVE_INFINITY);
  }

  /** Sleeps until a CPU becomes quiescent, or the time is over, unless it is done already. May return early. */
  sleep(done: () => boolean, ms: number): void {
    const { m, state } = this;
    const seen = loadAcquire(m, state + WAKE);
    // A mark and no count: who dies in here leaves nothing behind that the next wake does not clear.
    storeRelease(m, state + WAITERS, 1);
    // Looks again after it is marked: a CPU that became quiescent before that did not see it.
    if (!done()) futexWait(m, state + WAKE, seen, ms);
  }

  /** The oldest number that a CPU is reading under; all before it are over. */
  private oldestReader(): number {
    // Loaded first: who begins to read after this has at least this number.
    let oldest = this.current;
    for (let cpu = 0; cpu < this.geometry.threads; cpu++) {
      const seq = this.seqOf(cpu);
      if (seq !== 0 && !isSince(seq, oldest)) oldest = seq;
    }
    return oldest;
  }

  private seqOf(cpu: number): number {
    return loadAcquire(this.m, rcuCpuOf(this.geometry, cpu) + RcuCpu.seq);
  }

  private noteCompleted(number: number): void {
    const { m, state } = this;
    for (let known = loadAcquire(m, state + COMPLETED); !isSince(known, number); ) {
      const seen = cmpxchg(m, state + COMPLETED, known, number);
      if (seen === known) return;
      known = seen;
    }
  }
}

/** Whether `a` is `b` or younger; they are less than 2^31 apart. */
export const isSince = (a: number, b: number): boolean => ((a - b) | 0) >= 0;
