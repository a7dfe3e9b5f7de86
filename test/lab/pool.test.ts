import { afterEach, describe, expect, it } from 'vitest';
import { Arena } from '#src/index.js';
import { CpuPool, PoolError } from '#src/lab/pool.js';

const WORKER = new URL('./fixtures/poolWorker.mjs', import.meta.url);
const MIB = 2 ** 20;
const open: CpuPool[] = [];

function openPool(threads: number, waitLimitMs = 5000): CpuPool {
  const arena = Arena.create({ bytes: 8 * MIB, cpus: threads + 1 });
  arena.online({ cpu: threads });
  arena.createCache('pool', { size: 64 });
  const pool = new CpuPool(arena, { threads, filename: WORKER, waitLimitMs });
  open.push(pool);
  return pool;
}

const words = () => new Int32Array(new SharedArrayBuffer(64));

const failureOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (e: unknown) => e,
  );

/** Beyond the end of any test: whoever is not told that it waits in vain, waits too long. */
const FOR_EVER_MS = 3_600_000;

afterEach(async () => {
  await Promise.all(open.splice(0).map((pool) => pool.close()));
});

describe('a pool of CPUs', () => {
  it('runs one task a CPU, on the lowest ranks, with results in their order', async () => {
    const pool = openPool(3);
    for (const threads of [3, 1, 2, 3, 1]) {
      const expected = Array.from({ length: threads }, (_, rank) => ({ rank, threads, cpu: rank }));
      expect(await pool.run({ role: 'who' }, threads)).toEqual(expected);
      expect(pool.arena.onlineCpus).toEqual([3]);
    }
  });

  it('makes what was written before a barrier visible after it', async () => {
    const pool = openPool(3);
    for (let i = 0; i < 20; i++)
      expect(await pool.run({ role: 'meet', words: words() })).toEqual([42, 42, 42]);
  });

  it.each(['barrier', 'word'])(
    'tells those who wait at a %s when one fails, and can be used on',
    async (at) => {
      const pool = openPool(3, FOR_EVER_MS);
      for (const rank of [0, 2]) {
        const error = await failureOf(pool.run({ role: 'fail', rank, at, words: words() }));
        expect(error).toBeInstanceOf(PoolError);
        expect(String(error)).toMatch(/RangeError: failed on purpose\n.*at /);
        expect(pool.arena.onlineCpus).toEqual([3]);
        expect(await pool.run({ role: 'who' })).toHaveLength(3);
      }
      expect(pool.arena.validate()).toEqual([]);
    },
  );

  it('reaps the CPU of a thread that ended, and is of no use afterwards', async () => {
    const pool = openPool(2, FOR_EVER_MS);
    await pool.run({ role: 'who' });
    const error = await failureOf(pool.run({ role: 'die', rank: 1 }));
    expect(error).toBeInstanceOf(PoolError);
    expect(pool.arena.onlineCpus).toEqual([2]);
    expect(pool.arena.validate()).toEqual([]);
    await expect(pool.run({ role: 'who' })).rejects.toThrow(/a thread of the pool died/);
  });

  it('does not wait for ever for one that does not come', async () => {
    // The limit is that of their start as well, which takes its time beside other tests.
    const pool = openPool(2, 1500);
    const error = await failureOf(pool.run({ role: 'absent', rank: 0 }));
    expect(String(error)).toMatch(/one of 2 threads did not come to the barrier within 1500 ms/);
  });

  it('refuses more threads than the arena has CPUs for', () => {
    const arena = Arena.create({ bytes: 8 * MIB, cpus: 2 });
    arena.online();
    expect(() => new CpuPool(arena, { threads: 2, filename: WORKER })).toThrow(
      /threads is 2; .* from 1 to 1/,
    );
  });

  it('says which module did not load', async () => {
    const arena = Arena.create({ bytes: 8 * MIB, cpus: 2 });
    arena.online({ cpu: 1 });
    const pool = new CpuPool(arena, {
      threads: 1,
      filename: new URL('./fixtures/absent.mjs', import.meta.url),
    });
    open.push(pool);
    await expect(pool.run({ role: 'who' })).rejects.toThrow(/absent\.mjs/);
  });
});
