/** What no caller should pass: values of every kind that JavaScript lets through where a number or a handle is meant. */
import type { World } from './world.js';

/** Thrown by hostile values themselves: whoever converts them passes it on. */
export class HostileError extends Error {
  override name = 'HostileError';
}

const NUMBERS = [
  Number.NaN,
  -1,
  -0,
  0,
  1,
  7,
  0.5,
  1.5,
  4096.25,
  -4096,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 32 + 8,
  2 ** 53,
  -(2 ** 31),
  -(2 ** 32),
  1e300,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
];

const OTHERS: ReadonlyArray<() => unknown> = [
  () => 1n,
  () => 64n,
  () => -(2n ** 70n),
  () => '',
  () => '64',
  () => 'turn',
  () => '\u0000',
  () => 'x'.repeat(500),
  () => null,
  () => undefined,
  () => true,
  () => false,
  () => Symbol('hostile'),
  () => ({}),
  () => [],
  () => [64],
  () => () => 64,
  () => new Date(64),
  () => new Map(),
  () => Object.create(null),
  () => Object.freeze({ size: 64, name: 'forged', address: 4096, ptr: 4096, primary: {} }),
  () => new Proxy({}, { get: (_, key) => (typeof key === 'symbol' ? undefined : 64) }),
  () => throwingProxy(),
  () => new Proxy(new Int32Array(8), {}),
  () => new SharedArrayBuffer(8),
  () => new ArrayBuffer(64),
  () => new DataView(new ArrayBuffer(8)),
  () => new Uint8Array(64),
  () => new Float64Array(8),
  () => new BigInt64Array(4),
  detached,
  lengthTracking,
  cutOff,
];

function throwingProxy(): unknown {
  const refuse = (): never => {
    throw new HostileError('a trap of the proxy');
  };
  return new Proxy({}, { get: refuse, has: refuse, ownKeys: refuse, getPrototypeOf: refuse });
}

function detached(): Int32Array {
  const list = new Int32Array(16);
  structuredClone(list.buffer, { transfer: [list.buffer] });
  return list;
}

interface Resizable extends ArrayBuffer {
  resize(bytes: number): void;
}
const resizable = (bytes: number, max: number): Resizable =>
  Reflect.construct(ArrayBuffer, [bytes, { maxByteLength: max }]) as Resizable;

/** A view whose length follows its buffer. */
function lengthTracking(): Int32Array {
  return new Int32Array(resizable(64, 4096));
}

/** A view that its buffer no longer reaches. */
function cutOff(): Int32Array {
  const buffer = resizable(4096, 4096);
  const list = new Int32Array(buffer, 2048, 16);
  buffer.resize(64);
  return list;
}

/** Objects that do something in the arena, or say something else, each time they are converted. */
function converting(world: World): unknown {
  const addresses = [...world.live.keys()].slice(0, 4);
  let asked = 0;
  const different = (): number => addresses[asked++ % addresses.length] ?? asked;
  const allocating = (): number => {
    world.sideEffect(() => world.arena.kmalloc(64));
    return 64;
  };
  const throwing = (): number => {
    throw new HostileError('valueOf');
  };
  const convert = world.rng.pick([different, allocating, throwing]);
  return world.rng.chance(50)
    ? { valueOf: convert }
    : { valueOf: convert, toString: () => String(convert()) };
}

/** Near misses of addresses that are good ones; never one that the model does not know the owner of. */
export function badAddress(world: World): unknown {
  const value = nearMiss(world);
  if (typeof value !== 'number' || value % 8 !== 0 || world.live.has(value)) return value;
  const { geometry, u8 } = world.arena;
  const isSomebodys = value % 4096 === 0 || u8[geometry.shadow + (value >> 3)] !== 0;
  return isSomebodys ? value + 4 : value;
}

function nearMiss(world: World): unknown {
  const { rng } = world;
  const p = world.anyAddress();
  switch (rng.below(12)) {
    case 0:
      return p + rng.pick([1, 4, 8, 16, -8, 4096]);
    case 1:
      return p + 2 ** 32;
    case 2:
      return p + 0.5;
    case 3:
      return String(p);
    case 4:
      return BigInt(p);
    case 5:
      return -p;
    case 6:
      return { valueOf: () => p };
    case 7:
      return rng.below(world.arena.geometry.firstPfn * 4096);
    case 8:
      return rng.below(world.arena.geometry.bytes + 8192);
    case 9:
      return rng.below(world.arena.geometry.bytes / 8) * 8;
    case 10:
      return world.freed.length > 0 ? rng.pick(world.freed) : p + 8;
    default:
      return p; // somebody's, but perhaps not of this cache
  }
}

export function hostile(world: World): unknown {
  const { rng } = world;
  switch (rng.below(10)) {
    case 0:
    case 1:
    case 2:
      return rng.pick(NUMBERS);
    case 3:
    case 4:
      return badAddress(world);
    case 5:
      return converting(world);
    case 6:
      return rng.pick(world.forgeries);
    default:
      return rng.pick(OTHERS)();
  }
}

/** For a report: converts nothing. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 24));
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (typeof value !== 'object' || value === null) return String(value);
  try {
    return Object.prototype.toString.call(value);
  } catch {
    return 'a proxy that throws';
  }
}
