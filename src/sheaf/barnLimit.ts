/**
 * How many full sheaves a barn takes: the arena's `barnFull` (10, as in the kernel) to begin with, and more where that
 * proves too few. The kernel's number is fixed, so a burst of 1000 objects sends five sheaves of 60 home to their slabs
 * each time, to be filled again from the same slabs by the next burst.
 *
 * | what happens                                        | spilled | regrets | growth                                 |
 * |-----------------------------------------------------|---------|---------|----------------------------------------|
 * | a full sheaf is offered at the limit, and flushed   | + 1     |         |                                        |
 * | a full sheaf is wanted, none is there, some spilled | - 1     | + 1     | + 1 for every 4th                      |
 * | 256 sheaves were put since we last looked           |         |         | - half of what nobody took meanwhile   |
 * | shrink, or memory is short                          | 0       | 0       | 0                                      |
 *
 * `most` bounds it all: no barn holds more than the arena's `barnFullMax` sheaves, or a 128th of its node in objects.
 *
 * All words but `low` and `puts` are written without the barn's lock. They are hints: of two CPUs that write at once
 * one is forgotten, the limit is off by one for a while, and no store takes it past `most`.
 */
import type { ThisCpu } from '../cpu/index.js';
import type { Geometry, Words } from '../struct/index.js';
import { Barn, type BarnPtr } from './nodeBarn.js';

const { nrFull: NR_FULL, growth: GROWTH, most: MOST } = Barn;
const { spilled: SPILLED, regrets: REGRETS, low: LOW, puts: PUTS } = Barn;

/** Spills regretted before the limit rises by one: a single odd burst does not move it. */
const REGRETS_TO_GROW = 4;
/** Puts between two looks at what lay idle. */
const PUTS_TO_LOOK = 256;
/** Of a node's bytes, the share that one barn's full sheaves may hold once the limit has grown. */
const NODE_SHARE = 128;

/** How far a barn may grow for sheaves of `capacity` objects of `size` bytes. */
export function barnGrowthMax(geometry: Geometry, capacity: number, size: number): number {
  const { bytes, nodes, barnFull, barnFullMax } = geometry;
  const affordable = Math.floor(bytes / nodes / NODE_SHARE / (capacity * size));
  return Math.max(0, Math.min(barnFullMax, affordable) - barnFull);
}

/** Full sheaves the barn takes in exchange, as of now; a data race, see the head of this file. */
export function barnLimit(cpu: ThisCpu, barn: BarnPtr): number {
  return cpu.geometry.barnFull + cpu.m[barn + GROWTH]!;
}

/** A full sheaf goes home to its slabs because the barn is at its limit. */
export function barnSpilled(m: Words, barn: BarnPtr): void {
  // More than could be kept is nothing to regret.
  if (m[barn + SPILLED]! < m[barn + MOST]!) m[barn + SPILLED] = m[barn + SPILLED]! + 1;
}

/** A full sheaf was wanted and there is none, so one is filled from slabs: had we kept what spilled! */
export function barnMissed(m: Words, barn: BarnPtr): void {
  const spilled = m[barn + SPILLED]!; // read once: two CPUs that both see the last one must not make it -1
  if (spilled <= 0) return;
  m[barn + SPILLED] = spilled - 1;
  const regrets = m[barn + REGRETS]! + 1;
  m[barn + REGRETS] = regrets % REGRETS_TO_GROW;
  if (regrets < REGRETS_TO_GROW) return;
  m[barn + GROWTH] = Math.min(m[barn + GROWTH]! + 1, m[barn + MOST]!);
}

/** A full sheaf was taken; lock held. */
export function barnEbbed(m: Words, barn: BarnPtr): void {
  if (m[barn + NR_FULL]! < m[barn + LOW]!) m[barn + LOW] = m[barn + NR_FULL]!;
}

/** A full sheaf was put; lock held. What nobody took in a long while is not needed: half of it goes. */
export function barnRose(m: Words, barn: BarnPtr): void {
  const puts = m[barn + PUTS]! + 1;
  m[barn + PUTS] = puts % PUTS_TO_LOOK;
  if (puts < PUTS_TO_LOOK) return;
  m[barn + GROWTH] = Math.max(0, m[barn + GROWTH]! - ((m[barn + LOW]! + 1) >> 1));
  m[barn + LOW] = m[barn + NR_FULL]!;
}

/** Back to the arena's own limit: somebody wants memory more than we want speed. */
export function barnForgetGrowth(m: Words, barn: BarnPtr): void {
  m[barn + GROWTH] = 0;
  m[barn + SPILLED] = 0;
  m[barn + REGRETS] = 0;
}
