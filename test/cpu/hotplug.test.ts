/** Threads that are gone without a word: a survivor flushes their slot, and somebody else may have it. */

import { describe, expect, it } from 'vitest';
import { Pcs, pcsOf } from '#src/cpu/index.js';
import { type Arena, CpuError, type Finding, type LockPolicy, type ReapReport } from '#src/index.js';
import { ownerWord } from '#src/sync/index.js';
import { Control } from '#workers/litmus/control.js';
import {
  allocMany,
  boot,
  expectSound,
  freeMany,
  LONG,
  secondCpu,
  sheafSizes,
} from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';

const POLICIES: LockPolicy[] = ['turn', 'op'];

describe.each(POLICIES)('a thread that ends without offline, policy %s', (lockPolicy) => {
  const setup = () => {
    const arena = boot({ cpus: 2, lockPolicy });
    return { arena, cache: arena.createCache('c', { size: 192 }), control: new Control() };
  };
  const end = async (arena: Arena, control: Control, how: string) => {
    const args = { cpu: 1, n: 50, freed: 20, how };
    const member = launch<number[]>('leave', { control, handle: arena.handle, args });
    const code = await member.exited;
    return { code, held: await member.result.catch(() => []) };
  };

  it.each([
    ['exit', 7],
    ['throw', 1],
    ['return', 0],
  ])('by %s: its sheaves are flushed, its objects stay', async (how, code) => {
    const { arena, cache, control } = setup();
    expect(await end(arena, control, how)).toMatchObject({ code });
    expect(arena.onlineCpus).toEqual([0, 1]);
    expect(arena.cpuDead(1)).toEqual({ cpu: 1, heldLocks: [], notes: [] });
    expect(arena.onlineCpus).toEqual([0]);
    expectSound(arena);
    expect(sheafSizes(arena, cache, 1)).toEqual({ main: 0, spare: null });
    expect(cache.stats()).toMatchObject({
      ALLOC_FASTPATH: 50,
      FREE_FASTPATH: 20,
      ALLOC_SLOWPATH: 0,
      FREE_SLOWPATH: 0,
    });
    expect(cache.destroy().leaked).toBe(30);
    expectSound(arena);
  });

  it('leaves a slot that another thread can take, with every lock of it free', async () => {
    const { arena, cache, control } = setup();
    const { held } = await end(arena, control, 'return');
    expect(held).toHaveLength(30);
    arena.cpuDead(1);
    const heir = secondCpu(arena, 1);
    for (const name of arena.cacheNames()) {
      const { slot } = arena.openCache(name).desc;
      expect(arena.i32[pcsOf(arena.geometry, 1, slot) + Pcs.lock], name).toBe(0);
    }
    const theirs = heir.openCache('c');
    freeMany(theirs, [...held, ...allocMany(theirs, 100)]);
    heir.offline();
    expect(cache.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it('is dead once', async () => {
    const { arena, control } = setup();
    await end(arena, control, 'exit');
    arena.cpuDead(1);
    expect(() => arena.cpuDead(1)).toThrow(CpuError);
    expect(() => arena.cpuDead(1)).toThrow(/CPU 1 has no thread/);
  });

  it('blocks nobody before it is reaped: shrink skips what it still holds', async () => {
    const { arena, cache, control } = setup();
    await end(arena, control, 'exit');
    const { skippedCpus } = cache.shrink();
    expect(skippedCpus).toEqual(lockPolicy === 'turn' ? [1] : []);
    arena.cpuDead(1);
    expect(cache.shrink().skippedCpus).toEqual([]);
    expectSound(arena);
  });

  it('may have asked for the sheaves of another: that wish dies with it', async () => {
    const { arena, cache, control } = setup();
    await end(arena, control, 'exit');
    const word = pcsOf(arena.geometry, 0, cache.desc.slot) + Pcs.request;
    arena.i32[word] = ownerWord(1, 1);
    arena.cpuDead(1);
    expect(arena.i32[word]).toBe(0);
  });
});

const KILLS = LONG ? 20 : 5;

interface Death {
  report: ReapReport | undefined;
  /** Why the slot could not be reaped. */
  refused: string;
  findings: Finding[];
}

/** What is left when a CPU's thread has been killed. */
function reap(arena: Arena, cpu: number): Death {
  let report: ReapReport | undefined;
  let refused = '';
  try {
    report = arena.cpuDead(cpu);
  } catch (error) {
    refused = (error as Error).message;
  }
  return { report, refused, findings: refused === '' ? arena.validate() : [] };
}

const isReported = ({ report, refused }: Death): boolean =>
  refused !== '' || report!.heldLocks.length > 0 || report!.notes.length > 0;

const kindsOf = ({ findings }: Death): string =>
  [...new Set(findings.map(({ invariant }) => invariant))].sort().join(' ') || 'nothing';

function tally(title: string, deaths: Death[]): void {
  const counts = new Map<string, number>();
  for (const death of deaths) {
    const key = `${isReported(death) ? 'reported' : 'silent'}, findings: ${kindsOf(death)}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const lines = [...counts].sort().map(([key, n]) => `  ${String(n).padStart(3)} ${key}`);
  console.log(`${title}: ${deaths.length} kills\n${lines.join('\n')}`);
}

describe.each(POLICIES)('a thread that is killed at a random moment, policy %s', (lockPolicy) => {
  it('leaves no object in two places, and its slot is free again unless it says why not', async () => {
    const deaths: Death[] = [];
    for (let i = 0; i < KILLS; i++) {
      const arena = boot({ cpus: 2, lockPolicy, bytes: 4 << 20 });
      arena.createCache('c', { size: 256 });
      arena.createCache('d', { size: 4096 });
      const control = new Control();
      const { worker, exited } = launch('churn', {
        control,
        handle: arena.handle,
        args: { cpu: 1, seed: i + 1 },
      });
      await until(() => control.get(0) > (i * 997) % 5000);
      await worker.terminate();
      await exited;
      const death = reap(arena, 1);
      deaths.push(death);
      expect(death.findings.filter(({ invariant }) => invariant === 'I13')).toEqual([]);
      // What else may be left is in killSweep.test.ts, moment by moment.
      if (isReported(death) || death.findings.some(({ invariant }) => invariant !== 'I10')) continue;
      expect(arena.onlineCpus).toEqual([0]);
      const heir = secondCpu(arena, 1);
      const theirs = heir.openCache('c');
      freeMany(theirs, allocMany(theirs, 300));
      heir.offline();
    }
    tally(`policy ${lockPolicy}, at random`, deaths);
    expect(deaths).toHaveLength(KILLS);
  });
});
