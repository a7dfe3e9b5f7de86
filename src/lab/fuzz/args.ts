/** Good arguments. */
import { __GFP_NOWARN, __GFP_ZERO, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, NUMA_NO_NODE } from '../../index.js';
import type { Arg } from './rule.js';

export const gfp: Arg = ({ rng }) =>
  rng.pick([undefined, GFP_KERNEL, GFP_NOWAIT, GFP_ATOMIC, GFP_KERNEL | __GFP_ZERO]) === undefined
    ? undefined
    : rng.pick([GFP_KERNEL, GFP_NOWAIT, GFP_ATOMIC, GFP_KERNEL | __GFP_ZERO]) | __GFP_NOWARN;
export const nolockGfp: Arg = ({ rng }) => rng.pick([0, __GFP_ZERO, __GFP_NOWARN]);
export const size: Arg = ({ rng }) =>
  rng.pick([0, 1, 8, 24, 64, 100, 192, 500, 1024, 4096, 8192, 8193, 20_000]);
export const node: Arg = ({ rng }) => rng.pick([NUMA_NO_NODE, 0]);
export const count: Arg = ({ rng }) => rng.pick([0, 1, 2, 3, 5, 9, 16]);
export const list: Arg = () => new Int32Array(16);
export const kmalloced: Arg = (world) => world.have('kmalloc');
export const scratch: Arg = (world) => world.scratch;
export const head: Arg = ({ rng }) => rng.pick([undefined, 0, 4, 8]);
export const order: Arg = ({ rng }) => rng.below(3);
export const key: Arg = ({ rng }) => rng.below(1 << 16);
export const entry: Arg = ({ rng }) => 1 + rng.below(1000);
export const name: Arg = (world) => `fuzz${world.names++ % 3000}`;
export const cpu: Arg = ({ rng }) => rng.below(2);
export const page: Arg = ({ rng }) => (16 + rng.below(64)) * 4096;
export const bytes: Arg = ({ rng }) => (1 + rng.below(8)) * 4096;
