/**
 * Torture of SLAB_TYPESAFE_BY_RCU: objects are freed at once, and readers go on looking at what they found. It may be
 * somebody else's by then, but it is an object of its cache: its first word says so to the end of the read section. Slabs
 * come and go all the time, and another cache writes over whatever pages it gets.
 */
import { Arena } from '../../src/index.js';
import { exchange, futexWait, loadAcquire } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';

export const TYPESAFE_SLOTS = 16;
/** Where the slots lie in the control buffer. */
export const TYPESAFE_SLOTS_AT = FREE_WORDS + 64;
const TYPE = 0x5afe;
const OTHER_TYPE = 0x77777777;
const LOOKS = 40;
/** One reader in so many sleeps between two looks: all others have the time to free what it reads, and its slab. */
const SLEEPS_ONE_IN = 32;
const SLEEP_MS = 0.3;
const STEPS_PER_TURN = 100;
const BURST = 24;

export interface TypesafeTorture {
  reads: number;
  /** Looks that found another object than the reader began with. */
  reused: number;
  errors: string[];
}

async function torture(task: LitmusTask): Promise<TypesafeTorture> {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const roll = random(number(task, 'seed'));
  const { rcu, i32: words } = arena;
  const cache = arena.openCache('typed');
  const other = arena.openCache('other');
  const report: TypesafeTorture = { reads: 0, reused: 0, errors: [] };
  const pillow = new Int32Array(new SharedArrayBuffer(4));
  let version = number(task, 'cpu') << 24;

  const make = (): number => {
    const p = cache.alloc();
    if (p === 0) return 0;
    words[(p >> 2) + 1] = ++version;
    words[p >> 2] = TYPE;
    return p;
  };
  const read = (): void => {
    rcu.readLock();
    const p = loadAcquire(control.m, TYPESAFE_SLOTS_AT + roll(TYPESAFE_SLOTS));
    const first = p === 0 ? 0 : loadAcquire(words, (p >> 2) + 1);
    if (roll(SLEEPS_ONE_IN) === 0) futexWait(pillow, 0, 0, SLEEP_MS);
    for (let look = 0; p !== 0 && look < LOOKS; look++) {
      const type = loadAcquire(words, p >> 2);
      if (type !== TYPE && report.errors.length < 5) {
        report.errors.push(
          `a word of type 0x${TYPE.toString(16)} is 0x${(type >>> 0).toString(16)}, look ${look}`,
        );
      }
      if (loadAcquire(words, (p >> 2) + 1) !== first) report.reused++;
    }
    rcu.readUnlock();
    report.reads++;
  };
  const replace = (): void => {
    const fresh = make();
    if (fresh === 0) return;
    const old = exchange(control.m, TYPESAFE_SLOTS_AT + roll(TYPESAFE_SLOTS), fresh);
    if (old !== 0) cache.free(old);
  };
  const burst = (): void => {
    const mine = Array.from({ length: BURST }, make);
    for (const p of mine) if (p !== 0) cache.free(p);
    const theirs = Array.from({ length: BURST }, () => other.alloc());
    for (const p of theirs) if (p !== 0) words.fill(OTHER_TYPE, p >> 2, (p + other.objectSize) >> 2);
    for (const p of theirs) if (p !== 0) other.free(p);
  };

  control.arrive();
  const deadline = performance.now() + number(task, 'ms');
  while (performance.now() < deadline && report.errors.length === 0 && !control.stopped) {
    for (let i = 0; i < STEPS_PER_TURN; i++) {
      const choice = roll(100);
      if (choice < 60) read();
      else if (choice < 95) replace();
      else burst();
    }
    if (roll(10) === 0) await new Promise((resolve) => setImmediate(resolve));
    else arena.endTurn();
  }
  if (report.errors.length > 0) control.stop();
  arena.offline();
  return report;
}

export const TYPESAFE_ROLES = { 'typesafe-torture': torture };
