/** Roles that use percpu memory together: areas change hands through the control buffer. */
import { Arena, GFP_ATOMIC, GFP_KERNEL } from '../../src/index.js';
import { exchange } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';

export interface PercpuChurn {
  allocs: number;
  frees: number;
  /** Atomic allocations that found nothing. */
  failures: number;
  balances: number;
  errors: string[];
}

/** Places in the control buffer in which an area lies until another thread takes it. */
export const PLACES = 32;
/** Of 20 steps: on a machine that is busy, time alone would mean nothing. */
const ROUNDS_MIN = 20;
const SIZES = [4, 16, 16, 64, 100, 256, 1000, 4096, 9000, 32768];

/** What is in the first word of each copy: nobody else writes it while the area lives. */
const cookie = (p: number, cpu: number): number => Math.imul(p ^ (cpu << 4), 0x9e3779b1);

class Churn {
  readonly result: PercpuChurn = { allocs: 0, frees: 0, failures: 0, balances: 0, errors: [] };
  private readonly arena: Arena;
  private readonly control: Control;
  private readonly below: (n: number) => number;
  private readonly held: number[] = [];

  constructor(task: LitmusTask) {
    this.arena = Arena.attach(task.handle!);
    this.arena.online({ cpu: number(task, 'cpu') });
    this.control = new Control(task.control);
    this.below = random(number(task, 'seed'));
  }

  run(ms: number): PercpuChurn {
    this.control.arrive();
    const end = performance.now() + ms;
    for (let rounds = 0; rounds < ROUNDS_MIN || performance.now() < end; rounds++) {
      if (this.result.errors.length > 0) break;
      for (let i = 0; i < 20; i++) this.step();
      this.arena.endTurn();
    }
    // All areas at once, and all back: chunks come and go.
    while (this.held.length > 0) this.drop(this.held.pop()!);
    this.arena.offline();
    return this.result;
  }

  private step(): void {
    const chance = this.below(16);
    if (chance === 0) this.trade();
    else if (chance === 1 && this.below(8) === 0) {
      this.arena.percpu.balance();
      this.result.balances++;
    } else if (this.held.length < 40 && chance < 10) this.take();
    else if (this.held.length > 0) this.drop(this.held.splice(this.below(this.held.length), 1)[0]!);
  }

  private take(): void {
    const size = SIZES[this.below(SIZES.length)]!;
    const p = this.arena.allocPercpu(size, 4, this.below(4) === 0 ? GFP_ATOMIC : GFP_KERNEL);
    if (p === 0) {
      this.result.failures++;
      return;
    }
    this.result.allocs++;
    for (let cpu = 0; cpu < this.arena.geometry.cpus; cpu++) {
      const at = this.arena.perCpuPtr(p, cpu) >> 2;
      if (this.arena.i32[at] !== 0) this.fail(`0x${p.toString(16)} is not zeroed on CPU ${cpu}`);
      this.arena.i32[at] = cookie(p, cpu);
    }
    this.held.push(p);
  }

  private drop(p: number): void {
    for (let cpu = 0; cpu < this.arena.geometry.cpus; cpu++) {
      const at = this.arena.perCpuPtr(p, cpu) >> 2;
      if (this.arena.i32[at] !== cookie(p, cpu))
        this.fail(`0x${p.toString(16)} was overwritten on CPU ${cpu}`);
    }
    this.arena.freePercpu(p);
    this.result.frees++;
  }

  private trade(): void {
    // Pairs with the same exchange of another thread: who gets the area sees what was written into it.
    const got = exchange(this.control.m, FREE_WORDS + this.below(PLACES), this.held.pop() ?? 0);
    if (got !== 0) this.held.push(got);
  }

  private fail(what: string): void {
    if (this.result.errors.length < 5) this.result.errors.push(what);
  }
}

/** Adds 1 to a counter, and to another within a limit, until it has done so `n` times. */
function count(task: LitmusTask): number {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const [free, limited, limit] = [number(task, 'free'), number(task, 'limited'), number(task, 'limit')];
  control.arrive();
  let added = 0;
  for (let i = 0; i < number(task, 'n'); i++) {
    arena.percpu.counters.add(free, 1);
    if (arena.percpu.counters.limitedAdd(limited, limit, 1, 8)) added++;
  }
  arena.offline();
  return added;
}

export const PERCPU_ROLES = {
  'percpu-churn': (task: LitmusTask): PercpuChurn => new Churn(task).run(number(task, 'ms')),
  'percpu-count': count,
};
