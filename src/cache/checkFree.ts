/** Why an address may not be freed to a cache: the first thing that is wrong with it, from the outside in. */
import {
  compoundHead,
  isHeapAddress,
  Page,
  PG_LARGE,
  PG_SLAB,
  pageAddress,
  virtToPage,
} from '../page/index.js';
import { type CacheDesc, type KmemCachePtr, readName } from '../slab/index.js';
import { describe, hexAddress, SlabBugError } from '../struct/index.js';
import type { CacheContext } from './context.js';

/** The report for a rejected free; reads only. Kernel: `free_consistency_checks`. */
export function badFree(context: CacheContext, s: CacheDesc, p: unknown): SlabBugError {
  const { geometry, views } = context;
  const { m, shadow } = views;
  const bug = (kind: SlabBugError['kind'], what: string): SlabBugError =>
    new SlabBugError(kind, s.name, typeof p === 'number' ? p : 0, what);

  if (typeof p !== 'number' || !isHeapAddress(geometry, p)) {
    return bug('invalid-pointer', `Invalid object pointer ${describe(p)}: not an address of the heap`);
  }
  const hex = hexAddress(p);
  const page = compoundHead(m, virtToPage(geometry, p));
  const flags = page === 0 ? 0 : m[page + Page.flags]!;
  if ((flags & PG_SLAB) === 0) {
    const what = (flags & PG_LARGE) !== 0 ? 'a large kmalloc, use kfree' : 'no slab';
    return bug('not-a-slab', `Not a valid slab page: ${hex} lies in ${what}`);
  }
  const owner = m[page + Page.cache] as KmemCachePtr;
  if (owner !== s.ptr) {
    return bug('wrong-cache', `No slab cache for object: ${hex} belongs to ${readName(m, owner)}`);
  }
  const slot = p - s.redLeftPad - pageAddress(geometry, page);
  const at = slot % s.size;
  if (at !== 0 || slot < 0) {
    return bug('misaligned', `Invalid object pointer ${hex}: ${at} bytes into an object of ${s.size}`);
  }
  if (slot / s.size >= m[page + Page.objects]!) {
    return bug('misaligned', `Invalid object pointer ${hex}: past the slab's last object`);
  }
  if (shadow[p >> 3] === 0) return bug('double-free', `Object already free: ${hex}`);
  return bug(
    'invalid-pointer',
    `Invalid object pointer ${hex}: its allocated-state is ${shadow[p >> 3]}, not ${s.tag}`,
  );
}
