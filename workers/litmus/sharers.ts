/** Roles in which several threads share a CPU: what they hold lies in the control buffer, and survives their death. */
import { Arena, type KmemCache } from '../../src/index.js';
import { exchange } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';

/** Control words of the role, an entry for each sharer. */
export const Sharer = { park: 0, parked: 16, thread: 32, allocs: 48, frees: 64 } as const;
/** Objects that each sharer holds at most, and that lie in the mailbox. Place i is for cache i % 3. */
export const PLACES = 48;
export const TABLES_AT = FREE_WORDS + 256;
export const SHARED_CACHES = ['a', 'b', 'c'] as const;

class Hammer {
  readonly errors: string[] = [];
  private readonly arena: Arena;
  private readonly control: Control;
  private readonly caches: KmemCache[];
  private readonly index: number;
  private readonly table: number;
  private readonly below: (n: number) => number;
  private readonly bulk = new Int32Array(8);
  private seq = 0;

  constructor(task: LitmusTask) {
    this.arena = Arena.attach(task.handle!);
    this.control = new Control(task.control);
    this.index = number(task, 'index');
    this.below = random(number(task, 'seed'));
    this.table = TABLES_AT + (1 + this.index) * PLACES;
    const { thread } = this.arena.online();
    this.control.set(Sharer.thread + this.index, thread);
    this.caches = SHARED_CACHES.map((name) => this.arena.openCache(name));
  }

  run(): void {
    while (!this.control.stopped && this.errors.length === 0) {
      for (let i = 0; i < 50; i++) this.step();
      if (this.control.get(Sharer.park + this.index) !== 0) this.parkForEver();
    }
    this.arena.offline();
  }

  /** Fills an empty place of the own table, empties a full one, or trades its object for what is in the mailbox. */
  private step(): void {
    const { control, table } = this;
    const place = this.below(PLACES);
    const p = control.m[table + place]!;
    const chance = this.below(16);
    if (chance === 0) this.bulkRound(place);
    else if (chance < 4) control.m[table + place] = exchange(control.m, TABLES_AT + place, p);
    else if (p === 0) this.fill(place);
    else this.drain(place, p);
  }

  private fill(place: number): void {
    const p = this.caches[place % 3]!.alloc();
    if (p === 0) return;
    this.mark(place, p);
    this.control.m[this.table + place] = p;
    this.tally(Sharer.allocs, 1);
  }

  private drain(place: number, p: number): void {
    this.check(place, p);
    this.control.m[this.table + place] = 0;
    this.caches[place % 3]!.free(p);
    this.tally(Sharer.frees, 1);
  }

  private bulkRound(place: number): void {
    const { bulk } = this;
    const cache = this.caches[place % 3]!;
    if (!cache.allocBulk(bulk, bulk.length)) return;
    for (const p of bulk) this.mark(place, p);
    for (const p of bulk) this.check(place, p);
    cache.freeBulk(bulk, bulk.length);
    this.tally(Sharer.allocs, bulk.length);
    this.tally(Sharer.frees, bulk.length);
  }

  private tally(word: number, n: number): void {
    this.control.set(word + this.index, this.control.get(word + this.index) + n);
  }

  /** A cookie in the first word, its complement in the last: whoever else has the object spoils the pair. */
  private mark(place: number, p: number): void {
    const cookie = (this.index << 24) | (++this.seq & 0xffffff);
    const last = this.caches[place % 3]!.objectSize - 4;
    this.arena.i32[p >> 2] = cookie;
    this.arena.i32[(p + last) >> 2] = ~cookie;
  }

  private check(place: number, p: number): void {
    const last = this.caches[place % 3]!.objectSize - 4;
    const [first, end] = [this.arena.i32[p >> 2]!, this.arena.i32[(p + last) >> 2]!];
    if (first !== ~end) this.errors.push(`sharer ${this.index}: 0x${p.toString(16)} has ${first} and ${end}`);
  }

  private parkForEver(): never {
    this.control.set(Sharer.parked + this.index, 1);
    for (;;) this.control.sleep(1000);
  }
}

/** Allocates and frees in three caches until told to stop, or parks between two operations and waits to be killed. */
function hammer(task: LitmusTask): string[] {
  const member = new Hammer(task);
  member.run();
  return member.errors;
}

export const SHARER_ROLES = { hammer };
