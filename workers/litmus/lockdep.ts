/** Roles that hold locks of an arena as they should not, or wait for one that is held; each on a thread of its own. */
import { Arena, LockdepError } from '../../src/index.js';
import { LockClass, type LockClassId, type LockPtr } from '../../src/sync/index.js';
import { Control, type LitmusTask, number } from './control.js';

type Args = [LockPtr, LockClassId];

const lockOf = (task: LitmusTask, name: string): Args => [
  number(task, `${name}At`) as LockPtr,
  number(task, name) as LockClassId,
];

function join(task: LitmusTask): Arena {
  const arena = Arena.attach(task.handle!);
  arena.online();
  new Control(task.control).arrive();
  return arena;
}

/** Takes one lock under another. Returns lockdep's report, or nothing. */
function nestLocks(task: LitmusTask): string {
  const arena = join(task);
  const { locks } = arena.cpu;
  const [outer, inner] = [lockOf(task, 'outer'), lockOf(task, 'inner')];
  locks.lock(...outer);
  try {
    locks.lock(...inner);
    locks.unlock(...inner);
    return '';
  } catch (error) {
    if (!(error instanceof LockdepError)) throw error;
    return error.message;
  } finally {
    locks.unlock(...outer);
    arena.offline();
  }
}

/** Ends its turn with a lock held: the error comes from a microtask, and ends the thread. */
async function leakLock(task: LitmusTask): Promise<void> {
  join(task).cpu.locks.lock(...lockOf(task, 'outer'));
  await new Promise((resolve) => setTimeout(resolve, 10_000));
}

/** Waits for a lock that somebody else has, once. */
function waitOnce(task: LitmusTask): void {
  const arena = join(task);
  const { locks } = arena.cpu;
  const lock = number(task, 'lockAt') as LockPtr;
  locks.lock(lock, LockClass.Barn);
  locks.unlock(lock, LockClass.Barn);
  arena.offline();
}

export const LOCKDEP_ROLES = { nestLocks, leakLock, waitOnce };
