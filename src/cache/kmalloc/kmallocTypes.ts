/**
 * The types of kmalloc caches: each is a family of caches by size. Every arena has the normal ones; which of the others it
 * has is an option, since each costs as many caches again, of at most 254.
 *
 * A call's flags choose the type, in the kernel's order: DMA, then reclaimable, then accounted. A flag whose type an
 * arena has not is not looked at, as in a kernel without that configuration.
 *
 * Copies of the normal type keep what one call site allocates apart from what another does, so that an object that is
 * used after its free is seldom replaced by one that an attacker can write. Kernel: CONFIG_RANDOM_KMALLOC_CACHES, and
 * since 7.2 partitions by the type of what is allocated.
 */
import { __GFP_ACCOUNT, __GFP_DMA, __GFP_RECLAIMABLE } from '../../page/index.js';
import {
  SLAB_ACCOUNT,
  SLAB_CACHE_DMA,
  SLAB_KMALLOC,
  SLAB_NO_MERGE,
  SLAB_RECLAIM_ACCOUNT,
} from '../../slab/index.js';
import { type Geometry, hasKmallocType, KMALLOC_COPY_RULES, type KmallocType } from '../../struct/index.js';

export const KMALLOC_SIZES = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];

interface KmallocFamily {
  /** What comes before the size in a cache's name. */
  readonly prefix: string;
  /** SLAB_* flags of its caches. */
  readonly flags: number;
}

/** Sizes as the kernel's cache names have them. */
export const kmallocSizeName = (size: number): string => (size < 1024 ? `${size}` : `${size / 1024}k`);

const TYPES: Readonly<Record<KmallocType, KmallocFamily>> = {
  dma: { prefix: 'dma-kmalloc-', flags: SLAB_CACHE_DMA },
  reclaimable: { prefix: 'kmalloc-rcl-', flags: SLAB_RECLAIM_ACCOUNT },
  cgroup: { prefix: 'kmalloc-cg-', flags: SLAB_ACCOUNT },
};

/** In the order in which a call's flags are looked at. */
const PRIORITY: ReadonlyArray<[KmallocType, number]> = [
  ['dma', __GFP_DMA],
  ['reclaimable', __GFP_RECLAIMABLE],
  ['cgroup', __GFP_ACCOUNT],
];
const PRESENT = (geometry: Geometry) => PRIORITY.filter(([type]) => hasKmallocType(geometry, type));

/** The flags that choose a type, as a number from 0 to 7. */
export const GFP_TYPE_SHIFT = Math.log2(__GFP_RECLAIMABLE);
export const GFP_TYPE_MASK = (__GFP_RECLAIMABLE | __GFP_DMA | __GFP_ACCOUNT) >> GFP_TYPE_SHIFT;

/** An arena's families in the order of their slots: the normal one, its copies, the other types. */
export function kmallocFamilies(geometry: Geometry): KmallocFamily[] {
  // Accounted objects must not get into slabs of others, nor copies into each other.
  const apart = hasKmallocType(geometry, 'cgroup') ? SLAB_NO_MERGE : 0;
  const normal = { prefix: 'kmalloc-', flags: SLAB_KMALLOC | apart };
  const copyPrefix = KMALLOC_COPY_RULES[geometry.kmallocCopyBy] === 'type' ? 'kmalloc-part-' : 'kmalloc-rnd-';
  const copies = Array.from({ length: geometry.kmallocCopies }, (_, i) => ({
    prefix: `${copyPrefix}${String(i + 1).padStart(2, '0')}-`,
    flags: SLAB_KMALLOC | SLAB_NO_MERGE,
  }));
  const types = PRESENT(geometry).map(([type]) => {
    const { prefix, flags } = TYPES[type];
    return { prefix, flags: flags | SLAB_KMALLOC };
  });
  return [normal, ...copies, ...types];
}

/** Which family serves a call, by what the flags that choose one come to. Kernel: `kmalloc_type`. */
export function familyByFlags(geometry: Geometry): number[] {
  const present = PRESENT(geometry);
  return Array.from({ length: GFP_TYPE_MASK + 1 }, (_, bits) => {
    const at = present.findIndex(([, flag]) => (bits & (flag >> GFP_TYPE_SHIFT)) !== 0);
    return at < 0 ? 0 : 1 + geometry.kmallocCopies + at;
  });
}
