/** More threads than CPUs: which arenas may have them, and which slot a thread gets. */

import { describe, expect, it } from 'vitest';
import { countersOf, Pcs, PERCPU_BLOCK_WORDS, pcsOf, threadRecordOf } from '#src/cpu/index.js';
import { Arena, CpuError, THREADS_MAX } from '#src/index.js';
import { ownerThread } from '#src/sync/index.js';
import { boot, expectRefused, expectSound, MiB } from '../cache/support/arena.js';

const OP = { lockPolicy: 'op', cpus: 2, threads: 8 } as const;

/** Another thread slot, driven from this thread. */
function join(arena: Arena, options: Parameters<Arena['online']>[0] = {}): Arena {
  const other = Arena.attach(arena.handle);
  other.online(options);
  return other;
}
const slotsOf = (arena: Arena): [thread: number, cpu: number] => [arena.cpu.thread, arena.cpu.id];

describe('the option threads', () => {
  it('is as many as cpus by default, and lays the arena out as ever', () => {
    const [without, same] = [{}, { threads: 4 }].map((more) =>
      Arena.create({ bytes: 8 * MiB, cpus: 4, kmalloc: { seed: 1 }, ...more }),
    );
    expect(without!.geometry.threads).toBe(4);
    expect(same!.geometry).toEqual(without!.geometry);
  });

  it.each([
    [{ cpus: 4, threads: 3 }, /threads is 3; it must be an integer from 4 to 1024/],
    [{ cpus: 2, threads: THREADS_MAX + 1 }, /threads is 1025; it must be an integer from 2 to 1024/],
    [{ cpus: 2, threads: 2.5 }, /threads is 2\.5; it must be an integer/],
    [
      { cpus: 2, threads: 3, lockPolicy: 'turn' as const },
      /^threads is 3, more than cpus, 2, and lockPolicy is 'turn', .*only with lockPolicy 'op'$/,
    ],
    [{ cpus: 2, threads: 3 }, /lockPolicy is 'turn'/],
    [{ ...OP, threads: 1000, bytes: MiB }, /with cpus 2, threads 1000, nodes 1 .* it must be at least \d+/],
  ])('refuses %j', (options, message) => {
    expect(() => Arena.create({ bytes: 8 * MiB, ...options })).toThrow(RangeError);
    expect(() => Arena.create({ bytes: 8 * MiB, ...options })).toThrow(message);
  });

  it('refuses what is no number', () => {
    expect(() => Arena.create({ bytes: 8 * MiB, ...OP, threads: '8' as never })).toThrow(TypeError);
  });

  it('gives each thread a record and counters of its own', () => {
    const { geometry } = boot(OP);
    const records = Array.from({ length: 8 }, (_, thread) => threadRecordOf(geometry, thread));
    const counters = Array.from({ length: 8 }, (_, thread) => countersOf(geometry, thread, 3));
    expect(new Set(records).size).toBe(8);
    expect(new Set(counters).size).toBe(8);
    const end = geometry.percpu + 8 * geometry.maxCaches * PERCPU_BLOCK_WORDS;
    expect(Math.max(...counters) * 2).toBeLessThan(end);
    expect(end).toBeLessThanOrEqual(geometry.memmap);
  });
});

describe('a thread slot', () => {
  it('t runs on CPU t % cpus, and is the lowest free one', () => {
    const arena = boot(OP);
    const others = Array.from({ length: 7 }, () => join(arena));
    expect([arena, ...others].map(slotsOf)).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((t) => [t, t % 2]));
    expect(arena.onlineThreads).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(arena.onlineCpus).toEqual([0, 1]);
    for (const other of others) other.offline();
    expect(arena.onlineThreads).toEqual([0]);
    expect(arena.onlineCpus).toEqual([0]);
    expectSound(arena);
  });

  it('belongs to the node of its CPU', () => {
    const arena = boot({ ...OP, nodes: 2, bytes: 16 * MiB });
    expect(Array.from({ length: 5 }, () => join(arena).cpu.node)).toEqual([1, 0, 1, 0, 1]);
  });

  it('is one of the wanted CPU, or when those are taken, any: its thread runs there all the same', () => {
    const arena = boot({ ...OP, threads: 5 });
    expect(slotsOf(join(arena, { cpu: 0 }))).toEqual([2, 0]);
    expect(slotsOf(join(arena, { cpu: 0 }))).toEqual([4, 0]);
    const guest = join(arena, { cpu: 0 });
    expect(slotsOf(guest)).toEqual([1, 0]);
    expect(arena.onlineCpus).toEqual([0]);
    guest.offline();
    expect(slotsOf(join(arena, { thread: 3 }))).toEqual([3, 1]);
    expect(slotsOf(join(arena, { thread: 1, cpu: 0 }))).toEqual([1, 0]);
    expectSound(arena);
  });

  it('may be taken, as may all: the error names the slot, or the number of them', () => {
    const arena = boot({ ...OP, threads: 3 });
    const taken = /thread slot 0 is taken; omit `thread` to get a free one/;
    const late = Arena.attach(arena.handle);
    expectRefused(arena, () => late.online({ thread: 0 }), CpuError, taken);
    join(arena);
    join(arena);
    for (const options of [{}, { cpu: 0 }, { cpu: 1 }]) {
      const all =
        /all 3 thread slots of 2 CPUs are taken; make the arena with more `threads`, or call offline\(\)/;
      expectRefused(arena, () => late.online(options), CpuError, all);
    }
  });

  it('is a number that exists', () => {
    const arena = boot(OP);
    const late = Arena.attach(arena.handle);
    expectRefused(arena, () => late.online({ thread: 8 }), RangeError, /thread is 8; .* from 0 to 7/);
    expectRefused(arena, () => late.online({ cpu: 2 }), RangeError, /cpu is 2; .* from 0 to 1/);
    expectRefused(arena, () => arena.cpuDead(8), RangeError, /thread is 8; .* from 0 to 7/);
    expectRefused(arena, () => arena.cpuDead(0), CpuError, /thread slot 0 is this thread; call offline\(\)/);
    expectRefused(arena, () => arena.cpuDead(5), CpuError, /thread slot 5 has no thread/);
  });

  it('is the CPU itself where each CPU has one', () => {
    const arena = boot({ lockPolicy: 'op', cpus: 3 });
    const late = Arena.attach(arena.handle);
    const message = /thread is 2; it must be the same as cpu, 1, unless threads share CPUs/;
    expectRefused(arena, () => late.online({ cpu: 1, thread: 2 }), RangeError, message);
    expect(slotsOf(join(arena, { thread: 2 }))).toEqual([2, 2]);
    expect(slotsOf(join(arena, { cpu: 1, thread: 1 }))).toEqual([1, 1]);
  });
});

it('a pcs lock names the thread, not the CPU', () => {
  const arena = boot(OP);
  const cache = arena.createCache('c', { size: 64 });
  const other = join(arena, { thread: 6 });
  const lock = pcsOf(arena.geometry, 0, cache.desc.slot) + Pcs.lock;
  const seen: number[] = [];
  const { locks } = other.cpu;
  locks.noteTry = () => {
    seen.push(ownerThread(arena.i32[lock]!));
  };
  other.openCache('c').alloc();
  expect(seen[0]).toBe(6);
  expect(arena.i32[lock]).toBe(0);
});
