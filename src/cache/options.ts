/** Options of a cache, and what they come to. */

import { ARRAY_SIZE_MAX, SHEAF_CAPACITY_MAX } from '../sheaf/index.js';
import {
  calculateSizes,
  NAME_BYTES_MAX,
  SLAB_ACCOUNT,
  SLAB_FLAGS_PERMITTED,
  SLAB_HWCACHE_ALIGN,
  SLAB_TYPESAFE_BY_RCU,
  type SlabLayout,
} from '../slab/index.js';
import {
  describe,
  LAYERS,
  type Layer,
  optionError,
  PAGE_SIZE,
  requireInteger,
  requireKnown,
  requireOneOf,
} from '../struct/index.js';

/** Kernel: `struct kmem_cache_args` and the arguments beside it. */
export interface CacheOptions {
  /** Bytes of an object. */
  size: number;
  /** Alignment in bytes, a power of two up to a page; 8 by default. */
  align?: number;
  /** SLAB_* flags. */
  flags?: number;
  /** What stands in front of the slabs; by default what the arena was made with. */
  layer?: Layer;
  /** At least so many objects in a sheaf; by default 60, 28, 12 or 4 by size. Makes the cache unmergeable. */
  sheafCapacity?: number;
  /**
   * Byte offset of a word of the object that the allocator may use while the object is free, a multiple of 8. For
   * SLAB_TYPESAFE_BY_RCU or a constructor alone, whose objects are left alone otherwise; by default the word lies behind the object.
   */
  freeptrOffset?: number;
  /**
   * Puts each free of an object off for a grace period, to find readers that use what they found after their section has
   * ended: within it, nothing is given out again. For SLAB_TYPESAFE_BY_RCU alone. Kernel: SLUB_RCU_DEBUG.
   */
  rcuDebug?: boolean;
  /**
   * Objects in the array of each CPU, 1 to 16384, for the layer `percpu-array` alone; by default what two sheaves would
   * hold. Makes the cache unmergeable.
   */
  arraySize?: number;
  /**
   * The bytes of an object that may be copied in and out of a hardened arena: `usersize` from `useroffset` on; none by
   * default. Makes the cache unmergeable.
   */
  useroffset?: number;
  usersize?: number;
  /**
   * Bytes of freed objects that wait on each CPU, poisoned, before they are really free: a write into one is reported
   * when it leaves. At least one object, up to 16 MiB; 0 is none, whatever the arena says. Makes the cache unmergeable. By
   * default what the arena was made with. See docs/hardening-objects.md.
   */
  quarantine?: number;
  /**
   * Whether some of its objects are guarded, in an arena made with `guard`. By default those are that can be; true says it
   * must be possible, false that none shall be. Makes the cache unmergeable. Kernel: SLAB_SKIP_KFENCE.
   */
  guard?: boolean;
}

/** Names of the options, for definitions that have more. */
export const CACHE_OPTIONS = Object.keys({
  size: true,
  align: true,
  flags: true,
  layer: true,
  sheafCapacity: true,
  freeptrOffset: true,
  rcuDebug: true,
  arraySize: true,
  useroffset: true,
  usersize: true,
  quarantine: true,
  guard: true,
} satisfies Record<keyof CacheOptions, true>);

/** What a cache is made to: its slabs, and what the layers that may stand in front of them hold. */
export interface CacheLayout extends SlabLayout {
  arraySize: number;
}

/** A layout with the array that goes with it. */
export function withArray(layout: SlabLayout, arraySize = 2 * layout.sheafCapacity): CacheLayout {
  return { ...layout, arraySize };
}

export function checkArraySize(name: string, size: unknown): number {
  return requireInteger(name, size, 1, ARRAY_SIZE_MAX);
}

/** Largest object: a slab of it is one block of the page allocator. */
const OBJECT_SIZE_MAX = 1 << 22;

export function checkName(name: unknown): string {
  if (typeof name !== 'string')
    throw new TypeError(`a cache's name is ${describe(name)}; it must be a string`);
  const bytes = new TextEncoder().encode(name).length;
  if (bytes === 0 || bytes > NAME_BYTES_MAX) {
    throw optionError('name', name, `1 to ${NAME_BYTES_MAX} bytes long`);
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly those are refused
  if (/[\s\x00-\x1f]/.test(name))
    throw optionError('name', name, 'free of white space: slabinfo separates by it');
  return name;
}

function checkUsercopy({ size, useroffset = 0, usersize = 0 }: CacheOptions): void {
  requireInteger('useroffset', useroffset, 0, size);
  requireInteger('usersize', usersize, 0, size - useroffset);
  if (useroffset > 0 && usersize === 0) throw optionError('usersize', usersize, 'given with useroffset');
}

/**
 * Checks every option and computes the layout. `byDefault` is the layer of caches that name none; with `hasCtor`, for
 * a destructor too, the free pointer stays out of the object. `layoutFlags` stand for the options' flags where these are
 * not what the slots are to be laid out for. Throws RangeError or
 * TypeError that names the option.
 */
export function layoutFor(
  options: CacheOptions,
  cpus: number,
  byDefault: Layer,
  hasCtor = false,
  tiny = false,
  layoutFlags?: number,
): CacheLayout {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`options is ${describe(options)}; it must be an object with at least \`size\``);
  }
  requireKnown('options', options, CACHE_OPTIONS);
  const { size, align = 0, flags = 0, sheafCapacity = 0 } = options;
  requireInteger('size', size, 1, OBJECT_SIZE_MAX);
  requireInteger('align', align, 0, PAGE_SIZE);
  if ((align & (align - 1)) !== 0) throw optionError('align', align, `a power of two up to ${PAGE_SIZE}`);
  requireInteger('flags', flags, 0, 0x7fffffff);
  if ((flags & ~SLAB_FLAGS_PERMITTED) !== 0) {
    throw optionError('flags', `0x${flags.toString(16)}`, `within 0x${SLAB_FLAGS_PERMITTED.toString(16)}`);
  }
  if (options.layer !== undefined) requireOneOf('layer', options.layer, LAYERS);
  if (tiny && (options.layer ?? 'none') !== 'none') {
    throw new RangeError(
      `layer is '${options.layer}'; a tiny arena has nothing in front of its slabs, only 'none'`,
    );
  }
  requireInteger('sheafCapacity', sheafCapacity, 0, SHEAF_CAPACITY_MAX);
  const { layer = byDefault, arraySize } = options;
  if (arraySize !== undefined) {
    checkArraySize('arraySize', arraySize);
    if (layer !== 'percpu-array') {
      throw new RangeError(
        `arraySize is ${arraySize}; only the layer 'percpu-array' has arrays, and this cache's is '${layer}'`,
      );
    }
  }
  checkUsercopy(options);
  checkRcuOptions(options, flags, hasCtor);
  const layout = calculateSizes({
    objectSize: size,
    align,
    hwcacheAlign: (flags & SLAB_HWCACHE_ALIGN) !== 0,
    typesafeByRcu: (flags & SLAB_TYPESAFE_BY_RCU) !== 0,
    hasCtor,
    objExt: (flags & SLAB_ACCOUNT) !== 0,
    freeptrOffset: options.freeptrOffset,
    sheafCapacity,
    flags: layoutFlags ?? flags,
    cpus,
    tiny,
  });
  return withArray(layout, arraySize);
}

function checkRcuOptions(
  { freeptrOffset, rcuDebug = false, size }: CacheOptions,
  flags: number,
  hasCtor: boolean,
): void {
  if (typeof rcuDebug !== 'boolean')
    throw new TypeError(`rcuDebug is ${describe(rcuDebug)}; it must be a boolean`);
  const typesafe = (flags & SLAB_TYPESAFE_BY_RCU) !== 0;
  if (rcuDebug && (flags & SLAB_ACCOUNT) !== 0) {
    throw new RangeError('rcuDebug is true; a cache with SLAB_ACCOUNT gives its charges back at once');
  }
  if (rcuDebug && !typesafe) {
    throw new RangeError('rcuDebug is true; only caches with SLAB_TYPESAFE_BY_RCU have frees to put off');
  }
  if (freeptrOffset === undefined) return;
  requireInteger('freeptrOffset', freeptrOffset, 0, size - 1);
  if (freeptrOffset % 8 !== 0) throw optionError('freeptrOffset', freeptrOffset, 'a multiple of 8');
  if (!typesafe && !hasCtor) {
    throw new RangeError(
      `freeptrOffset is ${freeptrOffset}; without SLAB_TYPESAFE_BY_RCU or a constructor the allocator may use the whole of a free object`,
    );
  }
}
