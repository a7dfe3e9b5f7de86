/**
 * Percpu memory by itself, and objects that own some (mmStruct.ts): processes that come and go, and traffic filters that
 * are inserted and removed.
 */
import type { Arena } from '../../arena.js';
import type { PercpuAllocator } from '../../percpu/index.js';
import {
  MM_BYTES,
  mmStructCache,
  OWNERS,
  type Owner,
  RSS_STAT,
  TC_BYTES,
  tcActionCache,
} from './mmStruct.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

const common = { granule: 1, threadsPerOp: 1 };

/** As many bytes as most of the recorded areas have. */
const AREA_BYTES = 16;
const AREA_ALIGN = 8;

function areas(percpu: PercpuAllocator, n: number, kept: Int32Array): void {
  const size = kept.length;
  for (let i = 0; i < n; i += size) {
    for (let j = 0; j < size; j++) {
      const p = percpu.alloc(AREA_BYTES, AREA_ALIGN);
      if (p === 0) throw new OutOfArenaError();
      kept[j] = p;
    }
    for (let j = 0; j < size; j++) percpu.free(kept[j]!);
  }
}

function percpuBatch(size: number): Workload {
  return {
    ...common,
    name: `percpu-${size}`,
    about: `allocate ${size} percpu areas of ${AREA_BYTES} bytes, free them in the same order`,
    granule: size,
    prepare: ({ arena }, ops) => {
      const kept = new Int32Array(size);
      return { allocs: ops, frees: ops, run: () => areas(arena.percpu, ops, kept) };
    },
  };
}

type OwnerKind = keyof typeof OWNERS;
export type Way = 'plain' | 'ctor';

/** Objects that live at a time, for each thread. */
const WINDOW = 16;

/**
 * Replaces the oldest object by a new one, `n` times: cleared, or a copy of the one before as `fork` makes it. The first two
 * words are the object's own, and a checking run's.
 */
function turnOver(context: WorkloadContext, owner: Owner, live: Int32Array, n: number, use: Use): void {
  const { arena, objects, i32 } = context;
  const cleared = owner.clearUpTo >> 2;
  for (let i = 0, at = 0; i < n; i++, at = at + 1 === WINDOW ? 0 : at + 1) {
    drop(context, owner, live[at]!);
    const p = objects.alloc();
    if (p === 0) throw new OutOfArenaError();
    const parent = owner.copies && (i & 1) === 1 ? live[at === 0 ? WINDOW - 1 : at - 1]! : 0;
    if (parent === 0) i32.fill(0, (p >> 2) + 2, (p >> 2) + cleared);
    else i32.copyWithin((p >> 2) + 2, (parent >> 2) + 2, (parent >> 2) + cleared);
    if (!owner.take(arena, p)) {
      objects.free(p);
      live[at] = 0;
      throw new OutOfArenaError();
    }
    use(arena, p);
    live[at] = p;
  }
}

function drop({ arena, objects }: WorkloadContext, owner: Owner, p: number): void {
  if (p === 0) return;
  owner.give(arena, p);
  objects.free(p);
}

type Use = (arena: Arena, p: number) => void;

/** A process maps pages and, by its end, has given all of them back. */
const useMm: Use = ({ percpu }, mm) => {
  percpu.counters.add(mm + RSS_STAT, 5);
  percpu.counters.add(mm + RSS_STAT, -5);
};

const USES: Readonly<Record<OwnerKind, Use>> = { mm: useMm, tc: () => {} };
const BYTES: Readonly<Record<OwnerKind, number>> = { mm: MM_BYTES, tc: TC_BYTES };
const DEFINED = { mm: mmStructCache, tc: tcActionCache } as const;

export const ownerName = (kind: OwnerKind, way: Way): string => `${kind}-${way}`;

function percpuOwner(kind: OwnerKind, way: Way): Workload {
  const owner: Owner = OWNERS[kind][way];
  return {
    ...common,
    name: ownerName(kind, way),
    about: `${kind === 'mm' ? 'mm_structs' : 'tc_actions'} that are replaced one by one, percpu memory ${way === 'ctor' ? 'by constructor' : 'each time'}`,
    objectSize: BYTES[kind],
    ...(way === 'ctor' ? { defined: DEFINED[kind] } : {}),
    prepare: (context, ops) => {
      const live = new Int32Array(WINDOW);
      return {
        allocs: ops,
        frees: ops,
        run: () => turnOver(context, owner, live, ops, USES[kind]),
        drain: () => {
          for (const p of live) drop(context, owner, p);
        },
      };
    },
  };
}

export const PERCPU_WORKLOADS: readonly Workload[] = [
  ...[1, 100].map(percpuBatch),
  ...(['mm', 'tc'] as const).flatMap((kind) =>
    (['plain', 'ctor'] as const).map((way) => percpuOwner(kind, way)),
  ),
];
