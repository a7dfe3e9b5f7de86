/**
 * Kills at known places: a thread is stopped at each moment at which it takes or gives up a lock, one after the other,
 * and terminated there. In a critical section, or with an intent on record, the reaper says so. Everywhere else an
 * operation that was under way may be lost as a whole, but nothing that it had in hand.
 */

import { beforeAll, describe, expect, it } from 'vitest';
import type { Arena, Finding, LockPolicy, ReapReport } from '#src/index.js';
import { Control } from '#workers/litmus/control.js';
import { boot, LONG, secondCpu } from '../cache/support/arena.js';
import { launch, until } from '../litmus/support/team.js';

const PHASES = [
  'single allocations',
  'single frees',
  'a bulk allocation',
  'a bulk free',
  'borrowing of sheaves',
  'refills of borrowed sheaves',
  'returns of borrowed sheaves',
];
const STOPPED = 1;

interface Death {
  at: number;
  reported: boolean;
  findings: Finding[];
  /** What the next thread in the slot met, if no lock died with the last one. */
  heir: string;
}

/** The next thread of the slot, and a survivor, use the cache: nobody may get what is no object, or another's. */
function useAfter(arena: Arena): string {
  const held: number[] = [];
  const heir = secondCpu(arena, 1);
  try {
    const caches = [heir, arena].map((each) => each.openCache('c'));
    for (const cache of caches) for (let i = 0; i < 20; i++) held.push(cache.alloc());
    if (new Set(held).size !== held.length) return 'an object was handed out twice';
    for (const [i, p] of held.entries()) caches[i % 2]!.free(p);
    for (const size of [32, 64, 256]) arena.kfree(heir.kmalloc(size));
    heir.offline();
    arena.openCache('c').shrink();
  } catch (error) {
    return String(error);
  }
  // What was lost stays lost, a slab that was being made or discarded among it (I11); nothing more may go wrong.
  const lost = ['I10', 'I11', 'I22'];
  return kindsOf(arena.validate().filter(({ invariant }) => !lost.includes(invariant))).join(' ');
}

const kindsOf = (findings: Finding[]): string[] =>
  [...new Set(findings.map(({ invariant }) => invariant))].sort();

async function killAt(lockPolicy: LockPolicy, phase: number, at: number): Promise<Death | undefined> {
  const arena = boot({ cpus: 2, lockPolicy, bytes: 2 << 20, maxCaches: 24 });
  arena.createCache('c', { size: 4096 });
  const control = new Control();
  const { worker, exited } = launch('stopAt', { control, handle: arena.handle, args: { cpu: 1, phase, at } });
  await until(() => control.get(0) !== 0);
  const stopped = control.get(0) === STOPPED;
  await worker.terminate();
  await exited;
  if (!stopped) return undefined;
  let report: ReapReport | undefined;
  try {
    report = arena.cpuDead(1);
  } catch {
    return { at, reported: true, findings: [], heir: '' };
  }
  const reported = report.heldLocks.length > 0 || report.notes.length > 0;
  const findings = arena.validate();
  return { at, reported, findings, heir: report.heldLocks.length > 0 ? '' : useAfter(arena) };
}

/** GRANARY_LONG=1 stops at each moment under both policies; otherwise at one of ten, not the same ones. */
const STRIDE = LONG ? 1 : 10;
const BATCH = LONG ? 4 : 2;

async function sweep(lockPolicy: LockPolicy, phase: number): Promise<Death[]> {
  const deaths: Death[] = [];
  const first = STRIDE > 1 && lockPolicy === 'op' ? 3 : 1;
  for (let at = first; ; at += BATCH * STRIDE) {
    const batch = await Promise.all(
      Array.from({ length: BATCH }, (_, i) => killAt(lockPolicy, phase, at + i * STRIDE)),
    );
    const found = batch.filter((death) => death !== undefined);
    deaths.push(...found);
    if (found.length < BATCH) return deaths;
  }
}

const CASES = (['turn', 'op'] as LockPolicy[]).flatMap((lockPolicy) =>
  PHASES.map((name, phase) => ({ lockPolicy, phase, name })),
);

describe.each(CASES)('killed in $name, policy $lockPolicy', ({ lockPolicy, phase, name }) => {
  let deaths: Death[] = [];
  beforeAll(async () => {
    deaths = await sweep(lockPolicy, phase);
    const reported = deaths.filter((death) => death.reported).length;
    const silent = deaths.filter((death) => !death.reported && death.findings.length > 0).length;
    console.log(
      `${lockPolicy}, ${name}: ${deaths.length} moments, ${reported} reported, ${silent} silent losses`,
    );
  });

  /** Moments without a report, at which such invariants are violated afterwards. */
  const silent = (isMeant: (invariant: string) => boolean): string[] =>
    deaths
      .filter(({ reported }) => !reported)
      .map(({ at, findings }) => ({ at, kinds: kindsOf(findings).filter(isMeant) }))
      .filter(({ kinds }) => kinds.length > 0)
      .map(({ at, kinds }) => `moment ${at}: ${kinds.join(' ')}`);

  it('no object is in two places', () => {
    expect(deaths.length).toBeGreaterThan(0);
    expect(silent((invariant) => invariant === 'I13')).toEqual([]);
  });

  it('every sheaf is in one place, every slab and every count as it should be', () => {
    expect(silent((invariant) => invariant !== 'I10' && invariant !== 'I13')).toEqual([]);
  });

  it('the next thread of the slot, and the others, get sound memory', () => {
    expect(deaths.filter(({ heir }) => heir !== '').map(({ at, heir }) => `moment ${at}: ${heir}`)).toEqual(
      [],
    );
  });

  it('no object that was in hand is lost without a word', () => {
    expect(silent((invariant) => invariant === 'I10')).toEqual([]);
  });
});
