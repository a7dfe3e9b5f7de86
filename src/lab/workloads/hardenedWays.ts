/**
 * Pairs and batches as a program has them that hardens itself: objects by handle, fields through a cursor, kmalloc by call
 * site; and the same without. Each allocates, writes a word of the object and frees, as the pairs and batches by address
 * do; a cursor reads it, too.
 */
import { type Cursor, structOf } from '../../view/index.js';
import type { HandledObjects, ObjectHandles, ObjectHeap, SitedBlocks, SizedHeap } from '../heaps.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

export const HARDENED_WAYS = ['handle', 'field', 'handle-field', 'block', 'site'] as const;
export type HardenedWay = (typeof HARDENED_WAYS)[number];

const BLOCK_BYTES = 64;
/** The cookies of a checked run are in the second word and the last. */
const FIELDS = { value: 'u32', cookie: 'u32' } as const;
const Fields = structOf('lab_fields', FIELDS);

type Moved = Cursor<typeof FIELDS>;
type Site = ReturnType<SitedBlocks['kmallocSite']>;

function writeAndRead(cursor: Moved, p: number, i: number): number {
  const at = cursor.at(p);
  at.value = i;
  return at.value;
}

function handlePairs(handles: ObjectHandles, m: Int32Array, n: number): void {
  for (let i = 0; i < n; i++) {
    const h = handles.alloc();
    if (h === 0) throw new OutOfArenaError();
    m[handles.at(h) >> 2] = i;
    handles.free(h);
  }
}

function handleBatches(handles: ObjectHandles, m: Int32Array, n: number, kept: Float64Array): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const h = handles.alloc();
      if (h === 0) throw new OutOfArenaError();
      m[handles.at(h) >> 2] = i;
      kept[j] = h;
    }
    for (let j = 0; j < size; j++) handles.free(kept[j]!);
  }
}

/** The sum of what was read: a result that is used. */
function fieldPairs(heap: ObjectHeap, cursor: Moved, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const p = heap.alloc();
    if (p === 0) throw new OutOfArenaError();
    sum = (sum + writeAndRead(cursor, p, i)) | 0;
    heap.free(p);
  }
  return sum;
}

function fieldBatches(heap: ObjectHeap, cursor: Moved, n: number, kept: Int32Array): number {
  const size = kept.length;
  let sum = 0;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = heap.alloc();
      if (p === 0) throw new OutOfArenaError();
      sum = (sum + writeAndRead(cursor, p, i)) | 0;
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) heap.free(kept[j]!);
  }
  return sum;
}

function handleFieldPairs(handles: ObjectHandles, cursor: Moved, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const h = handles.alloc();
    if (h === 0) throw new OutOfArenaError();
    sum = (sum + writeAndRead(cursor, handles.at(h), i)) | 0;
    handles.free(h);
  }
  return sum;
}

function handleFieldBatches(handles: ObjectHandles, cursor: Moved, n: number, kept: Float64Array): number {
  const size = kept.length;
  let sum = 0;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const h = handles.alloc();
      if (h === 0) throw new OutOfArenaError();
      sum = (sum + writeAndRead(cursor, handles.at(h), i)) | 0;
      kept[j] = h;
    }
    for (let j = 0; j < size; j++) handles.free(kept[j]!);
  }
  return sum;
}

function blockPairs(blocks: SizedHeap, m: Int32Array, n: number): void {
  for (let i = 0; i < n; i++) {
    const p = blocks.kmalloc(BLOCK_BYTES);
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = i;
    blocks.kfree(p);
  }
}

function blockBatches(blocks: SizedHeap, m: Int32Array, n: number, kept: Int32Array): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = blocks.kmalloc(BLOCK_BYTES);
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) blocks.kfree(kept[j]!);
  }
}

function sitePairs(site: Site, blocks: SizedHeap, m: Int32Array, n: number): void {
  for (let i = 0; i < n; i++) {
    const p = site.alloc(BLOCK_BYTES);
    if (p === 0) throw new OutOfArenaError();
    m[p >> 2] = i;
    blocks.kfree(p);
  }
}

function siteBatches(site: Site, blocks: SizedHeap, m: Int32Array, n: number, kept: Int32Array): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = site.alloc(BLOCK_BYTES);
      if (p === 0) throw new OutOfArenaError();
      m[p >> 2] = i;
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) blocks.kfree(kept[j]!);
  }
}

/** A loop, with what it works on found before the clock starts; a batch of `size`, or pairs for 0. */
type Way = (context: WorkloadContext, n: number, size: number) => () => void;

const handlesOf = ({ objects }: WorkloadContext): ObjectHandles => (objects as HandledObjects).handles();
// What is read must go somewhere, or V8 need not read it.
const sums = new Int32Array(1);

const WAYS: Readonly<Record<HardenedWay, Way>> = {
  handle: (context, n, size) => {
    const handles = handlesOf(context);
    const kept = new Float64Array(size);
    const { i32 } = context;
    return () => (size === 0 ? handlePairs(handles, i32, n) : handleBatches(handles, i32, n, kept));
  },
  field: ({ objects, view }, n, size) => {
    const cursor = Fields.cursor(view);
    const kept = new Int32Array(size);
    return () => {
      sums[0] = size === 0 ? fieldPairs(objects, cursor, n) : fieldBatches(objects, cursor, n, kept);
    };
  },
  'handle-field': (context, n, size) => {
    const handles = handlesOf(context);
    const cursor = Fields.cursor(context.view);
    const kept = new Float64Array(size);
    return () => {
      sums[0] =
        size === 0 ? handleFieldPairs(handles, cursor, n) : handleFieldBatches(handles, cursor, n, kept);
    };
  },
  block: ({ blocks, i32 }, n, size) => {
    const kept = new Int32Array(size);
    return () => (size === 0 ? blockPairs(blocks, i32, n) : blockBatches(blocks, i32, n, kept));
  },
  site: ({ blocks, i32, rank }, n, size) => {
    const site = (blocks as SitedBlocks).kmallocSite({ site: rank + 1 });
    const kept = new Int32Array(size);
    return () => (size === 0 ? sitePairs(site, blocks, i32, n) : siteBatches(site, blocks, i32, n, kept));
  },
};

/** The workload that does what `name`, a pair or a batch, does, in this way. */
export const hardenedName = (way: HardenedWay, name: string): string => `${way}-${name}`;

/** Pairs for size 0, or batches. */
export function hardened(way: HardenedWay, size: number): Workload {
  const what = size === 0 ? 'one object, free it' : `${size} objects, free them in the same order`;
  return {
    name: hardenedName(way, size === 0 ? 'pair' : `batch-${size}`),
    about: `allocate ${what}, by ${way}`,
    ...(way === 'block' || way === 'site' ? {} : { objectSize: BLOCK_BYTES }),
    granule: Math.max(1, size),
    threadsPerOp: 1,
    prepare: (context, ops) => ({ allocs: ops, frees: ops, run: WAYS[way](context, ops, size) }),
  };
}
