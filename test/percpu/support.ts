/** Arenas for tests of percpu memory, and a look at what lies in them. */
import { expect } from 'vitest';
import type { Arena, ArenaOptions, PercpuInfo } from '#src/index.js';
import { boot, MiB } from '../cache/support/arena.js';

export const KiB = 1 << 10;

export const bootPercpu = (options: Partial<ArenaOptions> = {}): Arena =>
  boot({ bytes: 16 * MiB, cpus: 3, ...options });

export const info = (arena: Arena): PercpuInfo => arena.percpu.info();

/** The words of one copy. */
export function words(arena: Arena, p: number, cpu: number, n: number): number[] {
  const at = arena.perCpuPtr(p, cpu) >> 2;
  return Array.from(arena.i32.subarray(at, at + n));
}

/** Fills each copy with numbers of its own, so that two areas that overlap show. */
export function mark(arena: Arena, p: number, bytes: number, seed: number): void {
  for (let cpu = 0; cpu < arena.geometry.cpus; cpu++) {
    const at = arena.perCpuPtr(p, cpu) >> 2;
    for (let i = 0; i < Math.ceil(bytes / 4); i++) arena.i32[at + i] = markOf(seed, cpu, i);
  }
}

export function expectMarked(arena: Arena, p: number, bytes: number, seed: number): void {
  for (let cpu = 0; cpu < arena.geometry.cpus; cpu++) {
    const at = arena.perCpuPtr(p, cpu) >> 2;
    for (let i = 0; i < Math.ceil(bytes / 4); i++) {
      if (arena.i32[at + i] === markOf(seed, cpu, i)) continue;
      expect.fail(`word ${i} of the copy of CPU ${cpu} of 0x${p.toString(16)} was overwritten`);
    }
  }
}

const markOf = (seed: number, cpu: number, i: number): number =>
  Math.imul(seed * 64 + cpu + 1, 0x9e3779b1) ^ i;

export function freeAll(arena: Arena, areas: readonly number[]): void {
  for (const p of areas) arena.freePercpu(p);
}
