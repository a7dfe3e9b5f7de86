/**
 * Every shared access that is not plain goes through here, so that a search for these names lists every
 * ordering in the program. JavaScript offers two strengths, sequentially consistent and unordered; the names
 * say what the caller needs, and the comment at each use names its partner.
 */
import type { Words } from '../struct/index.js';

/** Sees everything that was written before the store which it reads. Partner: {@link storeRelease}. */
export const loadAcquire = (m: Int32Array, i: number): number => Atomics.load(m, i);

/** Makes everything written so far visible to whoever reads this value. Partner: {@link loadAcquire}. */
export const storeRelease = (m: Int32Array, i: number, value: number): void => {
  Atomics.store(m, i, value);
};

/** Compare and exchange; returns what was there. A failing one orders nothing. */
export const cmpxchg = (m: Int32Array, i: number, expected: number, value: number): number =>
  Atomics.compareExchange(m, i, expected, value);

/** Compare and exchange of one byte, for the allocated-state of an object. */
export const cmpxchgByte = (bytes: Uint8Array, i: number, expected: number, value: number): number =>
  Atomics.compareExchange(bytes, i, expected, value);

export const exchange = (m: Int32Array, i: number, value: number): number => Atomics.exchange(m, i, value);
export const fetchAdd = (m: Int32Array, i: number, value: number): number => Atomics.add(m, i, value);
export const fetchOr = (m: Int32Array, i: number, bits: number): number => Atomics.or(m, i, bits);
export const fetchAnd = (m: Int32Array, i: number, bits: number): number => Atomics.and(m, i, bits);

/** Sleeps until woken, at most `timeoutMs`. Throws where the thread may not block (a window's main thread). */
export const futexWait = (
  m: Int32Array,
  i: number,
  value: number,
  timeoutMs: number,
): 'ok' | 'not-equal' | 'timed-out' => Atomics.wait(m, i, value, timeoutMs);

/** Wakes up to `count` sleepers; costs far more than a load even when there is none, so ask first. */
export const futexWake = (m: Int32Array, i: number, count: number): number => Atomics.notify(m, i, count);

/** Whether this thread may sleep on `m`: not on a browser window's main thread. */
export function canSleep(m: Words): boolean {
  try {
    Atomics.wait(m, 0, m[0]! + 1, 0);
    return true;
  } catch {
    return false;
  }
}
