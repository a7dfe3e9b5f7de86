/**
 * Sizes, orders and limits of a cache, computed as Linux computes them on a 64-bit machine with 4 KiB pages,
 * so that a layout here equals the one in /sys/kernel/slab. Nothing in this file touches memory.
 *
 * A slot holds, from low to high address: the left red zone, the object, padding to a word or the right red zone, the
 * free pointer where it may not lie in the object, two tracks, the requested size, a word that a red zone adds, padding
 * to the alignment. What is not for debugging is the object, padding, the free pointer and padding.
 */

import { MAX_PAGE_ORDER } from '../page/index.js';
import { PAGE_SIZE } from '../struct/index.js';
import {
  SLAB_ACCOUNT,
  SLAB_KMALLOC,
  SLAB_OBJECT_POISON,
  SLAB_POISON,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TYPESAFE_BY_RCU,
} from './flags.js';

/** The word of a 64-bit kernel; an arena's own words are half of it, and layouts must not tell. */
const WORD_SIZE = 8;
const CACHE_LINE_SIZE = 64;
export const MAX_OBJS_PER_PAGE = 32767;
const SLUB_MAX_ORDER = 3;
const MIN_PARTIAL = 5;
const MAX_PARTIAL = 10;
/** With SLUB_TINY; no slab stays that is empty. */
export const TINY_MAX_ORDER = 1;
/** The largest object, the largest slot and the largest alignment: one slab of the highest order. */
const MAX_SLAB_BYTES = PAGE_SIZE << MAX_PAGE_ORDER;
const SHEAF_HEADER_SIZE = 32;
/** A sheaf is one allocation, header included. */
const MAX_SHEAF_CAPACITY = (MAX_SLAB_BYTES - SHEAF_HEADER_SIZE) / WORD_SIZE;

const MIN_ALIGN = 8;
/** The most CPUs a Linux kernel can be built for. */
const MAX_CPUS = 8192;
const WASTE_FRACTIONS = [16, 8, 4, 2];

interface OrderOptions {
  /** CPUs that are present. */
  cpus: number;
  /** Kernel parameter slub_min_order. */
  minOrder?: number | undefined;
  /** Kernel parameter slub_max_order. */
  maxOrder?: number | undefined;
  /** Kernel parameter slub_min_objects; 0 derives it from the CPUs. */
  minObjects?: number | undefined;
  /** SLUB_TINY: orders 0 and 1, no empty slabs kept, no sheaves. */
  tiny?: boolean | undefined;
}

export interface LayoutInput extends OrderOptions {
  /** The `size` a cache was asked for. */
  objectSize: number;
  /** Requested alignment; 0 asks for none. */
  align?: number | undefined;
  hwcacheAlign?: boolean | undefined;
  typesafeByRcu?: boolean | undefined;
  hasCtor?: boolean | undefined;
  freeptrOffset?: number | undefined;
  /** A word behind the object and its free pointer for the size that was asked for. */
  origSize?: boolean | undefined;
  /** Room behind the object for what accounting keeps about it: in padding where there is some, else a word more. */
  objExt?: boolean | undefined;
  /** Requested sheaf capacity; the cache may get more, never less. */
  sheafCapacity?: number | undefined;
  /** SLAB_* flags; of these SLAB_RED_ZONE, SLAB_POISON, SLAB_STORE_USER and SLAB_KMALLOC are looked at. */
  flags?: number | undefined;
}

export interface SlabLayout {
  /** Stride: distance between two objects of a slab. */
  size: number;
  /** Bytes of the left red zone, which lies before the object in its slot. */
  redLeftPad: number;
  /** From the object: its end, rounded up to a word, or the end of the right red zone. */
  inuse: number;
  /** From the object: byte offset of the free pointer. */
  offset: number;
  /** From the object: byte offset of the requested size; 0 where none is kept. */
  origSize: number;
  align: number;
  order: number;
  objects: number;
  /** Order and objects of the smallest usable slab, taken when the preferred order is not to be had. */
  minOrder: number;
  minObjects: number;
  minPartial: number;
  /** Objects that kernels before 7.0 kept on per-CPU partial slabs. */
  cpuPartial: number;
  sheafCapacity: number;
}

function checkWhole(option: string, value: number, low: number, high: number): void {
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new RangeError(`${option} must be a whole number from ${low} to ${high}, got ${value}`);
  }
}

function checkAlign(align: number): void {
  const inRange = Number.isInteger(align) && align >= 0 && align <= MAX_SLAB_BYTES;
  if (!inRange || (align & (align - 1)) !== 0) {
    throw new RangeError(`align must be 0 or a power of two up to ${MAX_SLAB_BYTES}, got ${align}`);
  }
}

function checkFreeptrOffset(input: LayoutInput): void {
  const { freeptrOffset, objectSize } = input;
  if (freeptrOffset === undefined) return;
  if (!input.typesafeByRcu && !input.hasCtor) {
    throw new RangeError(
      `freeptrOffset ${freeptrOffset} is only allowed with SLAB_TYPESAFE_BY_RCU or a constructor`,
    );
  }
  checkWhole('freeptrOffset', freeptrOffset, 0, objectSize - 1);
  if (freeptrOffset % WORD_SIZE !== 0) {
    throw new RangeError(`freeptrOffset must be a multiple of ${WORD_SIZE}, got ${freeptrOffset}`);
  }
}

const maxOrderOf = ({ maxOrder, tiny }: OrderOptions): number =>
  maxOrder ?? (tiny ? TINY_MAX_ORDER : SLUB_MAX_ORDER);

function checkOrderOptions(options: OrderOptions) {
  const { cpus, minOrder = 0, minObjects = 0 } = options;
  const maxOrder = maxOrderOf(options);
  checkWhole('cpus', cpus, 1, MAX_CPUS);
  checkWhole('maxOrder', maxOrder, 0, MAX_PAGE_ORDER);
  checkWhole('minOrder', minOrder, 0, maxOrder);
  checkWhole('minObjects', minObjects, 0, MAX_OBJS_PER_PAGE);
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

function ilog2(value: number): number {
  return 31 - Math.clz32(value);
}

/** Lowest order whose block holds that many bytes. */
export function getOrder(bytes: number): number {
  const pages = Math.ceil(bytes / PAGE_SIZE);
  return pages <= 1 ? 0 : ilog2(pages - 1) + 1;
}

/** Objects of that stride that fit in a block of that order. */
export function orderObjects(order: number, size: number): number {
  return Math.floor((PAGE_SIZE << order) / size);
}

/**
 * The alignment of a cache's objects. With `hwcacheAlign` small objects share a cache line as long as
 * none of them straddles two.
 */
export function calculateAlignment(objectSize: number, align = 0, hwcacheAlign = false): number {
  checkWhole('size', objectSize, 1, MAX_SLAB_BYTES);
  checkAlign(align);
  let wanted = Math.max(align, MIN_ALIGN);
  if (hwcacheAlign) {
    let line = CACHE_LINE_SIZE;
    while (objectSize <= line / 2) line /= 2;
    wanted = Math.max(wanted, line);
  }
  return roundUp(wanted, WORD_SIZE);
}

/** Objects a slab should hold, from the number of CPUs: more CPUs, fewer visits to the node's list. */
export function calculateMinObjects(cpus: number): number {
  checkWhole('cpus', cpus, 1, MAX_CPUS);
  return 4 * (ilog2(cpus) + 2);
}

/**
 * The preferred order of a cache's slabs: enough objects for the CPUs, at the lowest order that wastes at
 * most 1/16 of the slab; 1/8, 1/4 and 1/2 are tried in turn when no order up to the limit is that tight.
 */
export function calculateOrder(size: number, options: OrderOptions): number {
  checkWhole('size', size, 1, MAX_SLAB_BYTES);
  checkOrderOptions(options);
  const maxOrder = maxOrderOf(options);
  const mostObjects = Math.max(orderObjects(maxOrder, size), 1);
  const wantedObjects = Math.min(options.minObjects || calculateMinObjects(options.cpus), mostObjects);
  const minOrder = Math.max(options.minOrder ?? 0, getOrder(wantedObjects * size));
  if (orderObjects(minOrder, size) > MAX_OBJS_PER_PAGE) return getOrder(size * MAX_OBJS_PER_PAGE) - 1;

  for (const fraction of WASTE_FRACTIONS) {
    for (let order = minOrder; order <= maxOrder; order++) {
      const bytes = PAGE_SIZE << order;
      if (bytes % size <= bytes / fraction) return order;
    }
  }
  return getOrder(size);
}

/** Empty slabs a node keeps before it gives them back to the page allocator. */
export function calculateMinPartial(size: number): number {
  return Math.max(MIN_PARTIAL, Math.min(MAX_PARTIAL, ilog2(size) >> 1));
}

/** The per-CPU partial target of kernels before 7.0, in objects. */
export function calculateCpuPartial(size: number): number {
  if (size >= PAGE_SIZE) return 6;
  if (size >= 1024) return 24;
  return size >= 256 ? 52 : 120;
}

function kmallocBucket(bytes: number): number {
  if (bytes > 64 && bytes <= 96) return 96;
  if (bytes > 128 && bytes <= 192) return 192;
  return 1 << (32 - Math.clz32(bytes - 1));
}

/** Objects per sheaf: a base by stride, grown to fill the kmalloc bucket the sheaf lies in, or the request. */
export function calculateSheafCapacity(size: number, requested = 0): number {
  checkWhole('sheafCapacity', requested, 0, MAX_SHEAF_CAPACITY);
  let base = 60;
  if (size >= PAGE_SIZE) base = 4;
  else if (size >= 1024) base = 12;
  else if (size >= 256) base = 26;
  const bucket = kmallocBucket(SHEAF_HEADER_SIZE + base * WORD_SIZE);
  return Math.max((bucket - SHEAF_HEADER_SIZE) / WORD_SIZE, requested);
}

/** Bytes of a track: who did it, where, when. Two of them follow an object with SLAB_STORE_USER. */
export const TRACK_BYTES = 32;
/** Bytes of the requested size, which follows the tracks of kmalloc caches. */
export const ORIG_SIZE_BYTES = WORD_SIZE;

/** Whether objects of a cache remember the size that kmalloc was asked for. Kernel: `slub_debug_orig_size`. */
export const tracksOrigSize = (flags: number): boolean =>
  (flags & SLAB_STORE_USER) !== 0 && (flags & SLAB_KMALLOC) !== 0;

/** Whether the contents of a free object are the allocator's to overwrite. Kernel: `__OBJECT_POISON`. */
export function objectPoison(flags: number, hasCtor: boolean): number {
  const poisons = (flags & SLAB_POISON) !== 0 && (flags & SLAB_TYPESAFE_BY_RCU) === 0 && !hasCtor;
  return poisons ? SLAB_OBJECT_POISON : 0;
}

/** Where that room is. Kernel: `SLAB_OBJ_EXT_IN_OBJ`. */
export const objExtOffset = ({ inuse, offset }: { inuse: number; offset: number }): number =>
  offset >= inuse ? offset + WORD_SIZE : inuse;

/**
 * From the object: where what follows object, red zone, free pointer and what accounting keeps begins. Kernel:
 * `get_info_end`.
 */
export const infoEnd = (s: { offset: number; inuse: number; flags: number }): number =>
  objExtOffset(s) + ((s.flags & SLAB_ACCOUNT) !== 0 ? WORD_SIZE : 0);

/**
 * In the middle of the object where its contents may be lost, so that an overrun of a neighbour misses it. Behind it
 * where they may not, or where debugging looks at them while the object is free.
 */
function freePointerOffset(input: LayoutInput, inuse: number): number {
  const { objectSize, flags = 0 } = input;
  const keepsContents = input.typesafeByRcu || input.hasCtor;
  const redZoned = (flags & SLAB_RED_ZONE) !== 0 && (objectSize < WORD_SIZE || tracksOrigSize(flags));
  if ((flags & SLAB_POISON) !== 0 || redZoned) return inuse;
  if (!keepsContents) return Math.floor(objectSize / 2 / WORD_SIZE) * WORD_SIZE;
  return input.freeptrOffset ?? inuse;
}

/** What debugging puts before the object in its slot, and behind all else. */
function redZones(flags: number, align: number): { redLeftPad: number; behind: number } {
  if ((flags & SLAB_RED_ZONE) === 0) return { redLeftPad: 0, behind: 0 };
  return { redLeftPad: roundUp(WORD_SIZE, align), behind: WORD_SIZE };
}

/**
 * The whole layout of a cache.
 * @throws RangeError that names the option, its value and the allowed range
 */
export function calculateSizes(input: LayoutInput): SlabLayout {
  const { objectSize, flags = 0 } = input;
  checkOrderOptions(input);
  const align = calculateAlignment(objectSize, input.align, input.hwcacheAlign);
  checkFreeptrOffset(input);

  let inuse = roundUp(objectSize, WORD_SIZE);
  if ((flags & SLAB_RED_ZONE) !== 0 && inuse === objectSize) inuse += WORD_SIZE;
  const offset = freePointerOffset(input, inuse);
  const end = offset === inuse ? inuse + WORD_SIZE : inuse;
  const extended = input.objExt ? end + WORD_SIZE : end;
  const tracked = (flags & SLAB_STORE_USER) !== 0 ? extended + 2 * TRACK_BYTES : extended;
  const sized = input.origSize || tracksOrigSize(flags);
  const { redLeftPad, behind } = redZones(flags, align);
  const size = roundUp(redLeftPad + (sized ? tracked + ORIG_SIZE_BYTES : tracked) + behind, align);
  if (size > MAX_SLAB_BYTES) {
    throw new RangeError(
      `size must leave room for the free pointer, the alignment and what debugging adds in ${MAX_SLAB_BYTES} bytes, ` +
        `got ${objectSize} (slot of ${size} bytes, align ${align})`,
    );
  }

  const order = calculateOrder(size, input);
  const minOrder = getOrder(size);
  return {
    size,
    redLeftPad,
    inuse,
    offset,
    origSize: sized ? tracked : 0,
    align,
    order,
    objects: orderObjects(order, size),
    minOrder,
    minObjects: orderObjects(minOrder, size),
    minPartial: input.tiny ? 0 : calculateMinPartial(size),
    cpuPartial: input.tiny ? 0 : calculateCpuPartial(size),
    sheafCapacity: input.tiny ? 0 : calculateSheafCapacity(size, input.sheafCapacity),
  };
}
