/**
 * Steps along a list of objects, a field read and one written at each, in one of three ways: by word index and constant
 * offset, through a cursor that is moved, and through a new cursor for each object. What is timed is no allocation.
 */
import { structOf, type ViewSource } from '../../view/index.js';
import type { ObjectHeap } from '../heaps.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

const OBJECTS = 1024;
const Node = structOf('walk_node', { next: 'addr', cookie: 'u32', seen: 'u32', weight: 'f64' });
const { next: NEXT, seen: SEEN } = Node.fields;

export const WALKS = ['plain', 'cursor', 'object'] as const;
export type Walk = (typeof WALKS)[number];

type Steps = (from: number, n: number) => void;

function plain({ i32: m }: WorkloadContext): Steps {
  const next = NEXT.offset;
  const seen = SEEN.offset;
  return (from, n) => {
    let p = from;
    for (let i = 0; i < n; i++) {
      m[(p + seen) >> 2] = i;
      p = m[(p + next) >> 2]!;
    }
  };
}

function moved({ view }: WorkloadContext): Steps {
  const node = Node.cursor(view);
  return (from, n) => {
    let p = from;
    for (let i = 0; i < n; i++) {
      node.at(p).seen = i;
      p = node.next;
    }
  };
}

function made({ view }: WorkloadContext): Steps {
  return (from, n) => {
    let p = from;
    for (let i = 0; i < n; i++) {
      const node = Node.cursor(view).at(p);
      node.seen = i;
      p = node.next;
    }
  };
}

const WAYS: Readonly<Record<Walk, (context: WorkloadContext) => Steps>> = {
  plain,
  cursor: moved,
  object: made,
};

/** A ring, in the order of allocation. The cookies of a checked run are in the second word and the last. */
function link(heap: ObjectHeap, view: ViewSource): Int32Array {
  const objects = new Int32Array(OBJECTS);
  for (let i = 0; i < OBJECTS; i++) {
    const p = heap.alloc();
    if (p === 0) throw new OutOfArenaError();
    objects[i] = p;
  }
  const node = Node.cursor(view);
  for (let i = 0; i < OBJECTS; i++) node.at(objects[i]!).next = objects[(i + 1) % OBJECTS]!;
  return objects;
}

export const walkName = (way: Walk): string => `walk-${way}`;

export function walk(way: Walk): Workload {
  return {
    name: walkName(way),
    about: `steps along a list, by ${way}`,
    objectSize: 64,
    granule: 1,
    threadsPerOp: 1,
    prepare: (context, ops) => {
      const steps = WAYS[way](context);
      let objects: Int32Array = new Int32Array(0);
      return {
        allocs: OBJECTS,
        frees: OBJECTS,
        fill: () => {
          objects = link(context.objects, context.view);
        },
        run: () => steps(objects[0]!, ops),
        drain: () => {
          for (const p of objects) context.objects.free(p);
        },
      };
    },
  };
}
