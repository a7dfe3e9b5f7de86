/**
 * Names of caches that merged in the kernel's way: links to the cache that serves them, which all share its one handle.
 * A link says nothing of who still uses it: only the cache's refcount does, and all its links go with the cache.
 */
import { GFP_KERNEL } from '../../page/index.js';
import {
  type KmemCachePtr,
  KmemCacheStruct,
  NAME_WORDS,
  readName,
  readNameAt,
  writeNameAt,
} from '../../slab/index.js';
import { struct, WORD_BYTES, type Words } from '../../struct/index.js';
import type { Caches } from '../caches.js';
import { findByName, liveSlots } from '../registry.js';

/** One link; the list hangs off the cache. */
const SavedAlias = struct('saved_alias', { next: 1, nameBytes: 1, name: NAME_WORDS });

function* links(m: Words, ptr: KmemCachePtr): Generator<{ link: number; from: number }> {
  for (let from: number = ptr + KmemCacheStruct.aliases, link = m[from]!; link !== 0; link = m[from]!) {
    yield { link, from };
    from = link + SavedAlias.next;
  }
}

export function linkNames(m: Words, ptr: KmemCachePtr): string[] {
  return [...links(m, ptr)].map(({ link }) => readNameAt(m, link + SavedAlias.nameBytes));
}

/** The slot of the cache of this name, or that a link of this name leads to, or -1. slab_mutex held. */
export function findByAnyName({ views, geometry }: Caches, name: string): number {
  const slot = findByName(views.m, geometry, name);
  if (slot >= 0) return slot;
  for (const { slot, ptr } of liveSlots(views.m, geometry)) {
    if (linkNames(views.m, ptr).includes(name)) return slot;
  }
  return -1;
}

/** slab_mutex held: without it, a struct may be another's memory by the time its name is read. */
export function liveNames({ views, geometry }: Caches): string[] {
  const { m } = views;
  return [...liveSlots(m, geometry)]
    .filter(({ ptr }) => m[ptr + KmemCacheStruct.hidden] === 0)
    .flatMap(({ ptr }) => [readName(m, ptr), ...linkNames(m, ptr)]);
}

/** Adds a link; false when out of memory. slab_mutex held. */
export function addLink(caches: Caches, ptr: KmemCachePtr, name: string): boolean {
  const { m } = caches.views;
  const p = caches.kmallocs.allocOwn(SavedAlias.SIZEOF * WORD_BYTES, GFP_KERNEL);
  if (p === 0) return false;
  const link = p / WORD_BYTES;
  writeNameAt(m, link + SavedAlias.nameBytes, name);
  m[link + SavedAlias.next] = m[ptr + KmemCacheStruct.aliases]!;
  m[ptr + KmemCacheStruct.aliases] = link;
  return true;
}

/** A name is given anew: a link that its last use left behind must not stand in the way. slab_mutex held. */
export function removeLink(caches: Caches, name: string): void {
  const { m } = caches.views;
  for (const { ptr } of liveSlots(m, caches.geometry)) {
    for (const { link, from } of links(m, ptr)) {
      if (readNameAt(m, link + SavedAlias.nameBytes) !== name) continue;
      m[from] = m[link + SavedAlias.next]!;
      caches.kmallocs.free(link * WORD_BYTES);
      return;
    }
  }
}

/** Frees a list of links: their cache has ended. slab_mutex held. */
export function freeLinks(caches: Caches, first: number): void {
  const { m } = caches.views;
  for (let link = first; link !== 0; ) {
    const next = m[link + SavedAlias.next]!;
    caches.kmallocs.free(link * WORD_BYTES);
    link = next;
  }
}
