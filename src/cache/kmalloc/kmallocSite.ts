/**
 * Call sites of kmalloc, for arenas with copies of its normal caches: which copy a site gets is a hash of what it is and
 * of a seed that an arena draws when it is made. Kernel: `kmalloc_type`.
 */
import { GFP_KERNEL, NUMA_NO_NODE } from '../../page/index.js';
import {
  describe,
  type Geometry,
  KMALLOC_COPY_RULES,
  requireInteger,
  requireKnown,
} from '../../struct/index.js';
import type { Kmallocs, KmallocTable } from './kmalloc.js';

/** What `arena.kmallocSite` takes. */
export interface KmallocSiteOptions {
  /** Where copies go by call site: the site's number, the same in all threads. By default the line that makes the handle. */
  site?: number;
  /** Where copies go by type: the name of what is allocated. A site that names none allocates from the normal caches. */
  type?: string;
  /** Whether the type has addresses in it: such types and others never share a copy. Default true. */
  pointers?: boolean;
}

const KNOWN = Object.keys({ site: true, type: true, pointers: true } satisfies Record<
  keyof KmallocSiteOptions,
  true
>);

/** GOLDEN_RATIO_32: 2^32 divided by the golden ratio; the top bits of a product with it depend on every bit. */
const GOLDEN_RATIO_32 = 0x61c88647;

/** A number below `n`. Kernel: `hash_64`, with 32 bits and a range in place of a number of bits. */
function hashBelow(value: number, n: number): number {
  const hash = Math.imul(value, GOLDEN_RATIO_32) >>> 16;
  return (hash * n) >>> 16;
}

/** FNV-1a. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash | 0;
}

/** The line that called `api`, as a number that is the same in each thread that runs it. */
export function callerSite(api: (...args: never[]) => unknown): number {
  const at: { stack?: string } = {};
  Error.captureStackTrace(at, api);
  const frame = at.stack?.split('\n')[1];
  if (frame === undefined) {
    throw new RangeError(
      'site is not given, and Error.stackTraceLimit is 0: no caller can be told from another',
    );
  }
  return hashText(frame.trim());
}

/** Which family serves a call site. `caller` is asked for only when that decides. */
export function familyOfSite(geometry: Geometry, options: KmallocSiteOptions, caller: () => number): number {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`options is ${describe(options)}; it must be an object`);
  }
  requireKnown('options', options, KNOWN);
  const { site, type, pointers = true } = options;
  if (site !== undefined) requireInteger('site', site, -0x80000000, 0xffffffff);
  if (type !== undefined && typeof type !== 'string') {
    throw new TypeError(`type is ${describe(type)}; it must be the name of a type`);
  }
  if (typeof pointers !== 'boolean') {
    throw new TypeError(`pointers is ${describe(pointers)}; it must be a boolean`);
  }
  const families = 1 + geometry.kmallocCopies;
  if (families === 1) return 0;
  if (KMALLOC_COPY_RULES[geometry.kmallocCopyBy] === 'site') {
    return hashBelow((site ?? caller()) ^ geometry.kmallocSeed, families);
  }
  if (type === undefined) return 0;
  const half = families >>> 1;
  return pointers ? half + hashBelow(hashText(type), families - half) : hashBelow(hashText(type), half);
}

/** A place that calls kmalloc; make it once, where the call stands. Ends with the thread's time online, as caches do. */
export class KmallocSite {
  /** The copy of the normal caches that serves it; 0 is the normal caches themselves. */
  readonly copy: number;
  private readonly kmallocs: Kmallocs;
  private readonly rows: readonly KmallocTable[];

  constructor(kmallocs: Kmallocs, family: number) {
    this.kmallocs = kmallocs;
    this.copy = family;
    this.rows = kmallocs.rowsOfFamily(family);
  }

  /** As `arena.kmalloc`. Flags that choose another type than the normal one do so here, too. */
  alloc(size: number, gfp: number = GFP_KERNEL, node: number = NUMA_NO_NODE): number {
    return this.kmallocs.allocFrom(this.rows, size, gfp, node);
  }
}
