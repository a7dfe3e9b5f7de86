/**
 * The three treatments of failure. Out of memory is the address 0 and never an exception; wrong options throw
 * `RangeError` or `TypeError`; what is below is misuse found at run time. When one of these is thrown nothing
 * in the arena has changed, unless the class says otherwise.
 */

import { nearestName } from './nearest.js';

/** Base of every error that Granary itself raises. */
export class GranaryError extends Error {
  override name = 'GranaryError';
}

/** What was wrong with an address or a sheaf that was handed back, or with the cache it was handed to. */
export type SlabBugKind =
  | 'double-free'
  | 'invalid-pointer'
  | 'misaligned'
  | 'wrong-cache'
  | 'not-a-slab'
  | 'cache-destroyed'
  | 'bad-page'
  | 'bad-sheaf'
  | 'bad-array'
  | 'use-after-free'
  | 'usercopy'
  | 'corrupt';

/**
 * Misuse of the allocator: double free, foreign or misaligned address, another cache's object, a destroyed
 * cache. The message has the form of the kernel's `BUG <cache>: <what>` reports.
 */
export class SlabBugError extends GranaryError {
  override name = 'SlabBugError';
  readonly kind: SlabBugKind;
  readonly cache: string;
  readonly address: number;

  constructor(kind: SlabBugKind, cache: string, address: number, what: string) {
    super(`BUG ${cache}: ${what}`);
    this.kind = kind;
    this.cache = cache;
    this.address = address;
  }
}

/**
 * There was no memory where 0 could not say so: for a cache (nothing was made), for __GFP_NOFAIL within its limit, or
 * for an orThrow form. The message says what was tried.
 */
export class OutOfMemoryError extends GranaryError {
  override name = 'OutOfMemoryError';
}

/**
 * An allocation needed a new slab, and the cache's constructor failed on it by throwing: `cause` is what it threw. What
 * it had constructed was destructed and the memory given back.
 */
export class ConstructorError extends GranaryError {
  override name = 'ConstructorError';
  readonly cache: string;
  /** The object that could not be constructed; 0 when it did not come to one. */
  readonly address: number;
  /** What it returned; 0 when it threw. */
  readonly result: number;

  constructor(cache: string, address: number, result: number, what: string, options?: ErrorOptions) {
    const where = address === 0 ? '' : ` at 0x${address.toString(16)}`;
    super(`the constructor of ${cache} failed${where}: ${what}`, options);
    this.cache = cache;
    this.address = address;
    this.result = result;
  }
}

/** This thread has not imported the functions of a cache, or others than those that the cache was made with. */
export class CacheDefinitionError extends GranaryError {
  override name = 'CacheDefinitionError';
  readonly cache: string;

  constructor(cache: string, what: string) {
    super(`cache ${cache}: ${what}`);
    this.cache = cache;
  }
}

/** A thread used the arena without a CPU slot, or there was no slot for it. */
export class CpuError extends GranaryError {
  override name = 'CpuError';
}

/** `attach` was given something that is not an arena of this build. */
export class AttachError extends GranaryError {
  override name = 'AttachError';
}

/** A lock was not free within the limit, or its owner died in the critical section. */
export class LockError extends GranaryError {
  override name = 'LockError';
  readonly lockClass: string;
  readonly owner: number;

  constructor(message: string, lockClass: string, owner: number) {
    super(message);
    this.lockClass = lockClass;
    this.owner = owner;
  }
}

/** What lockdep found: each is a rule of docs/locking.md. */
export type LockdepKind =
  | 'inversion'
  | 'order'
  | 'recursion'
  | 'leaf'
  | 'wait'
  | 'turn'
  | 'ctor'
  | 'dtor'
  | 'not-held';

/**
 * A rule about locks was broken, in an arena made with `lockdep: true`. It is thrown before the lock is taken or the wait
 * begins, so that nothing hangs; what cannot be refused, such as the end of a turn, has happened. The message names the
 * locks that the thread holds, and both chains of an inversion with their places.
 */
export class LockdepError extends GranaryError {
  override name = 'LockdepError';
  readonly kind: LockdepKind;

  constructor(kind: LockdepKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Says what an option was, and what it may be. */
export function optionError(name: string, value: unknown, allowed: string): RangeError {
  return new RangeError(`${name} is ${describe(value)}; it must be ${allowed}`);
}

/** A short text for any value in an error message. */
export function describe(value: unknown): string {
  if (typeof value === 'string')
    return JSON.stringify(value.length > 64 ? `${value.slice(0, 64)}...` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function' || typeof value === 'object') {
    if (value === null) return 'null';
    const name = String(value.constructor?.name ?? typeof value);
    return `${/^[AEIO]/i.test(name) ? 'an' : 'a'} ${name}`;
  }
  return String(value);
}

/** Throws unless `value` is an array of objects, such as a report is made from. */
export function requireRows(name: string, value: unknown): void {
  if (!Array.isArray(value)) throw new TypeError(`${name} is ${describe(value)}; it must be an array`);
  for (const row of value) {
    if (typeof row === 'object' && row !== null) continue;
    throw new TypeError(`${name} has ${describe(row)}; its entries must be objects`);
  }
}

/** Throws unless `value` is a string. */
export function requireString(name: string, value: unknown): string {
  if (typeof value !== 'string') throw new TypeError(`${name} is ${describe(value)}; it must be a string`);
  return value;
}

/** Throws unless `value` is a function. */
export function requireFunction(name: string, value: unknown): void {
  if (typeof value !== 'function')
    throw new TypeError(`${name} is ${describe(value)}; it must be a function`);
}

/** Throws unless `value` is an object, such as one of options is. */
export function requireObject(name: string, value: unknown): void {
  if (typeof value === 'object' && value !== null) return;
  throw new TypeError(`${name} is ${describe(value)}; it must be an object`);
}

/**
 * Throws TypeError when `options` has a property that is none of `known`, and says which was meant if that can be told: a
 * misspelt option would be as good as none, silently.
 */
export function requireKnown(what: string, options: object, known: readonly string[]): void {
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue;
    const nearest = nearestName(name, known);
    const meant = nearest === undefined ? 'it' : `did you mean ${nearest}? It`;
    throw new TypeError(`${what} has ${name.slice(0, 64)}; ${meant} may have ${known.join(', ')}`);
  }
}

/** Throws unless `value` is an integer in `[min, max]`. */
export function requireInteger(name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number') throw new TypeError(`${name} is ${describe(value)}; it must be a number`);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw optionError(name, value, `an integer from ${min} to ${max}`);
  }
  return value;
}

/** Throws unless `value` is one of `allowed`. */
export function requireOneOf<T extends string>(name: string, value: unknown, allowed: readonly T[]): T {
  if (!allowed.includes(value as T)) throw optionError(name, value, `one of ${allowed.join(', ')}`);
  return value as T;
}
