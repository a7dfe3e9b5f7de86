/** Replays in which what the kernel freed in contexts of its own is freed by kfree_rcu. */
import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { HIT_RATE_LAYERS, hitRates, hitRateText, SHEAF_CACHES } from '#src/lab/hitRates.js';
import { replayTrace } from '#src/lab/replay.js';
import { SHIPPED_TRACE } from '#src/lab/study/plan.js';
import {
  compileTrace,
  compileTraceText,
  OP_FREE,
  OP_KMALLOC,
  OP_RCU,
  OP_WORDS,
} from '#src/lab/trace/index.js';
import { LONG } from '../cache/support/arena.js';

/** Further traces: a directory of them in GRANARY_TRACES. */
const directory = process.env.GRANARY_TRACES;
const further =
  directory === undefined
    ? []
    : readdirSync(directory)
        .filter((name) => name.endsWith('.ftrace.txt.gz'))
        .map((name) => join(directory, name));

const by = (comm: string, rest: string): string => `  ${comm}-7 [1] ..s1. 1.5: ${rest}\n`;
const ALLOC = 'kmem_cache_alloc: call_site=f ptr=10 name=vma bytes_req=32 bytes_alloc=32';
const KMALLOC = 'kmalloc: call_site=f ptr=20 bytes_req=64 bytes_alloc=64';
const FREE = 'kmem_cache_free: call_site=f ptr=10 name=vma';
const KFREE = 'kfree: call_site=f ptr=20';
const TEXT = [
  by('sh', ALLOC),
  by('sh', KMALLOC),
  by('kthread', FREE),
  by('kthread', KFREE),
  by('sh', ALLOC),
  by('sh', KMALLOC),
  by('sh', FREE),
  by('my-kthread', KFREE),
].join('');

const opsOf = (kthreadRcu: boolean): number[] => {
  const [words] = compileTraceText(TEXT, { cpus: 1, kthreadRcu }).ops;
  return [...words!].filter((_, i) => i % OP_WORDS === 0).map((op) => op & (OP_FREE | OP_KMALLOC | OP_RCU));
};

describe('a compiled trace', () => {
  it('says how to free, and counts whose frees they were', () => {
    const K = OP_KMALLOC;
    expect(opsOf(false)).toEqual([0, K, OP_FREE, OP_FREE | K, 0, K, OP_FREE, OP_FREE | K]);
    expect(opsOf(true)).toEqual([0, K, OP_FREE | OP_RCU, OP_FREE | OP_RCU | K, 0, K, OP_FREE, OP_FREE | K]);
    expect(compileTraceText(TEXT, { cpus: 1 }).summary).toMatchObject({ kthreadFrees: 2, rcuFrees: 0 });
    expect(compileTraceText(TEXT, { cpus: 1, kthreadRcu: true }).summary).toMatchObject({ rcuFrees: 2 });
  });

  it.each([SHIPPED_TRACE, ...further])('has such frees: %s', async (file) => {
    const { summary } = await compileTrace(file, { cpus: 2, kthreadRcu: true });
    expect(summary.rcuFrees).toBeGreaterThan(500);
    expect(summary.rcuFrees).toBe(summary.kthreadFrees);
    expect(summary.rcuFrees).toBeLessThan(summary.frees / 2);
  });
});

describe.each([SHIPPED_TRACE, ...further])('%s', (file) => {
  // With two nodes, objects of the other one go past the sheaves.
  it('ends in the same state by kfree_rcu as without', { timeout: 120_000 }, async () => {
    const options = { cpus: 2, nodes: 2, rounds: 1 };
    const plain = await replayTrace(file, options);
    const rcu = await replayTrace(file, { ...options, kthreadRcu: true });
    expect(rcu.problems).toEqual([]);
    expect(rcu.findings).toEqual([]);
    expect(rcu.rcuFrees).toBe(rcu.kthreadFrees);
    expect(plain.rcuFrees).toBe(0);
    for (const key of [
      'replayedAllocs',
      'replayedFrees',
      'freedAtEnd',
      'lost',
      'cookieErrors',
      'failures',
    ] as const)
      expect([key, rcu[key]]).toEqual([key, plain[key]]);
    expect(rcu.memory.objectsAfter).toEqual(plain.memory.objectsAfter);
    expect(rcu.memory.objectsAfter).toEqual(rcu.memory.objectsBefore);
  });
});

describe('hit rates', () => {
  it.each(LONG ? [false, true] : [true])(
    'of the caches that have sheaves, with and without them, kfree_rcu %s',
    async (kthreadRcu) => {
      const rates = await hitRates(SHIPPED_TRACE, { kthreadRcu, passes: 1 });
      expect(rates.map(({ cache, layer }) => [cache, layer])).toEqual(
        SHEAF_CACHES.flatMap((cache) => HIT_RATE_LAYERS.map((layer) => [cache, layer])),
      );
      for (const cache of SHEAF_CACHES) {
        const [sheaves, , none] = rates.filter((rate) => rate.cache === cache);
        expect(sheaves!.allocs).toBe(none!.allocs);
        expect(sheaves!.allocs).toBeGreaterThan(100);
        expect(none!.allocsFast).toBe(0);
        expect(sheaves!.allocsFast).toBeGreaterThan(sheaves!.allocs * 0.9);
        expect(sheaves!.fromSlabs).toBeLessThan(none!.fromSlabs);
        if (!kthreadRcu) expect(sheaves!.rcuSheafFrees).toBe(0);
      }
      const text = hitRateText('t', rates);
      expect(text).toMatch(/vm_area_struct +sheaves +\d+ +\d+\.\d/);
      expect(text).not.toMatch(/NaN|undefined/);
    },
  );

  it('of a trace without these caches are none', async () => {
    expect(hitRateText('t', [])).toContain('the trace has no vm_area_struct and no maple_node');
    expect(basename(SHIPPED_TRACE)).toBe('git.ftrace.txt.gz');
  });
});
