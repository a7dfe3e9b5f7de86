/** Roles whose allocations are charged to memory groups. */
import { __GFP_NOWARN, Arena, GFP_KERNEL } from '../../src/index.js';
import { chargeMm, mmPercpuBytes, mmStructCache, unchargeMm } from '../../src/lab/workloads/mmStruct.js';
import { Control, type LitmusTask, number, random } from './control.js';

/** Free word of the control: objects of all threads. */
const LIVE = 1;

export interface ChargedResult {
  allocs: number;
  refused: number;
  /** Most bytes of objects that this thread saw charged to the group beyond its limit. */
  over: number;
  /** What this thread leaves behind. */
  held: number[];
}

/** Allocates and frees within its group, against others that share the limit above it; keeps `keep` objects. */
function charged(task: LitmusTask): ChargedResult {
  const arena = Arena.attach(task.handle!);
  arena.online();
  const control = new Control(task.control);
  const below = random(number(task, 'seed'));
  const group = arena.groups.open(String(task.args.group));
  const above = arena.groups.open('above');
  arena.groups.workFor(group);
  const cache = arena.openCache('charged');
  const held: number[] = [];
  const out = new Int32Array(20);
  const result: ChargedResult = { allocs: 0, refused: 0, over: 0, held: [] };
  /** Objects of all threads, counted late when they come and early when they go: never more than there are. */
  const count = (n: number): void => {
    const live = control.add(LIVE, n) + n;
    result.over = Math.max(result.over, live * cache.size - above.limit);
  };
  const take = (list: Iterable<number>): void => {
    for (const p of list) {
      held.push(p);
      count(1);
    }
  };
  const drop = (): void => {
    count(-1);
    cache.free(held.pop()!);
  };
  control.arrive();
  const end = performance.now() + number(task, 'ms');
  while (performance.now() < end) {
    for (let n = below(100); n > 0; n--) {
      const p = cache.alloc(GFP_KERNEL | __GFP_NOWARN);
      if (p === 0) result.refused++;
      else take([p]);
    }
    if (cache.allocBulk(out, 20)) take(out);
    else result.refused++;
    result.allocs = Math.max(result.allocs, held.length);
    for (let n = below(2) === 0 ? held.length : below(100); n > 0 && held.length > 0; n--) drop();
    if (below(4) === 0) arena.endTurn();
  }
  const keep = number(task, 'keep');
  while (held.length > keep) drop();
  arena.endTurn();
  while (held.length < keep) {
    const p = cache.alloc(GFP_KERNEL | __GFP_NOWARN);
    if (p !== 0) take([p]);
    else control.sleep(1);
  }
  while (task.args.how === 'die') {
    control.set(0, 1);
    control.sleep(1000);
  }
  result.held = held;
  arena.offline();
  return result;
}

/** The same with mm_structs, whose constructor has their percpu memory: only that is charged. */
function chargedMm(task: LitmusTask): ChargedResult {
  const arena = Arena.attach(task.handle!);
  arena.online();
  const control = new Control(task.control);
  const below = random(number(task, 'seed'));
  const above = arena.groups.open('above');
  arena.groups.workFor(arena.groups.open(String(task.args.group)));
  const cache = arena.openCache(mmStructCache);
  const bytes = mmPercpuBytes(arena.geometry.cpus);
  const held: number[] = [];
  const result: ChargedResult = { allocs: 0, refused: 0, over: 0, held };
  const take = (): void => {
    const mm = cache.alloc();
    if (mm !== 0 && chargeMm(arena, mm)) {
      held.push(mm);
      result.allocs++;
      result.over = Math.max(result.over, (control.add(LIVE, 1) + 1) * bytes - above.limit);
      return;
    }
    cache.free(mm);
    result.refused++;
  };
  const drop = (): void => {
    const mm = held.splice(below(held.length), 1)[0]!;
    control.add(LIVE, -1);
    unchargeMm(arena, mm);
    cache.free(mm);
  };
  control.arrive();
  const end = performance.now() + number(task, 'ms');
  while (performance.now() < end) {
    for (let n = below(20); n > 0; n--) take();
    for (let n = below(25); n > 0 && held.length > 0; n--) drop();
    if (below(4) === 0) arena.endTurn();
  }
  const keep = number(task, 'keep');
  while (held.length > keep) drop();
  arena.endTurn();
  for (const stop = end + 5000; held.length < keep && performance.now() < stop; control.sleep(1)) take();
  arena.endTurn();
  while (task.args.how === 'die') {
    control.set(0, 1);
    control.sleep(1000);
  }
  arena.offline();
  return result;
}

export const GROUP_ROLES = { charged, chargedMm };
