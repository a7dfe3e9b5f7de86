/** What can be attached to, and what an arena's buffer must be for it. */
import { isSharedArrayBuffer } from './plan.js';
import { AttachError, describe, type Geometry, readSuperblock, Superblock } from './struct/index.js';
import { loadAcquire } from './sync/index.js';

/** What a worker needs to attach: plain data that survives postMessage, workerData and piscina tasks. */
export interface ArenaHandle {
  readonly granary: 1;
  readonly buffer: SharedArrayBuffer;
}

/** `booted` of a superblock when the boot is complete. */
export const BOOTED = 1;

/** The buffer that is meant, with its geometry. Throws AttachError that says why it is no arena of this build. */
export function openBuffer(
  handle: ArenaHandle | SharedArrayBuffer,
  abi: number,
): { buffer: SharedArrayBuffer; geometry: Geometry } {
  const buffer = isSharedArrayBuffer(handle) ? handle : (handle as ArenaHandle | null | undefined)?.buffer;
  if (!isSharedArrayBuffer(buffer)) {
    throw new AttachError(`cannot attach to ${describe(handle)}; pass arena.handle or its SharedArrayBuffer`);
  }
  if (buffer.byteLength < Superblock.SIZEOF * 4 || buffer.byteLength % 4096 !== 0) {
    throw new AttachError(`not an arena: a buffer of ${buffer.byteLength} bytes is no multiple of 4096`);
  }
  const m = new Int32Array(buffer);
  // Pairs with the store in Arena.create, and so comes before the geometry is read.
  const booted = loadAcquire(m, Superblock.booted) === BOOTED;
  const geometry = readSuperblock(m, abi);
  if (!booted) {
    throw new AttachError('the arena is still being booted; attach after Arena.create has returned');
  }
  return { buffer, geometry };
}
