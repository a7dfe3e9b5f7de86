/**
 * Hostile input: calls of everything that is public, with arguments that are good, nearly good and bad. Each call ends
 * with what a small model expects, or with a typed error and an arena in which nothing has changed.
 */
import { type ArenaOptions, GranaryError, OutOfMemoryError } from '../../index.js';
import { Entrance } from './entrance.js';
import { FuzzProgress } from './progress.js';
import { Rng } from './rng.js';
import type { Rule, Surface } from './rule.js';
import { gaps, SURFACES } from './surface.js';
import { HostileError, hostile, show } from './values.js';
import { World } from './world.js';

/** Arenas that are attacked in turn. */
export const FUZZ_ARENAS: ReadonlyArray<Partial<ArenaOptions>> = [
  { lockPolicy: 'turn', check: 'free' },
  { lockPolicy: 'op', check: 'free' },
  { lockPolicy: 'turn', check: 'full', initOnAlloc: true, initOnFree: true },
  { lockPolicy: 'op', check: 'full', hardenedUsercopy: true, merge: 'kernel' },
  { lockPolicy: 'turn', check: 'free', slabDebug: 'FZPU' },
  {
    lockPolicy: 'turn',
    check: 'free',
    layer: 'cpu-slab',
    kmalloc: { requestedSize: true },
    merge: 'primary',
  },
  { lockPolicy: 'op', check: 'full', layer: 'percpu-array', percpu: { areaCache: 4 } },
  {
    lockPolicy: 'turn',
    check: 'free',
    guard: { every: 3, objects: 12 },
    hardenedUsercopy: true,
    kmalloc: { requestedSize: true },
  },
  {
    lockPolicy: 'op',
    check: 'full',
    guard: { every: 5, objects: 12 },
    quarantine: 2048,
    freelistHardened: true,
  },
];

/** Calls on one arena before it is given up for another. */
const CALLS_PER_ARENA = 4000;
const CALLS_PER_AUDIT = 500;
const FAULTS_MAX = 10;

/** Errors of the engine that say that nobody has looked at an argument. */
const CARELESS = new RegExp(
  'Cannot (read|set|destructure|access|delete)|is not (a function|iterable|a constructor)|undefined \\(|' +
    'Maximum call stack|nvalid typed array|offset is out of bounds|private member|object null|undefined or null',
);

export interface FuzzReport {
  calls: number;
  accepted: number;
  refused: number;
  /** Refusals after which the whole arena was compared with what it was. */
  compared: number;
  /** Calls by surface and name. */
  byName: ReadonlyMap<string, number>;
  faults: string[];
}

interface Entry {
  surface: Surface;
  name: string;
  rule: Rule;
}

/** Surfaces as often as they weigh. */
const WEIGHTED = SURFACES.flatMap((surface) => Array.from({ length: surface.weight }, () => surface));
const NAMES = new Map(SURFACES.map((surface) => [surface, Object.keys(surface.rules)]));

class Fuzzer {
  private readonly rng: Rng;
  private readonly byName = new Map<string, number>();
  private readonly report: FuzzReport;
  private readonly entrance: Entrance;
  private readonly seed: number;
  private readonly progress: FuzzProgress;

  constructor(seed: number, progress: FuzzProgress) {
    this.seed = seed;
    this.progress = progress;
    this.rng = new Rng(seed);
    this.entrance = new Entrance(this.rng);
    this.report = { calls: 0, accepted: 0, refused: 0, compared: 0, byName: this.byName, faults: [] };
  }

  run(calls: number): FuzzReport {
    const { report, progress } = this;
    for (let arena = 0; report.calls < calls && report.faults.length < FAULTS_MAX; arena++) {
      const options = FUZZ_ARENAS[arena % FUZZ_ARENAS.length]!;
      progress.enterArena(arena);
      progress.note('making an arena');
      const world = new World(this.rng, options);
      progress.note('looking for gaps');
      if (arena === 0) report.faults.push(...gaps(world));
      this.attack(world, Math.min(calls - report.calls, CALLS_PER_ARENA));
      progress.note('giving all back');
      if (world.faults.length === 0) world.end();
      const where = `arena ${arena} (${JSON.stringify(options)}), seed ${this.seed}`;
      for (const fault of world.faults) report.faults.push(`${where}: ${fault}`);
    }
    return report;
  }

  private attack(world: World, calls: number): void {
    let latest = '';
    for (let i = 1; i <= calls && world.faults.length === 0; i++) {
      this.report.calls++;
      this.progress.nextCall();
      try {
        latest = this.step(world);
        world.trim();
        if (i % CALLS_PER_AUDIT === 0) this.audit(world);
      } catch (error) {
        world.fault(`between calls: ${String((error as Error)?.stack ?? error)}`);
      }
      if (world.faults.length > 0) world.faults.push(`the latest call: ${latest}`);
    }
  }

  private audit(world: World): void {
    this.progress.note('the audit');
    world.audit();
  }

  private step(world: World): string {
    if (this.rng.below(400) === 0) return this.enter(world);
    const surface = this.rng.pick(WEIGHTED);
    const target = surface.pick(world);
    if (target === undefined) return surface.name;
    const name = this.rng.pick(NAMES.get(surface)!);
    const rule = surface.rules[name]!;
    world.target = target;
    const key = `${surface.name}.${name}`;
    this.progress.note(key);
    this.byName.set(key, (this.byName.get(key) ?? 0) + 1);
    if (rule.run !== undefined) {
      rule.run(world, target as never);
      return key;
    }
    return this.call(world, { surface, name, rule }, target);
  }

  private enter(world: World): string {
    this.progress.note('the entrance');
    try {
      this.entrance.try(world);
    } catch (error) {
      if (String(error).includes('which the caller counts as a fault')) world.fault(String(error));
      this.judge(world, error, 'the entrance');
    }
    return 'the entrance';
  }

  private call(world: World, { surface, name, rule }: Entry, target: object): string {
    const { rng, report } = this;
    const args = rule.args.map((make) => make(world));
    const bad = args.length > 0 && rng.chance(55);
    if (bad) this.spoil(world, rule, args);
    const text = `${surface.name}.${name}(${args.map(show).join(', ')})`;
    // With the end of the turn that compares, what waits for a grace period may be freed.
    const compare = bad && rng.chance(80) && world.isQuiet;
    world.disturbed = false;
    if (compare) {
      world.arena.endTurn();
      world.image.take();
    }
    let result: unknown;
    try {
      result = invoke(target, name, args);
    } catch (error) {
      report.refused++;
      this.judge(world, error, text);
      if (
        !bad &&
        rule.forges !== true &&
        !(error instanceof GranaryError) &&
        !(error instanceof RangeError)
      ) {
        world.fault(`${text}: good arguments, and ${String(error)}`);
      }
      if (compare && !world.disturbed && !(error instanceof OutOfMemoryError)) this.compare(world, text);
      return text;
    }
    report.accepted++;
    rule.done?.({ world, on: target, args, result });
    return text;
  }

  /** Makes at least one argument bad, or leaves some out. */
  private spoil(world: World, rule: Rule, args: unknown[]): void {
    const { rng } = this;
    if (rng.below(12) === 0 && rule.trusted === undefined) args.length = rng.below(args.length);
    const at = rng.below(Math.max(1, args.length));
    for (let i = 0; i < args.length; i++) {
      if ((i === at || rng.chance(15)) && !rule.trusted?.includes(i)) args[i] = hostile(world);
    }
  }

  private compare(world: World, text: string): void {
    world.arena.endTurn();
    this.report.compared++;
    const changes = world.image.changes();
    if (changes.length > 0) world.fault(`${text} was refused and changed ${changes.join('; ')}`);
  }

  private judge(world: World, error: unknown, text: string): void {
    if (error instanceof HostileError || error instanceof GranaryError) return;
    const typed = error instanceof RangeError || error instanceof TypeError;
    if (typed && !CARELESS.test(error.message)) return;
    // How a typed array refuses what it is to store.
    if (error instanceof SyntaxError && error.message.endsWith('to a BigInt')) return;
    const stack =
      error instanceof Error ? (error.stack ?? '').split('\n').slice(0, 4).join(' ') : String(error);
    world.fault(`${text} threw ${stack}`);
  }
}

function invoke(target: object, name: string, args: unknown[]): unknown {
  const [kind, property] = name.split(' ');
  if (property === undefined)
    return (target as Record<string, (...args: unknown[]) => unknown>)[name]!(...args);
  if (kind === 'get') return Reflect.get(target, property);
  (target as Record<string, unknown>)[property] = args[0];
  return undefined;
}

/** `calls` calls on arenas of every kind. The same seed makes the same calls. `progress` is told of each before it is made. */
export function fuzz(calls: number, seed: number, progress = new FuzzProgress()): FuzzReport {
  return new Fuzzer(seed, progress).run(calls);
}
