/** What the tests of maple trees share. */
import type { KmemCache } from '#src/cache/index.js';

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
