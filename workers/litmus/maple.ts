/**
 * A maple tree with one writer and many readers. The writer logs each store before it makes it and after; a reader that
 * has seen a range looks whether the tree had exactly that one between the last store that was made before its lookup
 * and the last that had begun when it was done. Bugs can be planted, to see that they are found.
 */
import { Arena, type MapleTree } from '../../src/index.js';
import { storeRelease } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';
import { RangeModel } from './rangeModel.js';

/** Words of the control buffer that all share: stores begun and made. */
export const BEGUN = 0;
export const MADE = 1;
const LOG_AT = FREE_WORDS + 16;
const LOG_WORDS = 3;
export const STORES_MAX = 60_000;
export const MAPLE_CONTROL_BYTES = (LOG_AT + LOG_WORDS * STORES_MAX) * 4;

/** Keys in use: few, so that readers and writer meet. */
const KEYS = 1500;
/** Where the slots of a leaf begin, in words. */
const LEAF_SLOTS_AT = 33;
const SECTIONS_PER_TURN = 100;

export type MaplePlant = '' | 'no pause' | 'freed at once' | 'boundaries moved in two steps';

export interface MapleReport {
  stores: number;
  seen: number;
  errors: string[];
}

interface Log {
  first: number;
  last: number;
  entry: number;
}

function join(task: LitmusTask): {
  arena: Arena;
  control: Control;
  tree: MapleTree;
  roll: (n: number) => number;
} {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const tree = arena.maple.open(number(task, 'tree'));
  return { arena, control: new Control(task.control), tree, roll: random(number(task, 'seed')) };
}

export function logged(control: Control, store: number): Log {
  const at = LOG_AT + store * LOG_WORDS;
  // Plain: written before BEGUN was stored with release, which was loaded before this.
  const [first, last, entry] = control.m.subarray(at, at + LOG_WORDS);
  return { first: first!, last: last!, entry: entry! };
}

/** Wastes about so many microseconds. */
function spin(us: number): void {
  const end = performance.now() + us / 1000;
  while (performance.now() < end);
}

/** Lets some lookups take longer between their load of a leaf's reference and their look at the leaf. */
function dawdle(tree: MapleTree, roll: (below: number) => number): void {
  const { reader } = tree as unknown as {
    reader: { inLeaf(node: number, key: number, low: number): number };
  };
  const inLeaf = reader.inLeaf.bind(reader);
  reader.inLeaf = (node, key, low) => {
    if (roll(3) === 0) spin(roll(40));
    return inLeaf(node, key, low);
  };
}

/** Bugs that a tree might have, put into this thread's handle. */
function plant(arena: Arena, tree: MapleTree, bug: MaplePlant): void {
  const { nodes } = arena.maple;
  if (bug === 'freed at once') nodes.freeRcu = (p) => nodes.free(p);
  interface Writer {
    moveBoundaries(): void;
    walk: { leaf: number; offset: number; first: number; last: number; entry: number; rangeFirst: number };
  }
  const { writer } = tree as unknown as { writer: Writer };
  const move = writer.moveBoundaries.bind(writer);
  if (bug === 'boundaries moved in two steps') {
    writer.moveBoundaries = () => {
      const { leaf, offset, first, rangeFirst, entry } = writer.walk;
      const slot = first > rangeFirst ? offset + 1 : offset;
      storeRelease(arena.i32, ((leaf >> 8) << 6) + LEAF_SLOTS_AT + slot, entry); // before anybody is told
      spin(20);
      move();
    };
  }
}

async function write(task: LitmusTask): Promise<MapleReport> {
  const { arena, control, tree, roll } = join(task);
  plant(arena, tree, String(task.args.plant ?? '') as MaplePlant);
  control.arrive();
  let stores = 0;
  const deadline = performance.now() + number(task, 'ms');
  while (stores < STORES_MAX && performance.now() < deadline && !control.stopped) {
    const first = roll(KEYS);
    const last = first + (roll(30) === 0 ? roll(KEYS / 2) : roll(9));
    const entry = roll(4) === 0 ? 0 : stores + 1;
    control.m.set([first, last, entry], LOG_AT + stores * LOG_WORDS);
    control.set(BEGUN, stores + 1);
    if (entry === 0 ? !tree.erase(first, last) : !tree.store(first, last, entry))
      throw new Error('out of memory');
    control.set(MADE, ++stores);
    if (task.args.plant !== 'no pause') spin(roll(20));
    if (stores % 64 === 0) arena.rcu.quiescent();
    if (stores % 4096 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  control.stop();
  const faults = tree.validate();
  arena.offline();
  return { stores, seen: 0, errors: faults };
}

class Witness {
  readonly report: MapleReport = { stores: 0, seen: 0, errors: [] };
  private readonly control: Control;
  /** The tree after the first `version` stores. */
  private readonly model = new RangeModel();
  private version = 0;

  constructor(control: Control) {
    this.control = control;
  }

  get made(): number {
    return this.control.get(MADE);
  }

  /** A lookup of `key`, begun after `from` stores were made, found this range. */
  check(key: number, from: number, first: number, last: number, entry: number): void {
    const { control, model, report } = this;
    const to = control.get(BEGUN);
    while (this.version < from) apply(model, logged(control, this.version++));
    report.seen++;
    let then = model;
    for (let version = from; ; version++) {
      const range = then.rangeAt(key);
      if (range.first === first && range.last === last && range.entry === entry) return;
      if (version === to) break;
      if (then === model) then = model.copy();
      apply(then, logged(control, version));
    }
    const { first: f, last: l, entry: e } = model.rangeAt(key);
    if (report.errors.length < 3) {
      report.errors.push(
        `key ${key}: saw [${first}, ${last}] = ${entry}; after ${from} stores it was [${f}, ${l}] = ${e}, ${to} had begun`,
      );
    }
  }
}

function apply(model: RangeModel, { first, last, entry }: Log): void {
  model.store(first, last, entry);
}

async function read(task: LitmusTask): Promise<MapleReport> {
  const { arena, control, tree, roll } = join(task);
  const witness = new Witness(control);
  const { report } = witness;
  const { rcu } = arena;
  dawdle(tree, roll);
  const cursor = tree.cursor();
  control.arrive();
  const note = (key: number, from: number): void =>
    witness.check(key, from, cursor.first, cursor.last, cursor.entry);
  while (!control.stopped && report.errors.length === 0) {
    for (let i = 0; i < SECTIONS_PER_TURN; i++) {
      rcu.readLock();
      const key = roll(KEYS + 600);
      if (roll(4) > 0) {
        const from = witness.made;
        cursor.walk(key);
        note(key, from);
      } else {
        cursor.set(key);
        for (let step = 0; step < 6; step++) {
          const from = witness.made;
          const up = cursor.next();
          if (up === 0) break;
          note(cursor.last, from);
        }
      }
      rcu.readUnlock();
    }
    arena.endTurn();
    if (roll(20) === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  if (report.errors.length > 0) control.stop();
  arena.offline();
  return report;
}

export const MAPLE_ROLES = { 'maple-write': write, 'maple-read': read };
