/** Shrinkers: what a program can give back when memory is short, such as objects that it caches itself. */
import { describe } from '../../struct/index.js';

/** Kernel: `struct shrinker`. Both functions run in the thread that registered it, with no lock held. */
export interface Shrinker {
  name: string;
  /** How many objects it could free now; 0 for none. Cheap. */
  count(): number;
  /** Frees up to `n` of them, and returns how many it freed. */
  scan(n: number): number;
}

/** Errors that are kept for the report. */
const ERRORS_MAX = 16;

export class Shrinkers {
  private readonly list: Shrinker[] = [];
  /** What shrinkers threw or returned that they may not, the latest last. */
  readonly errors: string[] = [];

  /** Adds one; the function that is returned removes it. Throws TypeError when it is none. */
  register(shrinker: Shrinker): () => void {
    if (typeof shrinker !== 'object' || shrinker === null || typeof shrinker.name !== 'string') {
      throw new TypeError(
        `shrinker is ${describe(shrinker)}; it must be an object with name, count and scan`,
      );
    }
    for (const method of ['count', 'scan'] as const) {
      if (typeof shrinker[method] === 'function') continue;
      throw new TypeError(`shrinker.${method} is ${describe(shrinker[method])}; it must be a function`);
    }
    this.list.push(shrinker);
    return () => {
      const at = this.list.indexOf(shrinker);
      if (at >= 0) this.list.splice(at, 1);
    };
  }

  /** Lets each free a part of what it has, `share` of 1; one that throws does not keep the others from it. */
  run(share: number): void {
    for (const shrinker of [...this.list]) {
      try {
        const n = shrinker.count();
        if (!Number.isInteger(n) || n < 0) throw new RangeError(`count() returned ${describe(n)}`);
        if (n > 0) shrinker.scan(Math.ceil(n * share));
      } catch (error) {
        this.note(`shrinker ${shrinker.name}: ${error instanceof Error ? error.message : describe(error)}`);
      }
    }
  }

  private note(what: string): void {
    if (this.errors.includes(what)) return;
    this.errors.push(what);
    if (this.errors.length > ERRORS_MAX) this.errors.shift();
  }
}
