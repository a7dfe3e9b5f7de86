/**
 * The stress: more threads than cores, threads that vanish, memory that runs out. A sixth of the configurations, by the
 * seed; CI runs a minute of all. GRANARY_STRESS_SECONDS=60 does that here, GRANARY_SEED chooses another run.
 */

import { setPriority } from 'node:os';
import { describe, expect, it } from 'vitest';
import { STRESS_CONFIGS, stressName, stressRound } from '#src/lab/stress/stress.js';

const SEED = Number(process.env.GRANARY_SEED ?? Math.floor(Math.random() * 2 ** 31));
const THREADS = 8;
const asked = process.env.GRANARY_STRESS_SECONDS;
const CONFIGS = STRESS_CONFIGS.filter((_, i) => asked !== undefined || i % 6 === SEED % 6);
const SECONDS = Number(asked ?? 2 * CONFIGS.length);
// Other tests run beside it: eight threads would leave them too little.
setPriority(10);

describe(`stress, seed ${SEED}`, () => {
  for (const [i, config] of CONFIGS.entries()) {
    const { bytes } = config;
    it(
      `loses nothing: ${stressName(config)}`,
      async () => {
        const result = await stressRound(config, THREADS, SEED + i, SECONDS / CONFIGS.length);
        expect(result.problems).toEqual([]);
        // A stress that did nothing would find nothing.
        expect(result.lives).toBeGreaterThanOrEqual(THREADS);
        expect(result.counts.allocs).toBeGreaterThan(1_000);
        expect(result.counts.transfers).toBeGreaterThan(100);
        // In a few seconds beside other tests an arena need not fill up.
        if (asked !== undefined && bytes < 64 << 20) expect(result.counts.outOfMemory).toBeGreaterThan(0);
      },
      (SECONDS / CONFIGS.length + 60) * 1000,
    );
  }
});
