/**
 * RCU torture. Writers replace what shared slots point to and free the old object after a grace period; readers look
 * at what they found, again and again, until the end of their section. A freed object is poisoned before it goes back,
 * so a reader whose object was freed under it sees the poison. Bugs can be planted, to see that they are found.
 */
import { Arena, type KmemCache, type Rcu } from '../../src/index.js';
import { exchange, loadAcquire } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';

export const SLOTS = 16;
/** Where the slots lie in the control buffer. */
export const SLOTS_AT = FREE_WORDS + 64;
const ALIVE = 0x5a5a;
const POISON = 0xdead;
const SECTIONS_PER_TURN = 200;
const LOOKS = 40;

/** What may be planted; `''` is nothing. */
export type Plant = '' | 'grace period too short' | 'quiescent state too early' | 'freed at once';

export interface Torture {
  reads: number;
  updates: number;
  freed: number;
  errors: string[];
}

interface Member {
  arena: Arena;
  rcu: Rcu;
  control: Control;
  cache: KmemCache;
  roll: (below: number) => number;
  report: Torture;
  /** Counts this thread's objects; the thread's number is in the upper bits. */
  versions: number;
  plant: Plant;
}

function join(task: LitmusTask): Member {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const plant = String(task.args.plant ?? '') as Plant;
  const report: Torture = { reads: 0, updates: 0, freed: 0, errors: [] };
  const roll = random(number(task, 'seed'));
  const { rcu } = arena;
  const member = {
    arena,
    rcu,
    control: new Control(task.control),
    cache: arena.openCache('c'),
    roll,
    report,
    versions: number(task, 'cpu') << 24,
    plant,
  };
  plantBug(member);
  return member;
}

/** Bugs that RCU implementations have had, put into this thread's handle. */
function plantBug({ rcu, plant }: Member): void {
  const { gracePeriods } = rcu;
  if (plant === 'grace period too short') {
    const honest = gracePeriods.poll.bind(gracePeriods);
    gracePeriods.poll = (wanted) => honest((wanted - 2) | 0); // one grace period too few
  }
  if (plant === 'quiescent state too early') {
    const lock = rcu.readLock.bind(rcu);
    const stop = (rcu as unknown as { stopReading(): void }).stopReading.bind(rcu);
    rcu.readLock = () => {
      lock();
      stop(); // this CPU is taken for quiescent in the middle of its section
    };
  }
}

function complain({ report }: Member, what: string): void {
  if (report.errors.length < 5) report.errors.push(what);
}

/** One read section: what is found in a slot stays alive to its end, nested sections included. */
function readOnce(member: Member): void {
  const { arena, rcu, control, roll, report } = member;
  const words = arena.i32;
  rcu.readLock();
  const p = loadAcquire(control.m, SLOTS_AT + roll(SLOTS));
  const nested = roll(4) === 0;
  if (nested) rcu.readLock();
  const version = p === 0 ? 0 : loadAcquire(words, (p >> 2) + 1);
  for (let look = 0; p !== 0 && look < LOOKS; look++) {
    const state = loadAcquire(words, p >> 2);
    const now = loadAcquire(words, (p >> 2) + 1);
    if (state === ALIVE && now === version) continue;
    complain(
      member,
      `an object is 0x${(state >>> 0).toString(16)}, version ${version} and then ${now}, look ${look}`,
    );
    break;
  }
  if (nested) rcu.readUnlock();
  rcu.readUnlock();
  report.reads++;
}

function updateOnce(member: Member): void {
  const { arena, rcu, control, cache, roll, report, plant } = member;
  const words = arena.i32;
  const fresh = cache.alloc();
  if (fresh === 0) return;
  // A reader that still has the object sees in its version that it was given to somebody else.
  words[(fresh >> 2) + 1] = ++member.versions;
  words[fresh >> 2] = ALIVE;
  // An exchange publishes and takes the old one out at once: two writers never free the same object.
  const old = exchange(control.m, SLOTS_AT + roll(SLOTS), fresh);
  report.updates++;
  if (old === 0) return;
  const free = (): void => {
    words[old >> 2] = POISON;
    cache.free(old);
    report.freed++;
  };
  if (plant === 'freed at once') free();
  else if (roll(8) === 0) {
    rcu.synchronize();
    free();
  } else if (roll(2) === 0) {
    cache.freeRcu(old);
    report.freed++;
  } else rcu.call(free);
}

const turnEnd = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function torture(task: LitmusTask): Promise<Torture> {
  const member = join(task);
  const { arena, rcu, control, roll, report } = member;
  const writes = number(task, 'writes');
  control.arrive();
  const deadline = performance.now() + number(task, 'ms');
  while (performance.now() < deadline && report.errors.length === 0 && !control.stopped) {
    for (let i = 0; i < SECTIONS_PER_TURN; i++) {
      if (roll(100) < writes) updateOnce(member);
      else readOnce(member);
      if (roll(64) === 0) rcu.quiescent();
    }
    if (roll(10) === 0) await turnEnd();
    else arena.endTurn();
    if (roll(200) === 0) {
      return resumeAs(task, member, deadline);
    }
  }
  if (report.errors.length > 0) control.stop();
  arena.offline();
  return report;
}

/** The thread comes back as the same CPU, with a new handle for everything. */
async function resumeAs(task: LitmusTask, before: Member, deadline: number): Promise<Torture> {
  before.arena.offline();
  const left = Math.max(0, deadline - performance.now());
  const args = { ...task.args, ms: left, seed: before.roll(1 << 30) + 1 };
  const after = await torture({ ...task, args });
  return {
    reads: before.report.reads + after.reads,
    updates: before.report.updates + after.updates,
    freed: before.report.freed + after.freed,
    errors: [...before.report.errors, ...after.errors],
  };
}

/** Reads in sections without end, until it is terminated in one. */
function readForever(task: LitmusTask): never {
  const member = join(task);
  member.control.arrive();
  member.rcu.readLock();
  member.control.set(number(task, 'cpu'), 1);
  for (;;) readOnce(member);
}

/** Sits in one turn, having read once; says when it may be waited for and ends the turn when told to. */
function readAndStay(task: LitmusTask): number {
  const member = join(task);
  member.control.arrive();
  readOnce(member);
  member.control.set(0, 1);
  member.control.waitForStop();
  member.arena.endTurn();
  member.arena.offline();
  return 1;
}

/** Parks between turns, as a piscina worker does between tasks. */
function park(task: LitmusTask): number {
  const member = join(task);
  readOnce(member);
  member.arena.endTurn();
  member.control.arrive();
  member.control.waitForStop();
  member.arena.offline();
  return 1;
}

export const RCU_ROLES = {
  'rcu-torture': torture,
  'rcu-read-forever': readForever,
  'rcu-stay': readAndStay,
  'rcu-park': park,
};
