/** Roles whose caches have constructors and destructors: they keep their book in the control buffer, by object. */
import { Arena, type DefinedCache, defineCache, type KmemCache, type SlabObjects } from '../../src/index.js';
import { cmpxchg, fetchAdd, loadAcquire, storeRelease } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';

/** Words of the control buffer that the book uses. */
export const CtorBook = {
  /** Constructors and destructors that came to an end. */
  constructed: 0,
  destructed: 1,
  /** An object was constructed twice, or destructed without being constructed. */
  wrong: 2,
  /** Set by a role when its callback waits to be killed. */
  stopped: 3,
  /** Constructors fail when the count of their calls is a multiple of this; 0 is never. */
  failEvery: 4,
  calls: 5,
  /** The callback that is to wait: its count, from 1 on. */
  stopAtCtor: 6,
  stopAtDtor: 7,
} as const;

/** State of an object, in its first word, so that it is in the arena and nowhere else. */
const RAW = 0;
const CONSTRUCTED = 0x600d;

let control: Control | undefined;
const word = (item: number): number => FREE_WORDS + item;

function construct(p: number, arena: Arena): number {
  const { m } = control!;
  const calls = fetchAdd(m, word(CtorBook.calls), 1) + 1;
  if (calls === loadAcquire(m, word(CtorBook.stopAtCtor))) waitForTheEnd();
  const every = loadAcquire(m, word(CtorBook.failEvery));
  if (every !== 0 && calls % every === 0) return 12;
  // What a slab's pages hold before is anybody's; the second word says whether the first is ours.
  if (arena.i32[(p >> 2) + 1] === p && arena.i32[p >> 2] === CONSTRUCTED) wrong();
  arena.i32[p >> 2] = CONSTRUCTED;
  arena.i32[(p >> 2) + 1] = p;
  fetchAdd(m, word(CtorBook.constructed), 1);
  return 0;
}

function destruct(p: number, arena: Arena): void {
  const { m } = control!;
  const nr = fetchAdd(m, word(CtorBook.destructed), 1) + 1;
  if (nr === loadAcquire(m, word(CtorBook.stopAtDtor))) waitForTheEnd();
  if (arena.i32[(p >> 2) + 1] !== p || cmpxchg(arena.i32, p >> 2, CONSTRUCTED, RAW) !== CONSTRUCTED) wrong();
}

function wrong(): void {
  fetchAdd(control!.m, word(CtorBook.wrong), 1);
}

function waitForTheEnd(): never {
  storeRelease(control!.m, word(CtorBook.stopped), 1);
  for (;;) control!.sleep(1000);
}

const counted = new Map<string, DefinedCache>();

/** What the threads of a test share; one object is as large as a test asks for. */
export function defineCounted(form: string, size: number): DefinedCache {
  const name = `counted-${form}-${size}`;
  const defined = counted.get(name) ?? defineAs(name, form, size);
  counted.set(name, defined);
  return defined;
}

function defineAs(name: string, form: string, size: number): DefinedCache {
  if (form === 'object') return defineCache(name, { size, ctor: construct, dtor: destruct });
  return defineCache(name, {
    size,
    ctorSlab(objects: SlabObjects, arena) {
      for (let p = objects.next(); p !== 0; p = objects.next()) {
        const failed = construct(p, arena);
        if (failed !== 0) return failed;
      }
      return 0;
    },
    dtorSlab(objects: SlabObjects, arena) {
      for (let p = objects.next(); p !== 0; p = objects.next()) destruct(p, arena);
    },
  });
}

/** Says in which buffer this thread's callbacks keep their book. */
export function keepCounts(of: Control): void {
  control = of;
}

interface Fire {
  allocs: number;
  failures: number;
  frees: number;
  unconstructed: number;
}

function join(task: LitmusTask): { arena: Arena; cache: KmemCache; control: Control } {
  keepCounts(new Control(task.control));
  const defined = defineCounted(String(task.args.form), number(task, 'size'));
  const arena = Arena.attach(task.handle!);
  arena.online();
  return { arena, cache: arena.openCache(defined), control: control! };
}

/** Allocates and frees, singly and in bulk, while constructors fail; every object must be constructed. */
function underFire(task: LitmusTask): Fire {
  const { arena, cache } = join(task);
  const below = random(number(task, 'seed'));
  const held: number[] = [];
  const out = new Int32Array(32);
  const result: Fire = { allocs: 0, failures: 0, frees: 0, unconstructed: 0 };
  control!.arrive();
  const take = (p: number): void => {
    if (arena.i32[p >> 2] !== CONSTRUCTED || arena.i32[(p >> 2) + 1] !== p) result.unconstructed++;
    held.push(p);
    result.allocs++;
  };
  const end = performance.now() + number(task, 'ms');
  while (performance.now() < end) {
    for (let n = below(60); n > 0; n--) {
      const p = cache.alloc();
      if (p === 0) result.failures++;
      else take(p);
    }
    const n = 1 + below(32);
    if (!cache.allocBulk(out, n)) result.failures++;
    else for (let i = 0; i < n; i++) take(out[i]!);
    for (let left = below(4) === 0 ? held.length : below(60); left > 0 && held.length > 0; left--) {
      cache.free(held.splice(below(held.length), 1)[0]!);
      result.frees++;
    }
    if (below(20) === 0) cache.shrink();
    if (below(5) === 0) arena.endTurn();
  }
  for (const p of held) cache.free(p);
  result.frees += held.length;
  arena.offline();
  return result;
}

/** Makes slabs, or ends them, until a callback stops this thread. */
function dieInCallback(task: LitmusTask): void {
  const { cache } = join(task);
  const held: number[] = [];
  for (let i = 0; i < number(task, 'n'); i++) held.push(cache.alloc());
  if (task.args.how === 'dtor') {
    for (const p of held.splice(0)) cache.free(p);
    cache.shrink();
  }
}

/** Frees what others allocated, on a thread that has not imported the functions. */
function freeAsStranger(task: LitmusTask): string {
  const arena = Arena.attach(task.handle!);
  arena.online();
  for (const p of String(task.args.objects).split(',')) arena.kfree(Number(p));
  let refused = 'opened';
  try {
    arena.openCache(String(task.args.name));
  } catch (error) {
    refused = String(error);
  }
  arena.offline();
  return refused;
}

export const CTOR_ROLES = { underFire, dieInCallback, freeAsStranger };
