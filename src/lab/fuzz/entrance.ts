/** The entrance: what Arena.create, attach and online make of options and handles that are none. */
import { Arena, type ArenaOptions, AttachError } from '../../index.js';
import { Superblock } from '../../struct/index.js';
import type { Rng } from './rng.js';
import { hostile } from './values.js';
import type { World } from './world.js';

const OPTIONS = [
  'bytes',
  'cpus',
  'threads',
  'nodes',
  'maxCaches',
  'lockPolicy',
  'layer',
  'barnFull',
  'barnFullMax',
  'barnEmpty',
  'kmalloc',
  'tiny',
  'refinements',
  'check',
  'lockStat',
  'slabDebug',
  'initOnAlloc',
  'initOnFree',
  'freelistRandom',
  'freelistHardened',
  'quarantine',
  'guard',
  'lockdep',
  'sheafCapacity',
  'merge',
  'caches',
  'hardenedUsercopy',
  'percpu',
  'buffer',
] as const;

/** An arena that is only attached to; one word of its superblock is wrong at a time. */
export class Entrance {
  private readonly rng: Rng;
  private readonly arena: Arena;

  constructor(rng: Rng) {
    this.rng = rng;
    this.arena = Arena.create({ bytes: 1 << 20, cpus: 2, maxCaches: 30 });
  }

  /** One try, whose error is thrown. */
  try(world: World): void {
    switch (this.rng.below(5)) {
      case 0:
        return this.create(world);
      case 1:
        return void Arena.attach(hostile(world) as never);
      case 2:
        return void Arena.attach(this.tiny() as never);
      case 3:
        return this.damaged();
      default:
        return this.online(world);
    }
  }

  private create(world: World): void {
    const options = { bytes: 1 << 20, cpus: 2, maxCaches: 30 } as Record<string, unknown>;
    options[this.rng.pick(OPTIONS)] = hostile(world);
    // What would be taken at its word: gigabytes.
    if (typeof options.bytes === 'number' && options.bytes > 1 << 24) return;
    Arena.create(options as unknown as ArenaOptions);
  }

  /** Shorter than an arena, or one that nobody has booted. */
  private tiny(): unknown {
    const bytes = this.rng.below(Superblock.SIZEOF * 4 + 2);
    const buffer = this.rng.chance(50) ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes);
    return this.rng.chance(50) ? buffer : { granary: 1, buffer };
  }

  private damaged(): void {
    const { i32 } = this.arena;
    // Any word but those before: nobody reads what is at address 0.
    const at = Superblock.bootSheaf + this.rng.below(Superblock.SIZEOF - Superblock.bootSheaf);
    const word = i32[at]!;
    i32[at] = word ^ (1 << this.rng.below(32));
    try {
      Arena.attach(this.arena.handle);
    } finally {
      i32[at] = word;
    }
    throw new AttachError('a damaged superblock was accepted, which the caller counts as a fault');
  }

  private online(world: World): void {
    const arena = Arena.attach(this.arena.buffer);
    arena.online(
      world.rng.pick([{ cpu: hostile(world) }, { thread: hostile(world) }, { tid: hostile(world) }]) as never,
    );
    arena.offline();
    arena.kmalloc(64);
  }
}
