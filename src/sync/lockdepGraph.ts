/**
 * What lockdep knows of an arena, in the arena: which class was waited for under which, by whom and where first, and
 * what was reported. All threads write into one graph, so that A -> B of one and B -> A of another meet.
 *
 *  LG1  An edge is claimed by a compare-exchange before its first taker looks for a way back, and never removed. Of two
 *       threads that add the two halves of a circle at once, each claims first: at least one of them sees the other's.
 *  LG2  Who claims an edge writes its place and then says so with release. One that died in between leaves an edge
 *       without a place, which counts as any other.
 */
import { LINE_WORDS, type Ptr, struct, WORD_BYTES, type Words } from '../struct/index.js';
import { cmpxchg, fetchAdd, loadAcquire, storeRelease } from './atomic.js';
import { LOCK_CLASS_NAMES, type LockClassId, NR_LOCK_CLASSES } from './lockClass.js';

const PLACE_WORDS = 93;
const REPORT_WORDS = 511;
const REPORTS_MAX = 8;

const EdgeState = { NONE: 0, CLAIMED: 1, PLACED: 2 } as const;

/** A class that was waited for under another, and the first thread that did. */
const LockdepEdge = struct('lockdep_edge', { state: 1, thread: 1, placeBytes: 1, place: PLACE_WORDS });
const LockdepReport = struct('lockdep_report', { bytes: 1, text: REPORT_WORDS });
const LockdepState = struct('lockdep', { nrReports: 1 }, { alignWords: LINE_WORDS });

const EDGES_AT = LockdepState.SIZEOF;
const REPORTS_AT = EDGES_AT + NR_LOCK_CLASSES * NR_LOCK_CLASSES * LockdepEdge.SIZEOF;

/** Words of the region, when an arena is made with lockdep. */
export const LOCKDEP_WORDS = REPORTS_AT + REPORTS_MAX * LockdepReport.SIZEOF;

/** One edge of the order graph. */
export interface LockOrderEdge {
  /** Name of the class that was held. */
  held: string;
  /** Name of the class that was waited for under it. */
  taken: string;
  /** Thread slot that did so first. */
  thread: number;
  /** Where, the innermost function first; empty when that thread died before it could say. */
  place: string;
}

/** What lockdep knows of an arena. */
export interface LockdepInfo {
  /** Each class that was waited for under another. */
  edges: LockOrderEdge[];
  /** The first reports of broken rules, of any thread. */
  reports: string[];
}

/** Reads the region at word `at`; empty when it is 0, that of an arena without lockdep. */
export function readLockdep(m: Words, at: number): LockdepInfo {
  if (at === 0) return { edges: [], reports: [] };
  const graph = new LockdepGraph(m, at);
  return { edges: graph.edges(), reports: graph.reports() };
}

export class LockdepGraph {
  private readonly m: Words;
  private readonly bytes: Uint8Array;
  private readonly at: Ptr<'lockdep'>;

  constructor(m: Words, at: number) {
    this.m = m;
    this.bytes = new Uint8Array(m.buffer);
    this.at = at as Ptr<'lockdep'>;
  }

  has(held: LockClassId, taken: LockClassId): boolean {
    return loadAcquire(this.m, this.edge(held, taken)) !== EdgeState.NONE; // LG1
  }

  /** Adds an edge. False when it is known already. */
  add(held: LockClassId, taken: LockClassId, thread: number, place: () => string): boolean {
    const { m } = this;
    const edge = this.edge(held, taken);
    if (m[edge] !== EdgeState.NONE) return false; // never goes back, so an old value is only a second look below
    if (cmpxchg(m, edge, EdgeState.NONE, EdgeState.CLAIMED) !== EdgeState.NONE) return false; // LG1
    m[edge + LockdepEdge.thread] = thread;
    m[edge + LockdepEdge.placeBytes] = this.write(edge + LockdepEdge.place, PLACE_WORDS, place());
    storeRelease(m, edge, EdgeState.PLACED); // LG2; pairs with describe
    return true;
  }

  /** A shortest chain of edges from one class to another, both ends included; undefined when there is none. */
  path(from: LockClassId, to: LockClassId): LockClassId[] | undefined {
    const chains: LockClassId[][] = [[from]];
    const seen = new Set<LockClassId>([from]);
    for (const chain of chains) {
      for (let next = 0 as number; next < NR_LOCK_CLASSES; next++) {
        const cls = next as LockClassId;
        if (!this.has(chain[chain.length - 1]!, cls)) continue;
        if (cls === to) return [...chain, cls];
        if (!seen.has(cls)) chains.push([...chain, cls]);
        seen.add(cls);
      }
    }
    return undefined;
  }

  describe(held: LockClassId, taken: LockClassId): LockOrderEdge {
    const { m } = this;
    const edge = this.edge(held, taken);
    const placed = loadAcquire(m, edge) === EdgeState.PLACED; // LG2; pairs with add
    const bytes = placed ? m[edge + LockdepEdge.placeBytes]! : 0;
    return {
      held: LOCK_CLASS_NAMES[held]!,
      taken: LOCK_CLASS_NAMES[taken]!,
      thread: placed ? m[edge + LockdepEdge.thread]! : -1,
      place: this.read(edge + LockdepEdge.place, bytes),
    };
  }

  edges(): LockOrderEdge[] {
    const ids = LOCK_CLASS_NAMES.map((_, cls) => cls as LockClassId);
    return ids.flatMap((held) =>
      ids.filter((taken) => this.has(held, taken)).map((taken) => this.describe(held, taken)),
    );
  }

  /** Keeps a report for whoever asks; the first few are kept, since what comes after is often their consequence. */
  report(text: string): void {
    const { m, at } = this;
    const nr = fetchAdd(m, at + LockdepState.nrReports, 1);
    if (nr >= REPORTS_MAX) return;
    const slot = this.reportAt(nr);
    const bytes = this.write(slot + LockdepReport.text, REPORT_WORDS, text);
    storeRelease(m, slot + LockdepReport.bytes, bytes); // pairs with reports
  }

  reports(): string[] {
    const { m, at } = this;
    const nr = Math.min(loadAcquire(m, at + LockdepState.nrReports), REPORTS_MAX);
    return Array.from({ length: nr }, (_, i) => {
      const slot = this.reportAt(i);
      return this.read(slot + LockdepReport.text, loadAcquire(m, slot + LockdepReport.bytes));
    });
  }

  /** Forgets edges and reports; the threads of the arena are quiet. */
  clear(): void {
    this.m.fill(0, this.at, this.at + LOCKDEP_WORDS);
  }

  private edge(held: LockClassId, taken: LockClassId): number {
    return this.at + EDGES_AT + (held * NR_LOCK_CLASSES + taken) * LockdepEdge.SIZEOF;
  }

  private reportAt(nr: number): number {
    return this.at + REPORTS_AT + nr * LockdepReport.SIZEOF;
  }

  /** Texts are Latin-1, cut to what fits. */
  private write(word: number, words: number, text: string): number {
    const length = Math.min(text.length, words * WORD_BYTES);
    for (let i = 0; i < length; i++) this.bytes[word * WORD_BYTES + i] = text.charCodeAt(i);
    return length;
  }

  private read(word: number, length: number): string {
    const from = word * WORD_BYTES;
    return String.fromCharCode(...this.bytes.subarray(from, from + length));
  }
}
