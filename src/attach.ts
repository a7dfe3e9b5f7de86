/** From what another thread passed on to an arena's geometry, or the reason why it cannot be. */
import { checkPlaces, type StaticCache } from './cache/index.js';
import { checkSuperblock } from './checkSuperblock.js';
import { sharesCpus, type WantedSlot } from './cpu/index.js';
import type { ArenaHandle, OnlineOptions } from './handle.js';
import { isSharedArrayBuffer } from './plan.js';
import {
  AttachError,
  abiHash,
  describe,
  type Geometry,
  readSuperblock,
  requireInteger,
  requireKnown,
  requireObject,
  Superblock,
} from './struct/index.js';
import { loadAcquire } from './sync/index.js';

/** What {@link Arena.attach} takes. */
export interface AttachOptions {
  /** The static caches, as this program defines them: what differs from the arena's is an error. Unchecked without. */
  caches?: readonly StaticCache[];
}

const ATTACH_KNOWN = Object.keys({ caches: true } satisfies Record<keyof AttachOptions, true>);
const ONLINE_KNOWN = Object.keys({ cpu: true, thread: true, tid: true } satisfies Record<
  keyof OnlineOptions,
  true
>);

export const BOOTED = 1;

/** Hashed with all struct layouts: what else two threads must agree on. */
export const ABI = 'granary 0.1.0';

/** Throws AttachError, and TypeError for wrong options. */
export function readArena(
  handle: ArenaHandle | SharedArrayBuffer,
  options: AttachOptions,
): { buffer: SharedArrayBuffer; geometry: Geometry } {
  requireObject('options', options);
  requireKnown('options', options, ATTACH_KNOWN);
  const { caches } = options;
  const buffer = bufferOf(handle);
  if (buffer.byteLength < Superblock.SIZEOF * 4 || buffer.byteLength % 4096 !== 0) {
    throw new AttachError(
      `not an arena: a buffer of ${buffer.byteLength} bytes; an arena is a multiple of 4096, and not empty`,
    );
  }
  const m = new Int32Array(buffer);
  // Pairs with the store in Arena.create, and so comes before the geometry is read.
  const booted = loadAcquire(m, Superblock.booted) === BOOTED;
  const geometry = readSuperblock(m, abiHash(ABI));
  if (!booted) {
    throw new AttachError('the arena is still being booted; attach after Arena.create has returned');
  }
  checkSuperblock(m, geometry);
  if (caches !== undefined) checkPlaces(m, geometry, caches);
  return { buffer, geometry };
}

/** Of an arena's handle, or of what comes in place of one. */
function bufferOf(handle: ArenaHandle | SharedArrayBuffer): SharedArrayBuffer {
  if (isSharedArrayBuffer(handle)) return handle;
  const { granary, buffer } = (handle as Partial<ArenaHandle> | null | undefined) ?? {};
  if (isSharedArrayBuffer(buffer) && granary === 1) return buffer;
  const why = isSharedArrayBuffer(buffer) ? `, whose granary is ${describe(granary)} and not 1` : '';
  throw new AttachError(
    `cannot attach to ${describe(handle)}${why}; pass arena.handle or its SharedArrayBuffer`,
  );
}

/** Which slot a thread asks for. Throws RangeError or TypeError that names the option. */
export function checkOnline(options: OnlineOptions, geometry: Geometry): { wanted: WantedSlot; tid: number } {
  requireObject('options', options);
  requireKnown('options', options, ONLINE_KNOWN);
  const { cpu, thread, tid = 0 } = options;
  if (cpu !== undefined) requireInteger('cpu', cpu, 0, geometry.cpus - 1);
  if (thread !== undefined) requireInteger('thread', thread, 0, geometry.threads - 1);
  if ((thread ?? cpu) !== (cpu ?? thread) && !sharesCpus(geometry)) {
    throw new RangeError(
      `thread is ${thread}; it must be the same as cpu, ${cpu}, unless threads share CPUs`,
    );
  }
  requireInteger('tid', tid, -0x80000000, 0x7fffffff);
  return { wanted: { cpu, thread }, tid };
}
