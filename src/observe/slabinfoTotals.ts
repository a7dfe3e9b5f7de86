/** `slabinfo -T`: all caches together. */
import type { CacheInfo } from './slabinfo.js';
import { left, lossOf, right, spaceOf, storeSize, usedOf } from './slabinfoSizes.js';

interface Spread {
  readonly title: string;
  readonly of: (s: CacheInfo) => number;
  /** A share, of which there is no sum. */
  readonly percent?: boolean;
  readonly memory?: boolean;
}

const share = (part: number, all: number): number => (all === 0 ? 0 : Math.round((part * 100) / all));

const SPREADS: readonly Spread[] = [
  { title: '#Objects', of: (s) => s.objects },
  { title: '#Slabs', of: (s) => s.slabs },
  { title: '#PartSlab', of: (s) => s.partial },
  { title: '%PartSlab', of: (s) => share(s.partial, s.slabs), percent: true },
  { title: 'PartObjs', of: (s) => s.objects_partial },
  { title: '%PartObj', of: (s) => share(s.objects_partial, s.objects), percent: true },
  { title: 'Memory', of: spaceOf, memory: true },
  { title: 'Used', of: usedOf, memory: true },
  { title: 'Loss', of: lossOf, memory: true },
];

/** Of the bytes that an allocated object takes in its slab. */
const PER_OBJECT: ReadonlyArray<readonly [title: string, of: (s: CacheInfo) => number]> = [
  ['Memory', (s) => s.slab_size],
  ['User', (s) => s.object_size],
  ['Loss', (s) => s.slab_size - s.object_size],
];

const sum = (caches: readonly CacheInfo[], of: (s: CacheInfo) => number): number =>
  caches.reduce((total, s) => total + of(s), 0);

/** Sums, averages, least and most of the caches given. */
export function totalsText(caches: readonly CacheInfo[], { bytes = false }: { bytes?: boolean }): string[] {
  const size = (value: number): string => storeSize(Math.round(value), bytes);
  const active = caches.filter(({ objects }) => objects > 0).length;
  const aliases = sum(caches, (s) => s.aliases);
  const lines = [
    'Slabcache Totals',
    '----------------',
    `Slabcaches : ${right(caches.length, 6)}  Aliases  : ${right(aliases, 6)}  Active: ${right(active, 6)}`,
    `Memory used: ${right(size(sum(caches, spaceOf)), 6)}  # Loss   : ${right(size(sum(caches, lossOf)), 6)}  # Objects: ${right(
      sum(caches, (s) => s.objects),
      6,
    )}`,
    '',
    `${left('Per Cache', 12)}${['Average', 'Min', 'Max', 'Total'].map((title) => right(title, 12)).join('')}`,
    '-'.repeat(60),
  ];
  if (caches.length === 0) return lines;
  for (const { title, of, percent = false, memory = false } of SPREADS) {
    const values = caches.map(of);
    const total = values.reduce((all, value) => all + value, 0);
    const form = (value: number): string => {
      if (memory) return size(value);
      return percent ? `${Math.round(value)}%` : size(value);
    };
    const cells = [total / values.length, Math.min(...values), Math.max(...values)].map(form);
    lines.push(
      `${left(title, 12)}${[...cells, percent ? '' : form(total)].map((cell) => right(cell, 12)).join('')}`.trimEnd(),
    );
  }
  const objects = sum(caches, (s) => s.objects);
  lines.push(
    '',
    `${left('Per Object', 12)}${['Average', 'Min', 'Max'].map((title) => right(title, 12)).join('')}`,
  );
  lines.push('-'.repeat(48));
  for (const [title, of] of PER_OBJECT) {
    const values = caches.map(of);
    const average = objects === 0 ? 0 : sum(caches, (s) => of(s) * s.objects) / objects;
    const cells = [average, Math.min(...values), Math.max(...values)].map(size);
    lines.push(`${left(title, 12)}${cells.map((cell) => right(cell, 12)).join('')}`);
  }
  return lines;
}
