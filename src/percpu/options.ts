/** How an arena's percpu memory is to be: checked, and as its superblock has it. */
import { describe, type Geometry, optionError, requireInteger, requireKnown } from '../struct/index.js';
import { AREA_CACHE_MAX, areaCacheWords } from './areaCache.js';
import { IN_HAND_MAX, PCPU_MIN_UNIT_SIZE, pcpuWords, UNIT_PAGES_MAX } from './layout.js';

/** For studies: the alternatives that were named in the review of constructors and destructors. */
export interface PercpuOptions {
  /** Pages of 4 KiB in a unit, the share of one CPU in a chunk: a power of 2 from 8 to 128. Default 8. */
  unitPages?: number;
  /** Freed areas of each size, 8 to 256 bytes, that are kept for the next allocations, up to 64. Default 0: none. */
  areaCache?: number;
  /** Areas that are taken at once when none is kept, 1 to 31. Default 1. */
  areaBatch?: number;
  /** CPUs that share one cache of areas, 1 to 256. Default 1. */
  cpusPerAreaCache?: number;
}

type PercpuGeometry = Pick<Geometry, 'pcpuUnitPages' | 'pcpuAreaCache' | 'pcpuAreaBatch' | 'pcpuAreaCpus'>;

const KNOWN = Object.keys({
  unitPages: true,
  areaCache: true,
  areaBatch: true,
  cpusPerAreaCache: true,
} satisfies Record<keyof PercpuOptions, true>);

const CPUS_PER_CACHE_MAX = 256;
const UNIT_PAGES_MIN = PCPU_MIN_UNIT_SIZE >> 12;

/** Throws RangeError or TypeError that names the option. */
export function planPercpu(options: PercpuOptions = {}): PercpuGeometry {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`percpu is ${describe(options)}; it must be an object`);
  }
  requireKnown('percpu', options, KNOWN);
  const unitPages = requireInteger(
    'percpu.unitPages',
    options.unitPages ?? UNIT_PAGES_MIN,
    UNIT_PAGES_MIN,
    UNIT_PAGES_MAX,
  );
  if ((unitPages & (unitPages - 1)) !== 0) throw optionError('percpu.unitPages', unitPages, 'a power of 2');
  return {
    pcpuUnitPages: unitPages,
    pcpuAreaCache: requireInteger('percpu.areaCache', options.areaCache ?? 0, 0, AREA_CACHE_MAX),
    pcpuAreaBatch: requireInteger('percpu.areaBatch', options.areaBatch ?? 1, 1, IN_HAND_MAX),
    pcpuAreaCpus: requireInteger(
      'percpu.cpusPerAreaCache',
      options.cpusPerAreaCache ?? 1,
      1,
      CPUS_PER_CACHE_MAX,
    ),
  };
}

/** Words that lie beside the heap. */
export function percpuWords(
  threads: number,
  cpus: number,
  { pcpuAreaCache, pcpuAreaCpus }: PercpuGeometry,
): number {
  return pcpuWords(threads, areaCacheWords(cpus, pcpuAreaCpus, pcpuAreaCache));
}
