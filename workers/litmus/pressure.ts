/** Roles that run out of memory together, and CPUs that come and go meanwhile. */
import { Arena, CpuError, type KmemCache, OutOfMemoryError } from '../../src/index.js';
import { Control, type LitmusTask, number, random } from './control.js';

export interface PressureResult {
  allocs: number;
  /** Allocations that returned 0. */
  failures: number;
  rounds: number;
  errors: string[];
}

function freeAll(cache: KmemCache, held: number[], m: Int32Array, id: number, errors: string[]): void {
  for (const p of held) {
    if (m[p >> 2] !== id && errors.length < 5) errors.push(`CPU ${id}: 0x${p.toString(16)} has ${m[p >> 2]}`);
    cache.free(p);
  }
  held.length = 0;
}

/** Allocates until there is no memory, frees all, and again: every CPU reclaims while the others do. */
function exhaust(task: LitmusTask): PressureResult {
  const arena = Arena.attach(task.handle!);
  const id = number(task, 'cpu');
  arena.online({ cpu: id });
  const control = new Control(task.control);
  const cache = arena.openCache('c');
  const held: number[] = [];
  const result: PressureResult = { allocs: 0, failures: 0, rounds: 0, errors: [] };
  control.arrive();
  const end = performance.now() + number(task, 'ms');
  while (performance.now() < end) {
    for (;;) {
      const p = cache.alloc();
      if (p === 0) break;
      arena.i32[p >> 2] = id;
      held.push(p);
      result.allocs++;
    }
    result.failures++;
    freeAll(cache, held, arena.i32, id, result.errors);
    result.rounds++;
  }
  arena.offline();
  return result;
}

/** Takes whatever slot is free, works, leaves objects to be freed by its next life, and goes. */
function plug(task: LitmusTask): PressureResult {
  const control = new Control(task.control);
  const below = random(number(task, 'seed'));
  const id = 100 + number(task, 'seed');
  const held: number[] = [];
  const result: PressureResult = { allocs: 0, failures: 0, rounds: 0, errors: [] };
  const arena = Arena.attach(task.handle!);
  control.arrive();
  const end = performance.now() + number(task, 'ms');
  for (; performance.now() < end || held.length > 0; result.rounds++) {
    try {
      arena.online();
    } catch (error) {
      if (!(error instanceof CpuError)) throw error;
      control.sleep(1);
      continue;
    }
    const cache = arena.openCache('c');
    freeAll(cache, held, arena.i32, id, result.errors);
    for (let n = performance.now() < end ? below(300) : 0; n > 0; n--) {
      const p = cache.alloc();
      if (p === 0) result.failures++;
      else {
        arena.i32[p >> 2] = id;
        held.push(p);
        result.allocs++;
      }
    }
    arena.offline();
  }
  return result;
}

function createIfRoom(arena: Arena, name: string, size: number): KmemCache | undefined {
  try {
    return arena.createCache(name, { size });
  } catch (error) {
    if (error instanceof OutOfMemoryError) return undefined;
    throw error;
  }
}

/** Makes, uses, shrinks and ends caches while CPUs come and go. */
function caretaker(task: LitmusTask): PressureResult {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const control = new Control(task.control);
  const cache = arena.openCache('c');
  const result: PressureResult = { allocs: 0, failures: 0, rounds: 0, errors: [] };
  control.arrive();
  const end = performance.now() + number(task, 'ms');
  for (; performance.now() < end; result.rounds++) {
    const mine = createIfRoom(arena, `t${result.rounds % 3}`, 64 << (result.rounds % 4));
    if (mine === undefined) continue; // the others have everything just now
    const held = Array.from({ length: 50 }, () => mine.alloc()).filter((p) => p !== 0);
    result.allocs += held.length;
    for (const p of held) mine.free(p);
    const { skippedCpus } = cache.shrink();
    if (skippedCpus.length > 0) result.errors.push(`shrink skipped ${skippedCpus.join()}`);
    const { leaked } = mine.destroy();
    if (leaked > 0) result.errors.push(`${mine.name} leaked ${leaked}`);
  }
  arena.offline();
  return result;
}

export const PRESSURE_ROLES = { exhaust, plug, caretaker };
