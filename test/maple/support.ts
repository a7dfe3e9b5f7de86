/** A map of ranges as a sorted array: what a maple tree must be like. */

import type { KmemCache } from '#src/cache/index.js';
import { MAPLE_MAX, type MapleRange } from '#src/index.js';

export class RangeModel {
  ranges: MapleRange[] = [];

  load(key: number): number {
    return this.ranges.find(({ first, last }) => first <= key && key <= last)?.entry ?? 0;
  }

  /** What is at `key`: an entry's range, or the free one between two. */
  rangeAt(key: number): MapleRange {
    const found = this.ranges.find(({ first, last }) => first <= key && key <= last);
    if (found !== undefined) return found;
    const below = this.ranges.findLast(({ last }) => last < key);
    const above = this.ranges.find(({ first }) => first > key);
    return { first: below ? below.last + 1 : 0, last: above ? above.first - 1 : MAPLE_MAX, entry: 0 };
  }

  store(first: number, last: number, entry: number): void {
    const kept: MapleRange[] = [];
    for (const range of this.ranges) {
      if (range.first < first) kept.push({ ...range, last: Math.min(range.last, first - 1) });
      if (range.last > last) kept.push({ ...range, first: Math.max(range.first, last + 1) });
    }
    if (entry !== 0) kept.push({ first, last, entry });
    this.ranges = kept.sort((a, b) => a.first - b.first);
  }

  /** The free ranges within [min, max], from below. */
  free(min: number, max: number): Array<{ first: number; last: number }> {
    const found: Array<{ first: number; last: number }> = [];
    let key = min;
    for (const { first, last } of this.ranges) {
      if (last < key) continue;
      if (first > max) break;
      if (first > key) found.push({ first: key, last: first - 1 });
      key = last + 1;
    }
    if (key <= max) found.push({ first: key, last: max });
    return found;
  }

  emptyArea(size: number, min: number, max: number): number {
    return this.free(min, max).find(({ first, last }) => last - first >= size - 1)?.first ?? -1;
  }

  emptyAreaReverse(size: number, min: number, max: number): number {
    const found = this.free(min, max).findLast(({ first, last }) => last - first >= size - 1);
    return found === undefined ? -1 : found.last - size + 1;
  }

  overlapping(first: number, last: number): MapleRange[] {
    return this.ranges.filter((range) => range.first <= last && range.last >= first);
  }
}

export interface NodeWatch {
  /** Calls by which nodes were asked for or given back, in order. */
  calls: string[];
  /** Which of the calls to come that ask for nodes is refused; 0 for none. */
  failAt: number;
}

/** Notes the calls that a tree makes of its nodes' cache, and refuses one of them. */
export function watchNodes(cache: KmemCache): NodeWatch {
  const watch: NodeWatch = { calls: [], failAt: 0 };
  let depth = 0; // a slow path may begin again with the fast one
  const asked = <T>(call: string, refusal: T, ask: () => T): T => {
    if (depth === 0) {
      watch.calls.push(call);
      if (watch.failAt > 0 && --watch.failAt === 0) return refusal;
    }
    depth++;
    const result = ask();
    depth--;
    return result;
  };
  const { alloc, prefill, refill } = cache;
  const back = cache.return;
  cache.alloc = (gfp) => asked('alloc', 0, () => alloc.call(cache, gfp));
  cache.prefill = (n, gfp) => asked(`prefill ${n}`, null, () => prefill.call(cache, n, gfp));
  cache.refill = (sheaf, n, gfp) => asked(`refill ${n}`, null, () => refill.call(cache, sheaf, n, gfp));
  cache.return = (sheaf, gfp) => {
    watch.calls.push('return');
    back.call(cache, sheaf, gfp);
  };
  return watch;
}

/** A small generator, so that a failing sequence is a number. */
export function generator(seed: number): (below: number) => number {
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
