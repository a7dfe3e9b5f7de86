/** Roles in which several CPUs work on one cache at once. Every object carries a cookie of its owner. */
import { Arena, GFP_KERNEL, type KmemCache } from '../../src/index.js';
import { exchange } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';

/** Where the mailbox begins in a control buffer, and how many objects it holds. */
export const MAILBOX_AT = FREE_WORDS + 64;

interface Member {
  arena: Arena;
  control: Control;
  cache: KmemCache;
  id: number;
}

function join(task: LitmusTask): Member {
  const arena = Arena.attach(task.handle!);
  const id = number(task, 'cpu');
  arena.online({ cpu: id });
  return { arena, control: new Control(task.control), cache: arena.openCache('c'), id };
}

/** What a role reports; `errors` are sentences, a few of them at most. */
export interface Traffic {
  allocs: number;
  frees: number;
  errors: string[];
}

/**
 * Cookies: the first word of an object says who wrote it and when, the last word the complement. Neither lies where
 * the allocator keeps its free pointer, so the pair must match whenever the object changes hands.
 */
class Cookies {
  readonly errors: string[] = [];
  private readonly m: Int32Array;
  private readonly last: number;
  private readonly id: number;
  private seq = 0;

  constructor({ arena, cache, id }: Member) {
    this.m = arena.i32;
    this.last = (cache.objectSize >> 2) - 1;
    this.id = id;
  }

  /** The pair that the last owner left, or that of a page never used. */
  checkPair(p: number): void {
    const [first, last] = [this.m[p >> 2]!, this.m[(p >> 2) + this.last]!];
    if (first !== ~last && (first !== 0 || last !== 0))
      this.fail(`0x${p.toString(16)}: ${first} and ${last}`);
  }

  take(p: number): void {
    this.checkPair(p);
    const cookie = (this.id << 24) | (++this.seq & 0xffffff);
    this.m[p >> 2] = cookie;
    this.m[(p >> 2) + this.last] = ~cookie;
  }

  /** Checks that nobody else wrote while the object was ours. */
  checkMine(p: number): void {
    this.checkPair(p);
    if (this.m[p >> 2]! >> 24 !== this.id)
      this.fail(`0x${p.toString(16)} has the cookie of CPU ${this.m[p >> 2]! >> 24}`);
  }

  private fail(what: string): void {
    if (this.errors.length < 10) this.errors.push(`CPU ${this.id}: ${what}`);
  }
}

/** Bursts: allocates up to `burst` objects, then frees them in a random order. Sheaves travel through the barn. */
function burst(task: LitmusTask): Traffic {
  const member = join(task);
  const { arena, control, cache } = member;
  const below = random(number(task, 'seed'));
  const cookies = new Cookies(member);
  const held: number[] = [];
  let allocs = 0;
  control.arrive();
  while (allocs < number(task, 'count')) {
    for (let n = 1 + below(number(task, 'burst')); n > 0; n--) {
      const p = cache.alloc();
      if (p === 0) break;
      cookies.take(p);
      held.push(p);
      allocs++;
    }
    while (held.length > 0) {
      const at = below(held.length);
      const p = held[at]!;
      held[at] = held[held.length - 1]!;
      held.pop();
      cookies.checkMine(p);
      cache.free(p);
    }
    if (below(10) === 0) arena.endTurn();
  }
  arena.offline();
  return { allocs, frees: allocs, errors: cookies.errors };
}

/** Exchange through a mailbox: whoever finds an object there frees it, so most frees are of other CPUs' objects. */
function mailbox(task: LitmusTask): Traffic {
  const member = join(task);
  const { arena, control, cache } = member;
  const below = random(number(task, 'seed'));
  const cookies = new Cookies(member);
  const slots = number(task, 'slots');
  const node = number(task, 'node');
  let allocs = 0;
  let frees = 0;
  control.arrive();
  for (let i = 0; i < number(task, 'count'); i++) {
    // Every other visit only takes what is there, so that slabs become empty.
    const takes = (i & 1) === 0;
    const p = takes ? 0 : node < 0 ? cache.alloc() : cache.allocNode(node, GFP_KERNEL);
    if (p !== 0) {
      allocs++;
      cookies.take(p);
    }
    const q = exchange(control.m, MAILBOX_AT + below(slots), p);
    if (q !== 0) {
      frees++;
      cookies.checkPair(q);
      cache.free(q);
    }
    if (below(100) === 0) arena.endTurn();
  }
  arena.offline();
  return { allocs, frees, errors: cookies.errors };
}

/** Comes and goes: takes a slot, works a little, gives it back. */
function comeAndGo(task: LitmusTask): Traffic {
  const control = new Control(task.control);
  const below = random(number(task, 'seed'));
  let allocs = 0;
  const errors: string[] = [];
  control.arrive();
  for (let i = 0; i < number(task, 'count'); i++) {
    const arena = Arena.attach(task.handle!);
    arena.online();
    const cache = arena.openCache('c');
    const held = Array.from({ length: below(100) }, () => cache.alloc());
    allocs += held.length;
    for (const p of held) cache.free(p);
    if (new Set(held).size !== held.length) errors.push('an object was handed out twice');
    arena.offline();
  }
  return { allocs, frees: allocs, errors };
}

/** Creates caches of the same names as the others at the same time; returns which of them it made. */
function createSame(task: LitmusTask): number[] {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const won: number[] = [];
  control.arrive();
  for (let i = 0; i < number(task, 'count'); i++) {
    // Word 1 + i counts who is there: nobody begins before all are.
    control.add(1 + i, 1);
    while (control.get(1 + i) < number(task, 'threads'));
    try {
      arena.createCache(`same-${i}`, { size: 64 + 8 * i });
      won.push(i);
    } catch (error) {
      if (!(error instanceof RangeError) || !error.message.includes('a cache of that name exists'))
        throw error;
    }
  }
  arena.offline();
  return won;
}

/** One synchronous run without end: allocates and frees until told to stop. */
function longTurn(task: LitmusTask): { rounds: number } {
  const { arena, control, cache } = join(task);
  const held: number[] = [];
  control.arrive();
  let rounds = 0;
  while (!control.stopped) {
    for (let i = 0; i < 100; i++) held.push(cache.alloc());
    while (held.length > 0) cache.free(held.pop()!);
    rounds++;
    control.set(0, rounds);
  }
  arena.offline();
  return { rounds };
}

/** Blocks in the middle of its turn, with its sheaves locked, until told to stop. */
function blockInTurn(task: LitmusTask): { p: number } {
  const { arena, control, cache } = join(task);
  const p = cache.alloc();
  control.arrive();
  control.set(0, 1);
  control.waitForStop();
  cache.free(p);
  arena.offline();
  return { p };
}

/** Destroys or shrinks a cache again and again while others use it. */
function shrinker(task: LitmusTask): { shrinks: number; skipped: number } {
  const { arena, control, cache } = join(task);
  let shrinks = 0;
  let skipped = 0;
  control.arrive();
  for (; shrinks < number(task, 'count'); shrinks++) skipped += cache.shrink().skippedCpus.length;
  arena.offline();
  return { shrinks, skipped };
}

/** Looks caches up by name while others create and destroy them; returns whatever was not as it should be. */
function lookUp(task: LitmusTask): { lookups: number; opened: number; errors: string[] } {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const errors = new Set<string>();
  let lookups = 0;
  let opened = 0;
  control.arrive();
  for (; !control.stopped && errors.size < 10; lookups++) {
    const name = `come-and-go-${lookups % 3}`;
    try {
      for (const known of arena.cacheNames())
        if (!/^(km|c$|come-and-go-[0-2]$)/.test(known)) errors.add(`name ${known}`);
      const cache = arena.openCache(name);
      opened++;
      if (cache.name !== name) errors.add(`opened ${cache.name} as ${name}`);
      if (cache.objectSize !== 64 * (1 + (lookups % 3))) errors.add(`${name} has size ${cache.objectSize}`);
    } catch (error) {
      const expected = error instanceof RangeError && error.message.startsWith('no cache is named');
      if (!expected) errors.add(String(error));
    }
  }
  arena.offline();
  return { lookups, opened, errors: [...errors] };
}

/** Creates and destroys the caches that lookUp looks for. */
function comeAndGoCaches(task: LitmusTask): number {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  control.arrive();
  for (let i = 0; i < number(task, 'count'); i++) {
    const caches = [0, 1, 2].map((k) => arena.createCache(`come-and-go-${k}`, { size: 64 * (1 + k) }));
    // In another order than they were made, so that slots and structs go from name to name.
    for (const k of [1, 0, 2].map((k) => (k + i) % 3)) caches[k]!.destroy();
  }
  control.stop();
  arena.offline();
  return number(task, 'count');
}

export const HEAP_ROLES = {
  lookUp,
  comeAndGoCaches,
  burst,
  mailbox,
  comeAndGo,
  createSame,
  longTurn,
  blockInTurn,
  shrinker,
};
