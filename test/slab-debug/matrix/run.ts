/**
 * One case of the corruption matrix: what is done wrong, and by column what comes of it. Each goes through the same:
 *
 * | step                | debug                               | plain, hardened                                   |
 * |---------------------|-------------------------------------|---------------------------------------------------|
 * | it is done          | a call is refused, or bytes change  | the same                                          |
 * | arena.validate()    | findings                            | findings                                          |
 * | repair              | cache.debug.validate(), twice:      | none: the cache goes on, or where it cannot, the  |
 * |                     | the second time without an error    | arena's bytes are put back as they were           |
 * | arena.validate()    | left: what was lost stays lost      | left                                              |
 * | the cache goes on   | no object twice, none that is held  | the same                                          |
 * | destroy             | left objects are named as leaked    | the same                                          |
 */
import { expect } from 'vitest';
import { type ArenaOptions, SlabBugError, type SlabBugKind } from '#src/index.js';
import { inside } from '../../cache/support/arena.js';
import { sent } from '../../hardening/support.js';
import {
  COLUMNS,
  type Column,
  freeAll,
  isMarked,
  keepArena,
  type Layout,
  type Scene,
  setScene,
} from './scene.js';

/** A number, or what it is in this scene. */
type Count = number | ((scene: Scene) => number);

export interface Outcome {
  /** What the call throws. */
  refused?: SlabBugKind;
  /** What arena.validate() finds in the cache, before anything is repaired. Default 0. */
  findings?: Count;
  /** Reports, of what is wrong and of repairs, until the end. Default 0. */
  errors?: Count;
  /** How the first report begins. */
  what?: string;
  /** Nobody repairs it, and nobody could go on: the bytes are put back. */
  putBack?: true;
  /** What arena.validate() finds after the repair. Default 0. */
  left?: Count;
  /** Objects that destroy names. By default those that are `left`. */
  leaked?: Count;
  /** The cache is destroyed when it is done. */
  destroyed?: true;
}

export interface Case {
  name: string;
  /** Layouts that it can be done in; by default all. */
  layouts?: (layout: Layout) => boolean;
  /** A layout that it needs. */
  layout?: Partial<Layout>;
  /** Beyond those of the column. */
  options?: Partial<Record<Column, Partial<ArenaOptions>>>;
  /** What comes before it, and is right. */
  prepare?: (scene: Scene) => void;
  act: (scene: Scene) => void;
  is: Record<Column, Outcome>;
  /** What follows when it is repaired. */
  after?: (scene: Scene) => void;
}

const numberOf = (count: Count | undefined, scene: Scene): number =>
  typeof count === 'function' ? count(scene) : (count ?? 0);

const findingsOf = ({ arena, cache }: Scene): string[] =>
  arena
    .validate()
    .filter(({ where }) => where.startsWith(cache.name))
    .map(({ what }) => what);

/** As what an action is refused, if it is. */
function refusal(action: () => void): string | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof SlabBugError) return error.kind;
    throw error;
  }
  return undefined;
}

/** Allocates more than a slab and its sheaves have: no object twice, none that is in use, none that is no object. */
function goOn({ arena, cache, seen, objects }: Scene): void {
  const { slabs, guards } = inside(arena);
  const held = new Set([...seen].filter((p) => isMarked({ arena, cache }, p)));
  const more: number[] = [];
  for (let i = 0; i < 2 * objects.length; i++) {
    const p = cache.alloc();
    const isOurs = guards.owns(p) || slabs.checks.isLink(cache.desc, slabs.slabOf(p), p);
    if (p === 0 || held.has(p) || !isOurs) expect.unreachable(`0x${p.toString(16)} was handed out`);
    arena.u8.fill(i, p, p + cache.objectSize);
    held.add(p);
    more.push(p);
  }
  for (const p of more) cache.free(p);
}

/** Debug caches put right what is wrong; a second look finds nothing. */
function repair({ cache }: Scene, errors: number): void {
  cache.debug.validate();
  expect(cache.debug.errors, 'errors of what was done and of the first validation').toBe(errors);
  expect(cache.debug.validate().errors, 'errors of the second validation').toBe(0);
}

/** Of this cache: an object of another may come into it, too. */
function expectReports({ reports, cache }: Scene, errors: number, what = ''): void {
  const ours = reports.filter((report) => report.cache === cache.name);
  expect(ours.length, ours.map(({ text }) => text).join('\n')).toBe(errors);
  if (errors > 0) expect(ours[0]!.what.slice(0, what.length)).toBe(what);
}

async function check(scene: Scene, test: Case): Promise<void> {
  const { arena, cache, column } = scene;
  const outcome = test.is[column];
  const errors = numberOf(outcome.errors, scene);
  scene.endTurns();
  const before = outcome.putBack ? arena.u8.slice() : undefined;
  expect(refusal(() => test.act(scene))).toBe(outcome.refused);
  scene.endTurns();
  if (outcome.destroyed) {
    await sent();
    expectReports(scene, errors, outcome.what);
    return;
  }
  expect(findingsOf(scene), 'findings').toHaveLength(numberOf(outcome.findings, scene));
  if (column === 'debug') repair(scene, errors);
  if (before !== undefined) arena.u8.set(before);
  const left = numberOf(outcome.left, scene);
  if (column === 'debug' || outcome.putBack) expect(findingsOf(scene), 'left').toHaveLength(left);
  test.after?.(scene);
  goOn(scene);
  arena.kfreeRcuBarrier();
  await sent();
  expectReports(scene, errors, outcome.what);
  expect(cache.debug.errors).toBe(errors);
  if (column !== 'debug') expect(findingsOf(scene), 'left').toHaveLength(left);
}

/** Everything is freed; what cannot be is what is expected to be left. Whether the arena is as it was. */
function finish(scene: Scene, { is }: Case): boolean {
  const { arena, cache, column } = scene;
  const outcome = is[column];
  const leaked = numberOf(outcome.leaked ?? outcome.left, scene);
  scene.endOther();
  if (!outcome.destroyed) {
    freeAll(scene);
    expect(cache.destroy().leaked, 'leaked').toBe(leaked);
  }
  scene.endReports();
  if (leaked === 0) expect(arena.validate()).toEqual([]);
  expect(arena.lockdep().reports).toEqual([]);
  return leaked === 0;
}

/** `more` are options beyond those of the column. */
export async function runCase(
  test: Case,
  column: Column,
  layout: Layout,
  more: Partial<ArenaOptions> = {},
): Promise<void> {
  const options = { ...COLUMNS[column], ...test.options?.[column], ...more };
  const scene = setScene(column, { ...layout, ...test.layout }, options);
  test.prepare?.(scene);
  await check(scene, test);
  if (finish(scene, test)) keepArena(scene.arena, options);
}
