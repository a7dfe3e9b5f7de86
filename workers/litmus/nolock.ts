/** Restricted contexts: code that runs inside the locks of the very thread that it interrupts. */
import { Arena } from '../../src/index.js';
import { LockClass, type LockClassId, type LockPtr, type Locks } from '../../src/sync/index.js';
import { Control, type LitmusTask, number, random } from './control.js';

/**
 * Moments of a lock. 'pending' is within lock(), with the lock taken and not yet on the list of held ones; 'before try'
 * and 'after try' are those of a trylock, the latter whether it was taken or not.
 */
export const MOMENTS = [
  'before lock',
  'pending',
  'after lock',
  'before try',
  'after try',
  'before unlock',
  'after unlock',
] as const;
export type LockMoment = (typeof MOMENTS)[number];

/** Calls `pass` at each of them, also within what `pass` does itself. Returns how to end it. */
export function interrupt(
  locks: Locks,
  pass: (cls: LockClassId, moment: LockMoment, at: LockPtr) => void,
): () => void {
  const { lock, tryLock, unlock, noteTry } = locks;
  const open = locks as unknown as { pushHeld?: (at: LockPtr) => void };
  const push = open.pushHeld!;
  const pending: LockClassId[] = [];
  locks.lock = (at: LockPtr, cls: LockClassId): void => {
    pass(cls, 'before lock', at);
    pending.push(cls);
    lock.call(locks, at, cls);
    pass(cls, 'after lock', at);
  };
  open.pushHeld = (at: LockPtr): void => {
    pass(pending.pop()!, 'pending', at);
    push.call(locks, at);
  };
  locks.tryLock = (at: LockPtr, cls: LockClassId): boolean => {
    pass(cls, 'before try', at);
    const taken = tryLock.call(locks, at, cls);
    pass(cls, 'after try', at);
    return taken;
  };
  locks.unlock = (at: LockPtr, cls: LockClassId): void => {
    pass(cls, 'before unlock', at);
    unlock.call(locks, at, cls);
    pass(cls, 'after unlock', at);
  };
  locks.noteTry = (at: LockPtr, cls: LockClassId, taken: boolean): void => {
    noteTry.call(locks, at, cls, taken);
    if (cls === LockClass.CpuSheaves) pass(cls, 'after try', at);
  };
  return () => {
    for (const name of ['lock', 'tryLock', 'unlock', 'noteTry', 'pushHeld'] as const) {
      delete (locks as unknown as Record<string, unknown>)[name];
    }
  };
}

/** What a thread of {@link NOLOCK_ROLES} saw. */
export interface Interrupted {
  rounds: number;
  /** Restricted calls, those that got memory, and those that were made in a lock. */
  calls: number;
  got: number;
  deferred: number;
  errors: string[];
}

const SIZES = [8, 32, 64, 96, 200, 1024];

/** Objects with the owner's cookie at both ends. */
class Owned {
  readonly errors: string[] = [];
  private readonly m: Int32Array;
  private readonly id: number;
  private readonly sizes = new Map<number, number>();
  private readonly list: number[] = [];

  constructor(m: Int32Array, id: number) {
    this.m = m;
    this.id = id;
  }

  get length(): number {
    return this.list.length;
  }

  take(p: number, size: number): void {
    if (this.sizes.has(p)) this.errors.push(`CPU ${this.id}: 0x${p.toString(16)} was handed out twice`);
    this.sizes.set(p, size);
    this.list.push(p);
    this.m[p >> 2] = (this.id << 24) | (p >> 3);
    this.m[(p + size - 4) >> 2] = (this.id << 24) | (p >> 3);
  }

  /** Takes one out of the book, having looked whether anybody else wrote to it. */
  give(at: number): number {
    const p = this.list[at]!;
    this.list[at] = this.list[this.list.length - 1]!;
    this.list.pop();
    const size = this.sizes.get(p)!;
    this.sizes.delete(p);
    const cookie = (this.id << 24) | (p >> 3);
    const intact = this.m[p >> 2] === cookie && this.m[(p + size - 4) >> 2] === cookie;
    if (!intact && this.errors.length < 10)
      this.errors.push(`CPU ${this.id}: 0x${p.toString(16)}, ${size} bytes, was written to`);
    return p;
  }
}

/** Works on the kmalloc caches for some milliseconds, interrupted at every few locks by restricted calls. */
function interrupted(task: LitmusTask): Interrupted {
  const arena = Arena.attach(task.handle!);
  const id = number(task, 'cpu');
  arena.online({ cpu: id });
  const control = new Control(task.control);
  const below = random(number(task, 'seed'));
  const mine = new Owned(arena.i32, id);
  const inner = new Owned(arena.i32, id);
  const seen: Interrupted = { rounds: 0, calls: 0, got: 0, deferred: 0, errors: [] };
  const size = (): number => SIZES[below(SIZES.length)]!;
  let depth = 0;
  const callOff = interrupt(arena.cpu.locks, () => {
    if (depth >= 3 || below(3) !== 0) return;
    depth++;
    const bytes = size();
    const p = arena.kmallocNolock(bytes);
    seen.calls++;
    if (p !== 0) inner.take(p, bytes);
    if (p !== 0) seen.got++;
    while (inner.length > 40 || (inner.length > 0 && below(2) === 0)) {
      arena.kfreeNolock(inner.give(below(inner.length)));
    }
    if (mine.length > 0 && below(8) === 0) arena.kfreeNolock(mine.give(below(mine.length)));
    depth--;
  });
  control.arrive();
  for (const end = performance.now() + number(task, 'ms'); performance.now() < end; seen.rounds++) {
    for (let n = 1 + below(150); n > 0; n--) {
      const bytes = size();
      const p = arena.kmalloc(bytes);
      if (p !== 0) mine.take(p, bytes);
    }
    while (mine.length > 0 && below(200) !== 0) arena.kfree(mine.give(below(mine.length)));
    if (below(4) === 0) arena.endTurn();
    if (below(20) === 0) arena.openCache(`kmalloc-${[8, 32, 64][below(3)]}`).shrink();
  }
  callOff();
  while (mine.length > 0) arena.kfree(mine.give(0));
  while (inner.length > 0) arena.kfreeNolock(inner.give(0));
  arena.offline();
  return { ...seen, errors: [...mine.errors, ...inner.errors] };
}

/** Stops for ever with a list_lock taken and not yet noted as held, and within it in a lock that was tried. */
function stopNested(task: LitmusTask): void {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const { locks } = arena.cpu;
  let nested = false;
  interrupt(locks, (cls, moment, at) => {
    if (!nested && cls === LockClass.ListLock && moment === 'pending') {
      nested = true;
      control.set(1, at);
      arena.kmallocNolock(4096);
    } else if (nested && moment === 'after try' && locks.held > 0) {
      control.set(2, at);
      control.set(0, 1);
      for (;;) control.sleep(1000);
    }
  });
  arena.openCache('c').alloc();
  control.set(0, 2);
}

export const NOLOCK_ROLES = { interrupted, stopNested };
