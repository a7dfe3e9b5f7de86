/** Definitions of static caches, of structs: the seed's set-up macros, as plain data. */
import { optionError, requireObject } from '../struct/index.js';
import type { DefinedCache } from './define.js';
import { CACHE_OPTIONS, type CacheOptions } from './options.js';

/** A cache's name and options, as plain data that any thread can have. */
export interface NamedCache extends CacheOptions {
  readonly name: string;
  /**
   * For static caches alone: the place is the arena's, but the cache belongs to a thread that may leave, which sets it up
   * with `arena.setupCache` and destroys it before it goes. Needs `merge: 'primary'`.
   */
  readonly module?: boolean;
}

/** Names of what it may have. */
export const NAMED_CACHE_OPTIONS = [
  ...Object.keys({ name: true, module: true } satisfies Record<
    Exclude<keyof NamedCache, keyof CacheOptions>,
    true
  >),
  ...CACHE_OPTIONS,
];

/** What `Arena.create({ caches })` takes. One with a constructor or destructor must come from defineCache. */
export type StaticCache = NamedCache | DefinedCache;

/** A struct, as structOf returns it: sizes and offsets in bytes. */
export interface StructLike {
  readonly name: string;
  readonly sizeof: number;
  readonly alignof: number;
  readonly fields: Readonly<Record<string, { readonly offset: number; readonly bytes: number }>>;
}

/**
 * A static cache for objects of a struct: its name, size and alignment. Kernel: seed 000's `KMEM_CACHE_SETUP`.
 * @example
 * export const mmCache = kmemCacheSetup(MmStruct, SLAB_HWCACHE_ALIGN);
 * const arena = Arena.create({ bytes: 64 << 20, caches: [mmCache] });
 */
export function kmemCacheSetup(type: StructLike, flags = 0): NamedCache {
  requireObject('type', type);
  const { name, sizeof, alignof } = type;
  return Object.freeze({ name, size: sizeof, align: alignof, flags });
}

/**
 * The same, and one field may be copied in and out of the arena when it is hardened. Throws RangeError when the struct has
 * no such field. Kernel: seed 000's `KMEM_CACHE_SETUP_USERCOPY`.
 * @example
 * export const mmCache = kmemCacheSetupUsercopy(MmStruct, 0, 'saved_auxv');
 */
export function kmemCacheSetupUsercopy(type: StructLike, flags: number, field: string): NamedCache {
  requireObject('type', type);
  requireObject('type.fields', type.fields);
  const window = Object.hasOwn(type.fields, field) ? type.fields[field] : undefined;
  if (window === undefined) {
    throw optionError('field', field, `a field of ${type.name}: ${Object.keys(type.fields).join(', ')}`);
  }
  const { offset: useroffset, bytes: usersize } = window;
  return Object.freeze({ ...kmemCacheSetup(type, flags), useroffset, usersize });
}
