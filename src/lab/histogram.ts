/**
 * A log-linear histogram of durations on shared words: each octave from 16 ns to 17 s is cut into 8 buckets, so
 * a value is known to an eighth of its octave's start; below 16 ns buckets are 2 ns wide. One thread records;
 * others read or merge it after that thread has said, through a lock or a message, that it is done.
 */

const SUB_BITS = 3;
const SUB_BUCKETS = 1 << SUB_BITS;
const LINEAR_BITS = 4;
const TOP_BITS = 34;
const BUCKETS = (TOP_BITS - LINEAR_BITS + 1) * SUB_BUCKETS;
const LIMIT = 2 ** TOP_BITS;
const WORD = 2 ** 32;

// Words: the largest value (low, high), then the buckets.
const MAX_LOW = 0;
const MAX_HIGH = 1;
const COUNTS = 2;

/** Words a histogram occupies in an Int32Array. */
export const HISTOGRAM_WORDS = COUNTS + BUCKETS;

function bucketOf(ns: number): number {
  if (ns >= LIMIT) return BUCKETS - 1;
  // Above 32 bits the value is halved until it fits; the bits that are lost lie below a bucket's width.
  const halvings = ns >= WORD ? TOP_BITS - 32 : 0;
  const value = (halvings === 0 ? ns : ns / (1 << halvings)) >>> 0;
  if (value < 1 << LINEAR_BITS) return value >>> 1;
  const top = 31 - Math.clz32(value);
  const sub = (value >>> (top - SUB_BITS)) & (SUB_BUCKETS - 1);
  return (top + halvings - SUB_BITS) * SUB_BUCKETS + sub;
}

/** The largest whole number of nanoseconds that falls into the bucket. */
function bucketEnd(bucket: number): number {
  if (bucket < SUB_BUCKETS) return bucket * 2 + 1;
  const octave = Math.floor(bucket / SUB_BUCKETS) + SUB_BITS;
  const width = 2 ** (octave - SUB_BITS);
  return 2 ** octave + ((bucket % SUB_BUCKETS) + 1) * width - 1;
}

export class Histogram {
  readonly words: Int32Array;

  /** Takes the first HISTOGRAM_WORDS words of the view as they are; zeroed words are an empty histogram. */
  constructor(words: Int32Array = new Int32Array(new SharedArrayBuffer(HISTOGRAM_WORDS * 4))) {
    if (words.length < HISTOGRAM_WORDS) {
      throw new RangeError(`a histogram needs ${HISTOGRAM_WORDS} words, got ${words.length}`);
    }
    this.words = words;
  }

  /** Counts one duration in whole nanoseconds. Below 0 counts as 0, from 17 s on as the last bucket. */
  record(ns: number): void {
    const value = ns > 0 ? Math.floor(ns) : 0;
    this.words[COUNTS + bucketOf(value)]!++;
    if (value > this.max) this.setMax(value);
  }

  private setMax(value: number): void {
    const max = Math.min(value, Number.MAX_SAFE_INTEGER);
    this.words[MAX_LOW] = max % WORD;
    this.words[MAX_HIGH] = Math.floor(max / WORD);
  }

  /** Adds another histogram's counts to this one. */
  merge(other: Histogram): void {
    for (let i = COUNTS; i < HISTOGRAM_WORDS; i++) this.words[i]! += other.words[i]!;
    if (other.max > this.max) this.setMax(other.max);
  }

  /** The largest recorded duration; 0 when nothing was recorded. */
  get max(): number {
    return (this.words[MAX_HIGH]! >>> 0) * WORD + (this.words[MAX_LOW]! >>> 0);
  }

  /** Recorded durations. A bucket counts to 2^32 and wraps. */
  get count(): number {
    let total = 0;
    for (let i = COUNTS; i < HISTOGRAM_WORDS; i++) total += this.words[i]! >>> 0;
    return total;
  }

  /** The buckets that are not empty: the largest duration that falls into each, and how many did. */
  buckets(): Array<[endNs: number, count: number]> {
    const list: Array<[number, number]> = [];
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const count = this.words[COUNTS + bucket]! >>> 0;
      if (count > 0) list.push([bucketEnd(bucket), count]);
    }
    return list;
  }

  /** A duration that p percent of the recorded ones do not exceed, less than a bucket too high; 0 when empty. */
  percentile(p: number): number {
    if (!(p >= 0 && p <= 100)) throw new RangeError(`the percentile must be from 0 to 100, got ${p}`);
    const rank = Math.max(1, Math.ceil((p / 100) * this.count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS - 1; bucket++) {
      seen += this.words[COUNTS + bucket]! >>> 0;
      if (seen >= rank) return Math.min(bucketEnd(bucket), this.max);
    }
    // The last bucket has no end, so only the maximum bounds it.
    return this.max;
  }
}
