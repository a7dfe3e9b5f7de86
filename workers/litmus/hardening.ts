/** Roles of the tests of quarantine, guard objects and handles: objects go from thread to thread and are freed there. */
import { Arena, SlabBugError } from '../../src/index.js';
import { exchange } from '../../src/sync/index.js';
import { Control, FREE_WORDS, type LitmusTask, number, random } from './control.js';

interface Traded {
  /** Objects whose contents were not what their last owner wrote. */
  damaged: number;
  freed: number;
}

/** Allocates, stamps and frees; every object passes through a slot that all threads share, so most frees are foreign. */
function trade(task: LitmusTask): Traded {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const cache = arena.openCache('c');
  const below = random(number(task, 'seed'));
  const words = cache.objectSize >> 2;
  const { i32 } = arena;
  let damaged = 0;
  let freed = 0;
  const list = new Int32Array(1);
  const take = (p: number): void => {
    if (p === 0) return;
    for (let i = 0; i < words; i++) if (i32[(p >> 2) + i] !== (p ^ i)) damaged++;
    list[0] = p;
    if (below(3) === 0) cache.freeBulk(list, 1);
    else if (below(8) === 0) cache.freeRcu(p);
    else cache.free(p);
    freed++;
  };
  control.arrive();
  for (let round = number(task, 'rounds'); round > 0; round--) {
    const p = cache.alloc();
    for (let i = 0; p !== 0 && i < words; i++) i32[(p >> 2) + i] = p ^ i;
    take(exchange(control.m, FREE_WORDS + below(8), p));
    if (below(100) === 0) arena.endTurn();
  }
  for (let slot = 0; slot < 8; slot++) take(exchange(control.m, FREE_WORDS + slot, 0));
  arena.offline();
  return { damaged, freed };
}

/** The same with handles in shared memory: everybody looks, one frees, and who comes too late is told so. */
function tradeHandles(task: LitmusTask): Traded & { late: number } {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const handles = arena.openCache('c').handles();
  const below = random(number(task, 'seed'));
  const shared = new Float64Array(control.buffer, 4096, 8);
  const { i32 } = arena;
  const sum = { damaged: 0, freed: 0, late: 0 };
  const free = (h: number): void => {
    try {
      handles.free(h);
      sum.freed++;
    } catch (error) {
      if (!(error instanceof SlabBugError && error.kind === 'double-free')) throw error;
      sum.late++;
    }
  };
  control.arrive();
  for (let round = number(task, 'rounds'); round > 0; round--) {
    const h = handles.alloc();
    if (h === 0) continue;
    i32[handles.at(h) >> 2] = round;
    const slot = below(8);
    const before = shared[slot]!; // not exclusive: another thread may read the same one, and free it, too
    shared[slot] = h;
    if (before !== 0) free(before);
    if (below(100) === 0) arena.endTurn();
  }
  arena.offline();
  return sum;
}

export const HARDENING_ROLES = { trade, tradeHandles };
