/**
 * Lockdep, one thread's part: the locks that it holds, and the rules that each step is held against.
 *
 * A class is enough. If no thread ever waits for class B under A and another for A under B, by whatever detour, then no
 * schedule of them can deadlock, seen or not. So every order needs to be seen only once, on one thread, at any time.
 *
 * | rule      | what is checked                                                            | when                    |
 * |-----------|----------------------------------------------------------------------------|-------------------------|
 * | inversion | the graph of all threads has no way back to a held class                   | an edge is seen first   |
 * | order     | LOCK_CLASS_TAKES of each held class names the class                        | before each lock()      |
 * | recursion | neither this lock is held nor, unless they nest, another of its class      | before each lock()      |
 * | leaf      | no leaf is held, but one whose line names the other leaf                   | before each lock()      |
 * | wait      | nothing is held but mutexes, and what the waiter names                     | mightSleep              |
 * | turn      | nothing is held                                                            | the turn is over        |
 * | ctor      | nothing is held that an allocation could need; no object of its own cache  | around a constructor    |
 * | dtor      | only leaves are waited for; nothing is freed into a cache                  | around a destructor     |
 * | not-held  | a lock that is given up, or that a function relies on, is held             | unlock, assertHeld      |
 *
 * A trylock waits for nobody: it adds no edge to the class that it takes, and is held like any other afterwards. A lock
 * with its own owner word (cpu_sheaves) is not told to us when it is given up; its word says so whenever we look.
 */
import { LockdepError, type LockdepKind, type Words } from '../struct/index.js';
import type { LockPtr } from './lock.js';
import {
  LEAF_LOCK_CLASSES,
  LOCK_CLASS_NAMES,
  LOCK_CLASS_TAKES,
  type LockClassId,
  NESTED_LOCK_CLASSES,
  OWN_WORD_LOCK_CLASSES,
  SLEEPING_LOCK_CLASSES,
} from './lockClass.js';
import type { LockdepGraph } from './lockdepGraph.js';
import { type CallbackCache, type CallbackKind, LockdepOff } from './lockdepOff.js';
import { ownerThread } from './lockWord.js';
import { Place } from './place.js';

interface HeldLock {
  readonly lock: LockPtr;
  readonly cls: LockClassId;
  readonly tried: boolean;
  /** Which acquisition of this thread it was. */
  readonly nr: number;
  readonly place: Place | undefined;
}

interface Callback extends CallbackCache {
  readonly kind: CallbackKind;
}

/** What a thread does to caches, in the words of {@link Lockdep.noteOperation}. */
export type CacheOperation = 'alloc' | 'free';

/** A place costs some microseconds: of each class the first ones are noted, then one in so many. */
const PLACES_FIRST = 8;
const PLACE_EVERY = 256;

/** A set of classes as bits: some of it is asked at every step of every lock. */
const setOf = (classes: readonly LockClassId[]): number =>
  classes.reduce<number>((bits, cls) => bits | (1 << cls), 0);
const isOneOf = (set: number, cls: LockClassId): boolean => ((set >> cls) & 1) !== 0;

const LEAVES = setOf(LEAF_LOCK_CLASSES);
const NESTED = setOf(NESTED_LOCK_CLASSES);
const OWN_WORD = setOf(OWN_WORD_LOCK_CLASSES);
const SLEEPING = setOf(SLEEPING_LOCK_CLASSES);

export class Lockdep extends LockdepOff {
  readonly graph: LockdepGraph;
  private readonly m: Words;
  private readonly owner: number;
  private readonly held: HeldLock[] = [];
  private readonly callbacks: Callback[] = [];
  private readonly taken = new Float64Array(LOCK_CLASS_NAMES.length);
  private acquisitions = 0;
  private watching = false;
  /** Which cache's lock it is, for classes of which each cache has its own; the layer that lays them out sets it. */
  cacheOf: (lock: LockPtr) => number = () => -1;
  /** Makes callbacks visible before one runs: what would be served without a lock is given up. */
  beforeCallback: () => void = () => {};

  constructor(m: Words, graph: LockdepGraph, owner: number) {
    super();
    this.m = m;
    this.graph = graph;
    this.owner = owner;
  }

  /** Before a lock is waited for. Throws, and then it must not be. */
  beforeLock(lock: LockPtr, cls: LockClassId): void {
    this.dropGivenUp();
    const { held } = this;
    this.checkCallback(lock, cls);
    for (const other of held) this.checkRecursion(other, lock, cls);
    for (const other of held) this.checkEdge(other, lock, cls);
  }

  /** A lock is ours, by lock() or by a trylock. */
  acquired(lock: LockPtr, cls: LockClassId, tried: boolean): void {
    const taken = this.taken[cls]!;
    this.taken[cls] = taken + 1;
    const noted = taken < PLACES_FIRST || taken % PLACE_EVERY === 0;
    this.held.push({ lock, cls, tried, nr: ++this.acquisitions, place: noted ? new Place() : undefined });
    this.watchTurn();
  }

  /** A lock with its own word is ours; it may be one that we had before and were not told that it was given up. */
  acquiredOwnWord(lock: LockPtr, cls: LockClassId): void {
    this.dropGivenUp(lock);
    this.acquired(lock, cls, true);
  }

  /** A lock was given up: the innermost, since the record for the reaper is a stack. */
  released(lock: LockPtr, cls: LockClassId): void {
    if (this.held.at(-1)?.lock === lock) this.held.pop();
    else this.releasedInner(lock, cls);
  }

  /** Not the last that we took, or none of ours; what lies above may be sheaves, which go when they like. */
  private releasedInner(lock: LockPtr, cls: LockClassId): void {
    const at = this.held.findLastIndex((each) => each.lock === lock);
    if (at < 0) this.fail('not-held', `gave up ${this.nameOf(lock, cls)}, which it does not hold`);
    const inner = this.held.slice(at + 1).find((each) => !isOneOf(OWN_WORD, each.cls));
    this.held.splice(at, 1);
    if (inner !== undefined) {
      this.fail('not-held', `gave up ${this.nameOf(lock, cls)} before ${this.nameOf(inner.lock, inner.cls)}`);
    }
  }

  /** Classes that this thread holds, from the outermost. */
  heldClasses(): LockClassId[] {
    this.dropGivenUp();
    return this.held.map(({ cls }) => cls);
  }

  override mightSleep(what: string, under: readonly LockClassId[] = []): void {
    this.dropGivenUp();
    const allowed = SLEEPING | setOf(under);
    const found = this.held.find(({ cls }) => !isOneOf(allowed, cls));
    if (found === undefined) return;
    this.fail('wait', `may sleep in ${what} and holds ${this.nameOf(found.lock, found.cls)}`);
  }

  override assertHeld(lock: LockPtr, cls: LockClassId): void {
    this.dropGivenUp();
    if (this.held.some((each) => each.lock === lock)) return;
    this.fail('not-held', `relies on ${this.nameOf(lock, cls)}, which it does not hold`);
  }

  override enterCallback(kind: CallbackKind, cache: CallbackCache): void {
    this.beforeCallback();
    this.dropGivenUp();
    const bad = this.held.find((each) => !this.mayCallUnder(kind, cache, each));
    if (bad !== undefined) {
      this.fail(kind, `calls the ${kind} of ${cache.name} and holds ${this.nameOf(bad.lock, bad.cls)}`);
    }
    this.callbacks.push({ kind, name: cache.name, slot: cache.slot });
  }

  override leaveCallback(): void {
    this.callbacks.pop();
  }

  /** An operation on the cache in that slot begins, past the fast path. */
  noteOperation(operation: CacheOperation, slot: number): void {
    for (const { kind, name, slot: own } of this.callbacks) {
      if (kind === 'ctor' && operation === 'alloc' && slot === own) {
        this.fail('ctor', `allocates from ${name} within a ctor of ${name}`);
      }
      if (kind === 'dtor' && operation === 'free') {
        this.fail('dtor', `frees into the cache in slot ${slot} within the dtor of ${name}`);
      }
    }
  }

  /** The run of JavaScript in which these locks were taken is over. Also called by the microtask that follows it. */
  turnEnded(upTo = this.acquisitions): void {
    this.dropGivenUp();
    const left = this.held.find(({ nr }) => nr <= upTo);
    if (left === undefined) return;
    this.held.length = 0;
    this.fail('turn', `ended its turn and holds ${this.nameOf(left.lock, left.cls)}`, left);
  }

  private watchTurn(): void {
    if (this.watching) return;
    this.watching = true;
    queueMicrotask(() => {
      this.watching = false;
      const upTo = this.acquisitions;
      if (this.held.every(({ cls }) => isOneOf(OWN_WORD, cls))) {
        // Sheaves are given up by a microtask of their own, which was queued after this one.
        queueMicrotask(() => this.turnEnded(upTo));
      } else this.turnEnded(upTo);
    });
  }

  /** Forgets own-word locks that are not ours any more, and `again`, which was just taken anew. */
  private dropGivenUp(again: LockPtr | 0 = 0): void {
    const { held, m, owner } = this;
    let kept = 0;
    for (let i = 0; i < held.length; i++) {
      const each = held[i]!;
      const own = isOneOf(OWN_WORD, each.cls);
      // Plain read: only we can make the word ours, and we see our own store.
      if (own && (each.lock === again || m[each.lock] !== owner)) continue;
      held[kept++] = each;
    }
    held.length = kept;
  }

  private checkCallback(lock: LockPtr, cls: LockClassId): void {
    const dtor = this.callbacks.findLast(({ kind }) => kind === 'dtor');
    if (dtor === undefined || isOneOf(LEAVES, cls)) return;
    this.fail('dtor', `takes ${this.nameOf(lock, cls)}, which is no leaf, within the dtor of ${dtor.name}`);
  }

  private checkRecursion(other: HeldLock, lock: LockPtr, cls: LockClassId): void {
    if (other.lock !== lock && (other.cls !== cls || isOneOf(NESTED, cls))) return;
    const which = other.lock === lock ? 'that very lock' : this.nameOf(other.lock, other.cls);
    this.fail('recursion', `possible recursive locking: takes ${this.nameOf(lock, cls)} and holds ${which}`);
  }

  private checkEdge(other: HeldLock, lock: LockPtr, cls: LockClassId): void {
    if (other.cls === cls) return; // nested
    const { graph } = this;
    const names = `takes ${this.nameOf(lock, cls)} and holds ${this.nameOf(other.lock, other.cls)}`;
    const isNew = graph.add(other.cls, cls, ownerThread(this.owner), () => new Place().text);
    const back = isNew ? graph.path(cls, other.cls) : undefined;
    if (back !== undefined) {
      const chain = back.slice(1).map((to, i) => graph.describe(back[i]!, to));
      const lines = chain.map(
        ({ held, taken, thread, place }) =>
          `\n  the other way, ${held} -> ${taken} by thread ${thread}: ${place}`,
      );
      this.fail('inversion', `possible circular locking dependency: ${names}`, other, lines.join(''));
    }
    if (LOCK_CLASS_TAKES[other.cls].includes(cls)) return;
    if (isOneOf(LEAVES, other.cls)) this.fail('leaf', `${names}, which is a leaf`, other);
    // Leaves are last in every chain: a callback may take one whatever its caller holds.
    if (this.callbacks.length > 0 && isOneOf(LEAVES, cls)) return;
    this.fail('order', `${names}, against the order of docs/locking.md`, other);
  }

  /**
   * A constructor allocates and waits for memory: under mutexes, and under other caches' sheaves, which the wait gives
   * up. A destructor waits for leaves alone, so whoever calls it needs only hold none.
   */
  private mayCallUnder(kind: CallbackKind, cache: CallbackCache, { lock, cls }: HeldLock): boolean {
    if (kind === 'dtor') return !isOneOf(LEAVES, cls);
    if (isOneOf(SLEEPING, cls)) return true;
    return isOneOf(OWN_WORD, cls) && this.cacheOf(lock) !== cache.slot;
  }

  private nameOf(lock: LockPtr, cls: LockClassId): string {
    return `${LOCK_CLASS_NAMES[cls]} at word ${lock}`;
  }

  private fail(kind: LockdepKind, what: string, about?: HeldLock, more = ''): never {
    const held = this.held.map(({ lock, cls, tried, place }) => {
      const how = tried ? ', by a trylock' : '';
      return `\n  held: ${this.nameOf(lock, cls)}${how}, taken at ${place?.text ?? 'a place that was not noted'}`;
    });
    const gone = about === undefined || this.held.includes(about);
    const left = gone ? '' : `\n  taken at ${about.place?.text ?? 'a place that was not noted'}`;
    const now = kind === 'turn' ? '' : `\n  now at ${new Place().text}`;
    const text = `lockdep: thread ${ownerThread(this.owner)} ${what}${now}${left}${held.join('')}${more}`;
    this.graph.report(text);
    throw new LockdepError(kind, text);
  }
}
