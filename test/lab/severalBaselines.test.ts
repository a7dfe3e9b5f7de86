import { describe, expect, it } from 'vitest';
import { costMarkdown } from '#src/lab/experiments/costs.js';
import { experimentNamed, runExperiment } from '#src/lab/experiments/index.js';
import { experimentReport } from '#src/lab/experiments/report.js';

const LEAST = { quick: true, rounds: 2, seconds: 0.2, threads: [1], workloads: /^pair$/ };

describe('an experiment with several baselines', () => {
  it('compares each variant with its own, and has one table of it all', async () => {
    const hardening = experimentNamed('hardening-cost');
    const names = ['plain', 'handles', 'fields', 'usercopy', 'all, handles', 'kmalloc', 'copies'];
    const variants = hardening.variants.filter(({ name }) => names.includes(name));
    const result = await runExperiment({ ...hardening, variants }, LEAST);
    expect(result.sound).toBe(true);
    expect(result.variants.map(({ name, against }) => [name, against])).toEqual([
      ['plain', null],
      ['handles', 'plain'],
      ['fields', null],
      ['usercopy', 'fields'],
      ['all, handles', 'fields'],
      ['kmalloc', null],
      ['copies', 'kmalloc'],
    ]);
    const row = (name: string) => result.rows.find(({ variant }) => variant === name)!;
    for (const [name, base] of [
      ['usercopy', 'fields'],
      ['copies', 'kmalloc'],
      ['fields again', 'fields'],
    ] as const) {
      const ratios = row(name).nsPerOp.map((ns, round) => ns / row(base).nsPerOp[round]!);
      expect(row(name).ratio!.estimate).toBeCloseTo((ratios[0]! + ratios[1]!) / 2);
    }
    const text = experimentReport(result);
    expect(text).toContain('The baseline of usercopy and all, handles is fields.\n');
    expect(text).toMatch(/^usercopy +fields +~\d/m);
    const markdown = costMarkdown(result).split('\n');
    expect(markdown).toHaveLength(2 + variants.length);
    expect(markdown[0]).toBe('| option | against | pair | what it is for |');
    expect(markdown[2]).toMatch(/^\| plain \| {2}\| \d+\.\d ns \| objects by address, /);
    expect(markdown[8]).toMatch(
      /^\| copies \| kmalloc \| ~\d+\.\d\d \(\d+\.\d\d\.\.\d+\.\d\d\) \| 15 copies/,
    );
  });
});
