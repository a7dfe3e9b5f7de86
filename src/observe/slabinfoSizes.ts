/** Memory of a cache, and how the tables write it. */
import { PAGE_SIZE } from '../struct/index.js';
import type { CacheInfo } from './slabinfo.js';

export const slabBytes = ({ order }: CacheInfo): number => PAGE_SIZE << order;
/** Bytes of its slabs. */
export const spaceOf = (s: CacheInfo): number => s.slabs * slabBytes(s);
/** Bytes that allocated objects asked for. */
export const usedOf = (s: CacheInfo): number => s.objects * s.object_size;
export const lossOf = (s: CacheInfo): number => spaceOf(s) - usedOf(s);

const UNITS: ReadonlyArray<readonly [unit: number, letter: string]> = [
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'K'],
];

/** `4.0K`: decimal units with one digit behind the point, cut off. */
export function storeSize(value: number, inBytes = false): string {
  const found = inBytes ? undefined : UNITS.find(([unit]) => value > unit);
  if (found === undefined) return String(value);
  const [unit, letter] = found;
  return `${(Math.floor((value * 10) / unit) / 10).toFixed(1)}${letter}`;
}

export const left = (text: string, width: number): string => text.padEnd(width);
export const right = (value: string | number, width: number): string => String(value).padStart(width);
