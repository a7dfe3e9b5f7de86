/** Roles that end in the middle of something: they exit, return, or are killed by the test. */
import { Arena, type KmemCache, type PrefilledSheaf } from '../../src/index.js';
import { LOCK_CLASS_NAMES, type LockClassId, type LockPtr, type Locks } from '../../src/sync/index.js';
import { Control, type LitmusTask, number, random } from './control.js';

function join(task: LitmusTask): { arena: Arena; control: Control; cache: KmemCache } {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  return { arena, control: new Control(task.control), cache: arena.openCache('c') };
}

/** Allocates some objects, frees some, and ends within its turn without going offline. */
function leave(task: LitmusTask): number[] {
  const { cache } = join(task);
  const held = Array.from({ length: number(task, 'n') }, () => cache.alloc());
  for (const p of held.splice(0, number(task, 'freed'))) cache.free(p);
  // Without a word to the event loop: no microtask runs any more, so the turn does not end.
  if (task.args.how === 'exit') process.exit(7);
  if (task.args.how === 'throw') throw new Error('on purpose');
  return held;
}

/** Allocates and frees for ever, singly and in bulk; the first free word of the control counts rounds. */
function churn(task: LitmusTask): never {
  const { arena, control, cache } = join(task);
  const below = random(number(task, 'seed'));
  const other = arena.openCache('d');
  const out = new Int32Array(40);
  const held: number[] = [];
  for (;;) {
    control.add(0, 1);
    for (let i = 0; i < 20; i++) {
      const p = cache.alloc();
      if (p !== 0) held.push(p);
    }
    while (held.length > 150 || below(8) !== 0) {
      const p = held.pop();
      if (p === undefined) break;
      cache.free(p);
    }
    const n = 1 + below(40);
    if (other.allocBulk(out, n)) other.freeBulk(out, n);
    const p = other.alloc();
    if (p !== 0) other.free(p);
    if (below(50) === 0) arena.endTurn();
  }
}

/** Borrows sheaves of some sizes, pops a few objects from each, and ends within its turn with all of them borrowed. */
async function borrow(task: LitmusTask): Promise<number[]> {
  const { control, cache } = join(task);
  const held: number[] = [];
  const some = Math.max(2, cache.sheafCapacity);
  const sheaves = [1, some, 30, 3000].map((n) => cache.prefill(n)!);
  sheaves[1] = cache.refill(sheaves[1]!, some + 1)!;
  for (const sheaf of sheaves) held.push(...[sheaf.alloc(), sheaf.alloc()].filter((p) => p !== 0));
  if (task.args.how === 'exit') process.exit(7);
  if (task.args.how === 'throw') throw new Error('on purpose');
  control.set(0, 1);
  if (task.args.how === 'wait') for (;;) control.sleep(1000);
  // Control goes back to the event loop: the turn ends, the loans do not.
  if (task.args.how === 'after the turn') await null;
  return held;
}

/** Borrows, pops, refills, returns and frees without end, until it is killed. */
function churnPrefilled(task: LitmusTask): void {
  const { control, cache } = join(task);
  const below = random(number(task, 'seed'));
  const held: number[] = [];
  const sheaves: PrefilledSheaf[] = [];
  for (;;) {
    control.add(0, 1);
    const n = 1 + below(2 * cache.sheafCapacity);
    const lent = cache.prefill(n);
    if (lent !== null) sheaves.push(lent);
    for (const sheaf of sheaves) {
      for (let i = below(8); i > 0 && sheaf.size > 0; i--) held.push(sheaf.alloc());
    }
    const at = below(sheaves.length + 1);
    if (at < sheaves.length) sheaves[at] = cache.refill(sheaves[at]!, n) ?? sheaves[at]!;
    while (sheaves.length > 3) cache.return(sheaves.splice(below(4), 1)[0]!);
    while (held.length > 100) cache.free(held.pop()!);
  }
}

/** Calls `pass` at each moment at which something of a lock has just happened or is about to. */
function watchLocks(locks: Locks, pass: (moment: string) => void): void {
  const { lock, unlock, noteTry } = locks;
  locks.lock = (at: LockPtr, cls: LockClassId): void => {
    pass(`before ${LOCK_CLASS_NAMES[cls]}`);
    lock.call(locks, at, cls);
    pass(`in ${LOCK_CLASS_NAMES[cls]}`);
  };
  locks.unlock = (at: LockPtr, cls: LockClassId): void => {
    unlock.call(locks, at, cls);
    pass(`after ${LOCK_CLASS_NAMES[cls]}`);
  };
  locks.noteTry = (at: LockPtr, cls: LockClassId, taken: boolean): void => {
    noteTry.call(locks, at, cls, taken);
    pass(`at ${LOCK_CLASS_NAMES[cls]}`);
  };
}

/** What the phases below have borrowed. */
const lent: PrefilledSheaf[] = [];

/** The phases of a scenario in which a thread may be stopped. */
const PHASES: ReadonlyArray<(cache: KmemCache, held: number[], out: Int32Array) => void> = [
  (cache, held) => {
    for (let i = 0; i < 9; i++) held.push(cache.alloc());
  },
  (cache, held) => {
    while (held.length > 0) cache.free(held.pop()!);
  },
  (cache, _, out) => {
    cache.allocBulk(out, 14);
  },
  (cache, _, out) => cache.freeBulk(out, 14),
  (cache, held) => {
    for (const n of [4, 3, 4, 4, 20]) lent.push(cache.prefill(n)!);
    for (const sheaf of lent) held.push(sheaf.alloc());
  },
  (cache) => {
    for (const [i, n] of [4, 10, 2, 4, 20].entries()) lent[i] = cache.refill(lent[i]!, n)!;
  },
  (cache) => {
    while (lent.length > 0) cache.return(lent.shift()!);
  },
];

/**
 * Runs the scenario up to the `at`-th moment of a phase and stops there for ever, having told which it is: word 0 of
 * the control is 1 then, or 2 when the phase ended before.
 */
function stopAt(task: LitmusTask): void {
  const { arena, control, cache } = join(task);
  const held: number[] = [];
  const out = new Int32Array(64);
  const phase = number(task, 'phase');
  for (let i = 0; i < phase; i++) PHASES[i]!(cache, held, out);
  let left = number(task, 'at');
  watchLocks(arena.cpu.locks, () => {
    if (--left !== 0) return;
    control.set(0, 1);
    for (;;) control.sleep(1000);
  });
  PHASES[phase]!(cache, held, out);
  control.set(0, 2);
  for (;;) control.sleep(1000);
}

/** What it gives to kfree_rcu: all ways in. */
function giveToKfreeRcu(arena: Arena, cache: KmemCache, held: number[], done: () => void): void {
  const ways = [
    (p: number) => cache.freeRcu(p),
    (p: number) => cache.freeRcu(p, 8),
    (p: number) => arena.kfreeRcuNolock(p, 8),
  ];
  for (const [i, p] of held.entries()) {
    ways[i % 3]!(p);
    done();
  }
}

/**
 * Stops as `stopAt` does, in kfree_rcu: while objects are given to it, without memory for a list if `pages` is 0, or while
 * a barrier frees them. Word 1 counts the calls that returned.
 */
function stopInKfreeRcu(task: LitmusTask): void {
  const { arena, control, cache } = join(task);
  const held = Array.from({ length: number(task, 'n') }, () => cache.alloc());
  const watch = (): void => {
    let left = number(task, 'at');
    watchLocks(arena.cpu.locks, () => {
      if (--left !== 0) return;
      control.set(0, 1);
      for (;;) control.sleep(1000);
    });
  };
  if (task.args.pages === 0) arena.failPageAlloc(1);
  if (task.args.phase === 'give') watch();
  giveToKfreeRcu(arena, cache, held, () => control.add(1, 1));
  if (task.args.phase === 'free') watch();
  arena.kfreeRcuBarrier();
  control.set(0, 2);
  for (;;) control.sleep(1000);
}

export const KILL_ROLES = { leave, churn, borrow, churnPrefilled, stopAt, stopInKfreeRcu };
