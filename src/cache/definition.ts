/** Definitions of caches: plain data, in a module that every thread imports. */
import { type Layer, optionError } from '../struct/index.js';
import { type CacheOptions, checkName } from './options.js';

/** A cache's name and options, as data that any thread can have. */
export interface CacheDefinition extends CacheOptions {
  readonly name: string;
  /**
   * For `Arena.create({ caches })` alone: the place is the arena's, but the cache belongs to a thread that may leave, which
   * sets it up with `arena.setupCache` and destroys it before it goes. Needs `merge: 'primary'`.
   */
  readonly module?: boolean;
}

/**
 * Defines a cache. Give it to `Arena.create({ caches: [...] })` for a static one. The name is checked here, the rest where
 * the cache is made.
 * @example
 * export const mmStruct = defineCache('mm_struct', { size: 1568, flags: SLAB_HWCACHE_ALIGN });
 */
export function defineCache(
  name: string,
  options: CacheOptions & { readonly module?: boolean },
): CacheDefinition {
  checkName(name);
  return Object.freeze({ ...options, name });
}

/** Makes a definition of a struct's size and alignment. `sizeof` and `alignof` are in bytes. */
export interface StructLike {
  readonly name: string;
  readonly sizeof: number;
  readonly alignof: number;
  readonly fields: Readonly<Record<string, { readonly offset: number; readonly bytes: number }>>;
}

/**
 * A cache for objects of a struct: its name, size and alignment. Kernel: `KMEM_CACHE_SETUP`.
 * @example
 * export const mmCache = kmemCacheSetup(MmStruct, SLAB_HWCACHE_ALIGN);
 */
export function kmemCacheSetup(type: StructLike, flags = 0, layer?: Layer): CacheDefinition {
  const own = layer === undefined ? {} : { layer };
  return defineCache(type.name, { size: type.sizeof, align: type.alignof, flags, ...own });
}

/**
 * The same, and one field of it may be copied in and out of the arena when it is hardened. Throws RangeError when the
 * struct has no such field. Kernel: `KMEM_CACHE_SETUP_USERCOPY`.
 * @example
 * export const mmCache = kmemCacheSetupUsercopy(MmStruct, 0, 'saved_auxv');
 */
export function kmemCacheSetupUsercopy(type: StructLike, flags: number, field: string): CacheDefinition {
  const window = type.fields[field];
  if (window === undefined) {
    throw optionError('field', field, `a field of ${type.name}: ${Object.keys(type.fields).join(', ')}`);
  }
  const { offset: useroffset, bytes: usersize } = window;
  return defineCache(type.name, { size: type.sizeof, align: type.alignof, flags, useroffset, usersize });
}
