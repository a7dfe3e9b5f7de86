/**
 * Where contention happens, in the highest tier of lock statistics: who waits, and who is waited for.
 *
 * A stack costs microseconds, so it is looked at for contended acquisitions only, and after the unlock, where nobody waits
 * for it. The function that gives a lock up is the one that took it.
 *
 *  LS1  A waiter marks the lock's last owner, which holds it. Whoever gives up a marked lock notes itself as a holder.
 *  LS2  The mark is set by a locked instruction and cleared by plain stores of the owner: a mark that meets such a store
 *       is lost, and one hold is not noted. No acquisition, wait or bounce is counted by it.
 */
import { type Doubles, type Ptr, struct, WORD_BYTES, type Words } from '../struct/index.js';
import { fetchOr } from './atomic.js';
import { HELD_LOCKS_MAX, Lock, type LockPtr } from './lock.js';
import { type LockClassId, NR_LOCK_CLASSES } from './lockClass.js';
import { CONTENDED, HoldTimingLocks } from './lockStat.js';
import { Place } from './place.js';

/** Call sites that a thread keeps for each class, of waiters and of holders. Kernel: `LOCKSTAT_POINTS`. */
const LOCK_POINTS = 4;

const TEXT_WORDS = 23;

/** One call site of one thread. Times in doubles, nanoseconds, 0 for holders. */
const LockSite = struct('lock_site', {
  count: 2,
  waitTotal: 2,
  waitMin: 2,
  waitMax: 2,
  bytes: 1,
  text: TEXT_WORDS,
});

const KIND_WORDS = LOCK_POINTS * LockSite.SIZEOF;
const CLASS_WORDS = 2 * KIND_WORDS;
/** Words of one thread. */
export const LOCK_SITES_WORDS = NR_LOCK_CLASSES * CLASS_WORDS;

const WAITERS = 0;
const HOLDERS = 1;

const siteAt = (block: number, cls: number, kind: number, point: number): number =>
  block + cls * CLASS_WORDS + kind * KIND_WORDS + point * LockSite.SIZEOF;

/** A call site: how often it waited and for how long, or how often it was waited for. */
export interface LockPoint {
  /** The function that took the lock and its place in the source. */
  site: string;
  count: number;
  waitTotalNs: number;
  waitMinNs: number;
  waitMaxNs: number;
}

/** Full statistics with call sites: holds as the tier below, sites of contended acquisitions. */
export class SiteLocks extends HoldTimingLocks {
  private readonly bytes: Uint8Array;
  private readonly sites: number;
  /** How long the lock at each nesting depth was waited for, 0 for those that were free. */
  private readonly waits = new Float64Array(HELD_LOCKS_MAX);

  constructor(
    m: Words,
    f64: Doubles,
    owner: number,
    record: Ptr<'lock_record'>,
    block: number,
    every: number,
    sites: number,
  ) {
    super(m, f64, owner, record, block, every);
    this.bytes = new Uint8Array(m.buffer);
    this.sites = sites;
  }

  override unlock(lock: LockPtr, cls: LockClassId): void {
    const { m, waits } = this;
    const last = m[lock + Lock.lastOwner]!;
    const waitedFor = (last & CONTENDED) !== 0;
    if (waitedFor) m[lock + Lock.lastOwner] = last & ~CONTENDED;
    const depth = this.held - 1;
    super.unlock(lock, cls);
    const waited = waits[depth]!;
    if (waited === 0 && !waitedFor) return;
    waits[depth] = 0;
    const site = new Place().caller;
    if (waited !== 0) this.note(cls, WAITERS, site, waited);
    if (waitedFor) this.note(cls, HOLDERS, site, 0);
  }

  protected override contended(lock: LockPtr, cls: LockClassId): void {
    fetchOr(this.m, lock + Lock.lastOwner, CONTENDED); // LS1
    super.contended(lock, cls);
  }

  protected override waited(cls: LockClassId, ns: number): void {
    super.waited(cls, ns);
    this.waits[this.held] = Math.max(ns, 1);
  }

  /** Counts at that site's place; beyond the first four nobody counts, as in the kernel. */
  private note(cls: LockClassId, kind: number, site: string, ns: number): void {
    const { m, f64 } = this;
    for (let point = 0; point < LOCK_POINTS; point++) {
      const at = siteAt(this.sites, cls, kind, point);
      if (m[at + LockSite.bytes] === 0) this.write(at, site);
      else if (readText(this.bytes, m, at) !== site.slice(0, TEXT_WORDS * WORD_BYTES)) continue;
      const d = at >> 1;
      const min = f64[d + LockSite.waitMin / 2]!;
      f64[d]! += 1;
      f64[d + LockSite.waitTotal / 2]! += ns;
      f64[d + LockSite.waitMin / 2] = min === 0 ? ns : Math.min(min, ns);
      f64[d + LockSite.waitMax / 2] = Math.max(f64[d + LockSite.waitMax / 2]!, ns);
      return;
    }
  }

  private write(at: number, site: string): void {
    const length = Math.min(site.length, TEXT_WORDS * WORD_BYTES);
    const from = (at + LockSite.text) * WORD_BYTES;
    for (let i = 0; i < length; i++) this.bytes[from + i] = site.charCodeAt(i);
    this.m[at + LockSite.bytes] = length;
  }
}

function readText(bytes: Uint8Array, m: Words, at: number): string {
  const from = (at + LockSite.text) * WORD_BYTES;
  return String.fromCharCode(...bytes.subarray(from, from + m[at + LockSite.bytes]!));
}

/** The call sites of one class by how often they counted, of `threads` threads whose blocks begin at word `area`. */
export function readLockPoints(
  m: Words,
  f64: Doubles,
  area: number,
  threads: number,
  cls: number,
): { contentionPoints: LockPoint[]; contendedPoints: LockPoint[] } {
  const bytes = new Uint8Array(m.buffer);
  const merged = (kind: number): LockPoint[] => {
    const points = new Map<string, LockPoint>();
    for (let i = 0; i < threads * LOCK_POINTS; i++) {
      const block = area + Math.floor(i / LOCK_POINTS) * LOCK_SITES_WORDS;
      const at = siteAt(block, cls, kind, i % LOCK_POINTS);
      if (m[at + LockSite.bytes] === 0) continue;
      const site = readText(bytes, m, at);
      points.set(site, addPoint(points.get(site), readPoint(f64, at >> 1, site)));
    }
    return [...points.values()].sort((a, b) => b.count - a.count);
  };
  return { contentionPoints: merged(WAITERS), contendedPoints: merged(HOLDERS) };
}

function readPoint(f64: Doubles, d: number, site: string): LockPoint {
  return {
    site,
    count: f64[d]!,
    waitTotalNs: f64[d + LockSite.waitTotal / 2]!,
    waitMinNs: f64[d + LockSite.waitMin / 2]!,
    waitMaxNs: f64[d + LockSite.waitMax / 2]!,
  };
}

function addPoint(a: LockPoint | undefined, b: LockPoint): LockPoint {
  if (a === undefined) return b;
  return {
    site: a.site,
    count: a.count + b.count,
    waitTotalNs: a.waitTotalNs + b.waitTotalNs,
    waitMinNs: Math.min(a.waitMinNs, b.waitMinNs),
    waitMaxNs: Math.max(a.waitMaxNs, b.waitMaxNs),
  };
}
