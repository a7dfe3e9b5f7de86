/**
 * A turn in which nothing is read is nobody's concern. The first read section of a turn tells the others, once; those
 * after it only change a state, and the end of the turn is the quiescent state. So a read section costs two tests and
 * two stores of constants, and a thread that sits in its event loop, parks, leaves or dies holds no grace period up.
 */
import type { ThisCpu, TurnHolder } from '../cpu/index.js';
import { CpuError, requireFunction, type Words } from '../struct/index.js';
import { canSleep, loadAcquire, OWN_WORD_LOCK_CLASSES, storeRelease } from '../sync/index.js';
import { type RcuCallback, RcuCallbacks } from './callbacks.js';
import { GracePeriods, isSince } from './gracePeriod.js';
import { RcuCpu, type RcuCpuPtr, rcuCpuOf } from './rcuRecord.js';
import { type RcuStall, type RcuStallError, stallError, stallText } from './stall.js';

/**
 * Where this thread is with its sections: one field, so that the outermost section of a turn that reads already needs one
 * test at either end. Stores of constants, and not of a count: a count would have each section wait for the one before
 * it, through memory. Above 1 the state is the nesting.
 */
const READING = 0;
const IN_SECTION = 1;
/** The next section is the turn's first and has to tell the others. */
const QUIET = -1;
/** With `debug` every section goes the slow way: DEBUGGING less the nesting. */
const DEBUGGING = -2;

/** A sleeper looks again after this, should a wake have been swallowed by a thread that died. */
const BACKSTOP_MS = 20;
const POLL_MS = 1;

/**
 * Read-copy-update, for one thread: readers take no lock, and what they may be looking at is freed after a grace period,
 * when all who read are done.
 */
export class Rcu implements TurnHolder {
  private readonly cpu: ThisCpu;
  private readonly m: Words;
  private readonly own: RcuCpuPtr;
  private readonly sleeps: boolean;
  /** @internal */
  readonly gracePeriods: GracePeriods;
  private readonly callbacks: RcuCallbacks;
  private state = QUIET;
  /** Whether our seq is not 0. */
  private reading = false;
  private debugging = false;
  private held = false;
  private timer: ReturnType<typeof setTimeout> | undefined;
  /** With `debug`, where the outermost open read section began. */
  private openedAt: Error | undefined;

  /** After so long a wait the CPUs that hold it up are named, once per wait. */
  stallMs = 3_000;
  /** After so long a blocking wait gives up with an RcuStallError. */
  limitMs = 60_000;
  /** Gets the report of a stall. */
  onStall: (stall: RcuStall) => void = (stall) => console.warn(stallText(stall));

  constructor(cpu: ThisCpu) {
    this.cpu = cpu;
    this.m = cpu.m;
    this.own = rcuCpuOf(cpu.geometry, cpu.thread);
    this.sleeps = canSleep(cpu.m);
    this.gracePeriods = new GracePeriods(cpu.m, cpu.geometry);
    this.callbacks = new RcuCallbacks(this.gracePeriods);
  }

  /**
   * Begins a read section: what {@link dereference} finds in it is not freed by a grace period before its end.
   * Sections nest. The outermost must end in the same turn. Kernel: `rcu_read_lock`.
   * @example
   * rcu.readLock();
   * const p = rcu.dereference(slot);
   * const value = p === 0 ? undefined : arena.i32[p >> 2];
   * rcu.readUnlock();
   */
  readLock(): void {
    if (this.state === READING) this.state = IN_SECTION;
    else this.readLockSlow();
  }

  /** Ends the innermost read section. Throws when none is open. Kernel: `rcu_read_unlock`. */
  readUnlock(): void {
    if (this.state === IN_SECTION) this.state = READING;
    else this.readUnlockSlow();
  }

  /**
   * Runs `body` in a read section that is over with it and not with the turn: for callbacks, which run where this thread
   * itself waits for grace periods.
   */
  briefly(body: () => void): void {
    requireFunction('body', body);
    const wasReading = this.reading;
    this.readLock();
    try {
      body();
    } finally {
      this.readUnlock();
      if (!wasReading) this.stopReading();
    }
  }

  /** Notes where read sections begin, for the report of one that was left open. Costs a stack trace each. */
  get debug(): boolean {
    return this.debugging;
  }
  set debug(on: boolean) {
    const { nesting } = this;
    this.debugging = on;
    this.setNesting(nesting);
  }

  /** Callbacks of this thread that have not run. */
  get pending(): number {
    return this.callbacks.pending;
  }

  /** Open read sections of this thread. */
  get depth(): number {
    return this.nesting;
  }

  private get nesting(): number {
    const { state } = this;
    return state <= DEBUGGING ? DEBUGGING - state : state === QUIET ? 0 : state;
  }

  private setNesting(nesting: number): void {
    if (this.debugging) this.state = DEBUGGING - nesting;
    else this.state = nesting === 0 && !this.reading ? QUIET : nesting;
  }

  /** The turn's first section, a nested one, or one whose place is wanted. */
  private readLockSlow(): void {
    if (this.nesting === 0) this.beginReading();
    this.setNesting(this.nesting + 1);
  }

  private readUnlockSlow(): void {
    if (this.nesting === 0) throw new CpuError('readUnlock without readLock: no read section is open');
    this.setNesting(this.nesting - 1);
  }

  /** Loads a published pointer, a word index of the arena. Kernel: `rcu_dereference`. */
  dereference(word: number): number {
    return loadAcquire(this.m, word); // G1; pairs with assignPointer
  }

  /** Publishes a pointer: what was written to it before is visible to who finds it. Kernel: `rcu_assign_pointer`. */
  assignPointer(word: number, p: number): void {
    storeRelease(this.m, word, p); // G1; pairs with dereference
  }

  /**
   * For long synchronous loops, outside of read sections: grace periods need not wait for the end of the turn. Kernel:
   * `cond_resched_tasks_rcu_qs`.
   */
  quiescent(): void {
    if (this.nesting !== 0) throw new CpuError(this.openText('quiescent() was called'));
    if (this.m[this.cpu.record]! < 0) this.cpu.serveRequests();
    if (this.reading) {
      storeRelease(this.m, this.own + RcuCpu.seq, this.gracePeriods.current); // G4
      this.gracePeriods.wakeWaiters();
    }
    if (this.callbacks.pending > 0) this.runCallbacks();
  }

  /**
   * Runs `callback` on this thread after a grace period: at the end of a turn, in quiescent() or from a timer. It may
   * allocate and free. Kernel: `call_rcu`.
   */
  call(callback: RcuCallback): void {
    this.cpu.assertOnline();
    if (typeof callback !== 'function') throw new TypeError('callback must be a function');
    this.m[this.own + RcuCpu.queued] = (this.m[this.own + RcuCpu.queued]! + 1) | 0;
    this.callbacks.add(callback);
    this.armTimer();
  }

  /**
   * A grace period that begins now, as a number for {@link poll}. Kernel: `start_poll_synchronize_rcu`.
   * @example
   * const number = rcu.request(); // after the last pointer to it was overwritten
   * if (rcu.poll(number)) cache.free(old);
   */
  request(): number {
    this.cpu.assertOnline();
    return this.gracePeriods.request();
  }

  /** Whether that grace period is over. Waits for nothing. Kernel: `poll_state_synchronize_rcu`. */
  poll(number: number): boolean {
    return this.gracePeriods.poll(number);
  }

  /**
   * Waits, blocking, until all who read now are done. Ends this turn. Throws CpuError in a read section, RcuStallError
   * after limitMs. Kernel: `synchronize_rcu`.
   */
  synchronize(): void {
    this.becomeQuiescent('synchronize() was called');
    this.waitFor(this.gracePeriods.request());
  }

  /** The same without blocking. */
  async synchronizeAsync(): Promise<void> {
    this.becomeQuiescent('synchronizeAsync() was called');
    const number = this.gracePeriods.request();
    await this.until(
      () => this.gracePeriods.poll(number),
      () => this.gracePeriods.holdouts(number),
    );
  }

  /**
   * Waits, blocking, until all callbacks that any thread has given have run. Those of other threads run in their
   * turns: a thread that blocks in one is named after limitMs. Kernel: `rcu_barrier`.
   */
  barrier(): void {
    this.becomeQuiescent('barrier() was called');
    this.drainOwn();
    const others = this.outstanding();
    const deadline = performance.now() + this.limitMs;
    while (others.some((other) => !this.isDone(other))) {
      const late = others.filter((other) => !this.isDone(other)).map(({ cpu }) => cpu);
      if (performance.now() > deadline) throw this.stalled(late, 'did not run their callbacks');
      this.sleepUntil(() => !others.some((other) => !this.isDone(other)));
      if (this.callbacks.pending > 0) this.runCallbacks();
    }
  }

  /** The same without blocking. */
  async barrierAsync(): Promise<void> {
    this.becomeQuiescent('barrierAsync() was called');
    const all = [...this.outstanding(), this.mark(this.cpu.thread)];
    await this.until(
      () => {
        this.runCallbacks();
        return all.every((each) => this.isDone(each));
      },
      () => all.filter((each) => !this.isDone(each)).map(({ cpu }) => cpu),
    );
  }

  /** The turn ends. Kernel: a context switch, and "sleeping in a read-side critical section" if one is open. @internal */
  release(): void {
    this.held = false;
    const text = this.nesting === 0 ? '' : this.openText('the turn ended');
    this.stopReading();
    this.setNesting(0);
    if (this.callbacks.pending > 0) this.runOrDefer();
    if (text !== '') throw new CpuError(text, { cause: this.openedAt });
  }

  /** Read sections are not what other CPUs ask for. @internal */
  releaseIfRequested(): void {}

  /** Before the slot is given back: runs what it still has to. @internal */
  goOffline(): void {
    this.becomeQuiescent('offline() was called');
    this.drainOwn();
  }

  /** The slot is given back now. Nobody runs what was given since goOffline, so nobody may wait for it. @internal */
  leave(): void {
    this.disarmTimer();
    this.callbacks.clear();
    const lost = this.gracePeriods.forget(this.cpu.thread);
    if (lost > 0)
      console.warn(`${lost} RCU callbacks were given too late in offline() to run: they are lost`);
  }

  private beginReading(): void {
    if (this.debugging) this.openedAt = new Error('the read section began here');
    if (this.reading) return;
    this.cpu.assertOnline();
    this.reading = true;
    storeRelease(this.m, this.own + RcuCpu.seq, this.gracePeriods.current); // G1, G3
    this.holdForTurn();
  }

  private stopReading(): void {
    if (!this.reading) return;
    this.reading = false;
    if (this.state === READING) this.state = QUIET;
    storeRelease(this.m, this.own + RcuCpu.seq, 0); // G4
    this.gracePeriods.wakeWaiters();
  }

  private holdForTurn(): void {
    if (this.held) return;
    this.held = true;
    this.cpu.holdForTurn(this);
  }

  /** Before this thread waits: a wait inside of a read section would wait for itself. */
  private becomeQuiescent(what: string): void {
    this.cpu.assertOnline();
    if (this.nesting !== 0) throw new CpuError(this.openText(what));
    this.cpu.endTurn();
    this.stopReading();
    // Other CPUs' sheaves may be ours, to end their cache: nobody waits for those without a limit.
    this.cpu.lockdep.mightSleep('a wait for RCU', OWN_WORD_LOCK_CLASSES);
  }

  private openText(what: string): string {
    const nested = this.nesting > 1 ? `, ${this.nesting} deep` : '';
    return `${what} with a read section open${nested}: readUnlock() must come first`;
  }

  private waitFor(number: number): void {
    const start = performance.now();
    let reported = false;
    while (!this.gracePeriods.poll(number)) {
      const waitedMs = performance.now() - start;
      if (waitedMs > this.limitMs)
        throw this.stalled(this.gracePeriods.holdouts(number), 'were not quiescent');
      if (!reported && waitedMs > this.stallMs) {
        reported = true;
        this.onStall({ cpus: this.gracePeriods.holdouts(number), waitedMs });
      }
      this.sleepUntil(() => this.gracePeriods.poll(number));
    }
  }

  private async until(done: () => boolean, holdouts: () => number[]): Promise<void> {
    const start = performance.now();
    let reported = false;
    while (!done()) {
      const waitedMs = performance.now() - start;
      if (waitedMs > this.limitMs) throw this.stalled(holdouts(), 'held it up');
      if (!reported && waitedMs > this.stallMs) {
        reported = true;
        this.onStall({ cpus: holdouts(), waitedMs });
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      this.cpu.assertOnline();
    }
  }

  private stalled(cpus: number[], what: string): RcuStallError {
    return stallError(this.limitMs, cpus, what);
  }

  /** Runs this thread's callbacks to the last, those that they add included. */
  private drainOwn(): void {
    while (this.callbacks.pending > 0) {
      this.waitFor(this.callbacks.lastGracePeriod()!);
      this.runCallbacks();
    }
    this.disarmTimer();
  }

  private runCallbacks(): void {
    const ran = this.callbacks.run();
    if (ran > 0) {
      const at = this.own + RcuCpu.invoked;
      storeRelease(this.m, at, (this.m[at]! + ran) | 0); // pairs with isDone
      this.gracePeriods.wakeWaiters();
    }
    if (this.callbacks.pending > 0) this.armTimer();
  }

  /** A turn may also end within an operation, when that has to wait for memory: callbacks must not run in the middle. */
  private runOrDefer(): void {
    if (this.cpu.depth === 0) this.runCallbacks();
    else this.armTimer();
  }

  private armTimer(): void {
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      if (this.cpu.online) this.runCallbacks();
    }, POLL_MS);
  }

  private disarmTimer(): void {
    if (this.timer !== undefined) clearTimeout(this.timer);
    this.timer = undefined;
  }

  private mark(cpu: number): { cpu: number; queued: number } {
    return { cpu, queued: loadAcquire(this.m, rcuCpuOf(this.cpu.geometry, cpu) + RcuCpu.queued) };
  }

  private outstanding(): { cpu: number; queued: number }[] {
    return Array.from({ length: this.cpu.geometry.threads }, (_, cpu) => this.mark(cpu)).filter(
      (mark) => mark.cpu !== this.cpu.thread && !this.isDone(mark),
    );
  }

  private isDone({ cpu, queued }: { cpu: number; queued: number }): boolean {
    return isSince(loadAcquire(this.m, rcuCpuOf(this.cpu.geometry, cpu) + RcuCpu.invoked), queued);
  }

  /** Until somebody becomes quiescent or has run callbacks, or for a moment; where it may not sleep, not at all. */
  private sleepUntil(done: () => boolean): void {
    if (this.sleeps) this.gracePeriods.sleep(done, BACKSTOP_MS);
  }
}
