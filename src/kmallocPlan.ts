/** The options of kmalloc: which caches an arena has for it, and what they keep. */
import {
  describe,
  KMALLOC_COPY_RULES,
  KMALLOC_TYPES,
  type KmallocCopyRule,
  type KmallocType,
  requireInteger,
  requireKnown,
  requireOneOf,
} from './struct/index.js';

/** The `kmalloc` option of an arena. */
export interface KmallocOptions {
  /**
   * Types of caches beside the normal one, 13 caches each: 'reclaimable' for `__GFP_RECLAIMABLE`, 'dma' for `__GFP_DMA`,
   * 'cgroup' for `__GFP_ACCOUNT`. Without a type its flag is not looked at. Default none.
   */
  types?: readonly KmallocType[];
  /** Copies of the normal caches, 0 to 15, 13 caches each, among which a hash chooses. Default 0. */
  copies?: number;
  /** What chooses: 'site', who calls, or 'type', what is allocated. See `arena.kmallocSite`. Default 'site'. */
  copyBy?: KmallocCopyRule;
  /** Seed of that choice by site, and of freelistRandom and freelistHardened, 0 to 2^32 - 1. By default one that nobody knows. */
  seed?: number;
  /**
   * Whether each object keeps the size it was asked for, so that krealloc with `__GFP_ZERO` knows what is new. Costs 8
   * bytes an object, and with the alignment often as much as the object again, as in a kernel that tracks them. Default
   * false.
   */
  requestedSize?: boolean;
}

const KNOWN = Object.keys({
  types: true,
  copies: true,
  copyBy: true,
  seed: true,
  requestedSize: true,
} satisfies Record<keyof KmallocOptions, true>);

/** As many as there are in the kernel. */
export const KMALLOC_COPIES_MAX = 15;

/** Throws RangeError or TypeError that names the option. */
export function planKmalloc(options: KmallocOptions) {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`kmalloc is ${describe(options)}; it must be an object`);
  }
  requireKnown('kmalloc', options, KNOWN);
  const { types = [], copies = 0, copyBy = 'site', requestedSize = false } = options;
  if (!Array.isArray(types)) throw new TypeError(`kmalloc.types is ${describe(types)}; it must be an array`);
  for (const type of types) requireOneOf('kmalloc.types', type, KMALLOC_TYPES);
  if (typeof requestedSize !== 'boolean') {
    throw new TypeError(`kmalloc.requestedSize is ${describe(requestedSize)}; it must be a boolean`);
  }
  const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
  return {
    kmallocTypes: KMALLOC_TYPES.reduce((bits, type, i) => bits | (types.includes(type) ? 1 << i : 0), 0),
    kmallocCopies: requireInteger('kmalloc.copies', copies, 0, KMALLOC_COPIES_MAX),
    kmallocCopyBy: KMALLOC_COPY_RULES.indexOf(requireOneOf('kmalloc.copyBy', copyBy, KMALLOC_COPY_RULES)),
    kmallocSeed: requireInteger('kmalloc.seed', seed, 0, 2 ** 32 - 1),
    requestedSize: requestedSize ? 1 : 0,
  };
}

/** Families of caches by size: the normal one, its copies, the other types. */
export function kmallocFamilyCount(plan: { kmallocTypes: number; kmallocCopies: number }): number {
  const { length } = KMALLOC_TYPES.filter((_, i) => (plan.kmallocTypes & (1 << i)) !== 0);
  return 1 + plan.kmallocCopies + length;
}
