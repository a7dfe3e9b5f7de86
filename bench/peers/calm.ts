/**
 * Tells a calm moment from a disturbed one. A processor of a virtual machine is often one of the two threads of a
 * core: while its neighbour works (another guest, or the other processor of this one) it does half the work, whatever
 * the program does, and the neighbours change within milliseconds. So every sample is short and has the probe before
 * it and after it: two threads that add in registers. They ran as fast as one does alone, or the sample is taken again.
 * The probe knows of no allocator: what is kept does not depend on what is found.
 */
import type { Peer } from './peer.js';

/** How much slower than alone the probe may run on two threads. */
const DISTURBED = 1.1;
const PROBE_NS = 0.1e6;
const ALONE_TRIALS = 30;
const ALONE_STEPS = 200_000;

/** Takes one figure. */
export type Sample = () => Promise<number>;

export interface Bracket {
  readonly values: readonly number[];
  /** Nanoseconds per step of the slowest of the probes. */
  readonly slowest: number;
}

export class Gate {
  readonly #probe: Peer;
  readonly #steps: number;
  /** Nanoseconds of one step of the probe when nothing is in its way: the fastest that was seen. */
  #floor: number;

  private constructor(probe: Peer, floor: number) {
    this.#probe = probe;
    this.#floor = floor;
    this.#steps = Math.ceil(PROBE_NS / floor);
  }

  /** Learns the speed of the probe on one thread. */
  static async open(probe: Peer): Promise<Gate> {
    let fastest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < ALONE_TRIALS; i++) {
      const ns = await probe.run({ workload: 'probe', size: 0, threads: 1, operations: ALONE_STEPS });
      fastest = Math.min(fastest, ns / ALONE_STEPS);
    }
    return new Gate(probe, fastest);
  }

  /** Works one after the other, with a probe before, between and after. */
  async bracket(...works: readonly Sample[]): Promise<Bracket> {
    let slowest = await this.#onTwoThreads();
    const values: number[] = [];
    for (const work of works) {
      values.push(await work());
      slowest = Math.max(slowest, await this.#onTwoThreads());
    }
    return { values, slowest };
  }

  /** Whether a bracket was calm, as far as is known by now: a faster probe may still come. */
  isCalm(slowest: number): boolean {
    return slowest <= this.#floor * DISTURBED;
  }

  async #onTwoThreads(): Promise<number> {
    const operations = this.#steps;
    const ns = await this.#probe.run({ workload: 'probe', size: 0, threads: 2, operations });
    this.#floor = Math.min(this.#floor, ns / operations);
    return ns / operations;
  }
}
