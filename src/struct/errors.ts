/**
 * The three treatments of failure. Out of memory is the address 0 and never an exception; wrong options throw
 * `RangeError` or `TypeError`; what is below is misuse found at run time. When one of these is thrown nothing
 * in the arena has changed, unless the class says otherwise.
 */

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
  | 'usercopy';

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
    return value === null ? 'null' : `a ${value.constructor?.name ?? typeof value}`;
  }
  return String(value);
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
