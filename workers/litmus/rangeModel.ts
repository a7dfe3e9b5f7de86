/** A map of ranges as a sorted array: what a maple tree must be like. */
import { MAPLE_MAX, type MapleRange } from '../../src/index.js';

export class RangeModel {
  ranges: MapleRange[] = [];

  /** The first range that ends at or after `key`. */
  private indexOf(key: number): number {
    const { ranges } = this;
    let low = 0;
    for (let high = ranges.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (ranges[middle]!.last < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** What is at `key`: an entry's range, or the free one between two. */
  rangeAt(key: number): MapleRange {
    const i = this.indexOf(key);
    const found = this.ranges[i];
    if (found !== undefined && found.first <= key) return found;
    const first = i > 0 ? this.ranges[i - 1]!.last + 1 : 0;
    return { first, last: found === undefined ? MAPLE_MAX : found.first - 1, entry: 0 };
  }

  load(key: number): number {
    return this.rangeAt(key).entry;
  }

  store(first: number, last: number, entry: number): void {
    const { ranges } = this;
    const from = this.indexOf(first);
    let to = from;
    while (to < ranges.length && ranges[to]!.first <= last) to++;
    const pieces: MapleRange[] = [];
    const left = ranges[from];
    if (to > from && left!.first < first) pieces.push({ ...left!, last: first - 1 });
    if (entry !== 0) pieces.push({ first, last, entry });
    const right = ranges[to - 1];
    if (to > from && right!.last > last) pieces.push({ ...right!, first: last + 1 });
    ranges.splice(from, to - from, ...pieces);
  }

  copy(): RangeModel {
    const twin = new RangeModel();
    twin.ranges = this.ranges.slice();
    return twin;
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
