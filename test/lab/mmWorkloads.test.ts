/** The workloads over address spaces: sound on threads, in every layer, and of use of the caches they are about. */
import { describe, expect, it } from 'vitest';
import { Stage } from '#src/lab/stage.js';
import { MM_WORKLOADS } from '#src/lab/workloads/mm.js';

describe.each(['sheaves', 'cpu-slab', 'none'] as const)(
  'workloads over address spaces, layer %s',
  (layer) => {
    it('leave nothing behind', { timeout: 60_000 }, async () => {
      const stage = new Stage({ bytes: 16 << 20, threads: 2, layer });
      for (const { name } of MM_WORKLOADS) {
        for (const threads of layer === 'sheaves' ? [1, 2] : [2]) {
          const { problems, hits } = await stage.runWorkload(name, 200, { threads });
          expect(problems, name).toEqual([]);
          const areas = hits.get('vm_area_struct');
          expect(areas?.calls, name).toBeGreaterThan(0);
          expect(areas!.fast).toBeLessThanOrEqual(areas!.calls);
          if (layer === 'none') expect(areas!.fast).toBe(0);
          if (layer === 'sheaves' && name !== 'brk1') expect(areas!.fast / areas!.calls).toBeGreaterThan(0.9);
        }
      }
      for (const name of ['vm_area_struct', 'mm_struct', 'maple_node']) {
        stage.arena.kfreeRcuBarrier();
        expect(stage.arena.openCache(name).destroy().leaked, name).toBe(0);
      }
      expect(await stage.close()).toEqual([]);
    });
  },
);
