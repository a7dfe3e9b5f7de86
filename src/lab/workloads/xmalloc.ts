/**
 * Lever and Boreham's malloc-test, in the form of xmalloc: every thread makes batches of 256 objects and puts them
 * into one queue; whoever takes a batch frees it. Here each thread puts one and takes one in turn.
 *
 * The queue is a ring of batches for many writers and readers. A cell's sequence number says whose turn it is: in
 * round r through the ring 2r is a writer's and 2r + 1 a reader's. A thread that claims a cell by moving the counter
 * owns it until it sets the number.
 *
 * No deadlock: a thread takes only after it has put, so a cell that is to be read has been claimed by a writer, and
 * there are twice as many cells as threads, so one that is to be written has been claimed by a reader.
 */
import { cmpxchg, loadAcquire, storeRelease } from '../../sync/index.js';
import { OutOfArenaError, type Workload, type WorkloadContext } from './workload.js';

const BATCH = 256;
const PUT = 0;
const TAKE = 64;
const CELLS_AT = 128;
/** A cell: its sequence number on a line of its own, then the batch. */
const BATCH_AT = 16;
const CELL_WORDS = BATCH_AT + BATCH;

const cellsFor = (threads: number): number => 2 ** Math.ceil(Math.log2(threads * 2));
const queueWords = (threads: number): number => CELLS_AT + cellsFor(threads) * CELL_WORDS;

/** Claims the next cell for writing (`step` 0) or reading (`step` 1) and returns its position. */
function claim(context: WorkloadContext, counter: number, step: number, cells: number): number {
  const { shared } = context;
  for (;;) {
    const position = loadAcquire(shared, counter);
    const at = cellAt(position, cells);
    const sequence = loadAcquire(shared, at);
    const ours = roundOf(position, cells) + step;
    if (sequence === ours) {
      if (cmpxchg(shared, counter, position, position + 1) === position) return position;
    } else if (sequence < ours && loadAcquire(shared, counter) === position) {
      // Somebody has claimed the cell and not finished with it.
      context.awaitChange(shared, at, sequence);
    }
  }
}

const cellAt = (position: number, cells: number): number => CELLS_AT + (position & (cells - 1)) * CELL_WORDS;
/** A cell's number at the start of the round that the position belongs to. */
const roundOf = (position: number, cells: number): number => Math.floor(position / cells) * 2;

function putBatch(context: WorkloadContext, cells: number, tag: number): void {
  const { shared, objects, i32 } = context;
  const position = claim(context, PUT, 0, cells);
  const at = cellAt(position, cells);
  for (let i = 0; i < BATCH; i++) {
    const p = objects.alloc();
    if (p === 0) throw new OutOfArenaError();
    i32[p >> 2] = tag;
    shared[at + BATCH_AT + i] = p;
  }
  // Pairs with the reader's load of the number: the batch is older than this.
  storeRelease(shared, at, roundOf(position, cells) + 1);
}

function takeBatch(context: WorkloadContext, cells: number): void {
  const { shared, objects } = context;
  const position = claim(context, TAKE, 1, cells);
  const at = cellAt(position, cells);
  for (let i = 0; i < BATCH; i++) objects.free(shared[at + BATCH_AT + i]!);
  // Pairs with the next writer's load of the number: the batch has been read.
  storeRelease(shared, at, roundOf(position, cells) + 2);
}

function run(context: WorkloadContext, ops: number): void {
  const cells = cellsFor(context.threads);
  for (let done = 0; done < ops; done += BATCH) {
    putBatch(context, cells, done);
    takeBatch(context, cells);
  }
}

export const xmalloc: Workload = {
  name: 'xmalloc',
  about: `batches of ${BATCH} objects through one queue, freed by whoever takes them`,
  objectSize: 64,
  granule: BATCH,
  threadsPerOp: 1,
  sharedWords: queueWords,
  prepare: (context, ops) => ({ allocs: ops, frees: ops, run: () => run(context, ops) }),
};
