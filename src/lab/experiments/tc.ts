/** Percpu memory of tc_action: three areas each, by themselves or by a constructor. Seed 001, patch 4. */
import { ownerName } from '../workloads/percpu.js';
import type { Experiment } from './experiment.js';

const SECOND = 1e9;

export const tc: Experiment = {
  name: 'tc',
  question:
    'A tc_action owns three percpu areas. What does it save when a constructor takes them, and what becomes of pcpu_alloc_mutex?',
  operation: 'a tc_action from insertion to removal',
  seconds: 40,
  threads: [1, 2, 4, 8],
  variants: [
    {
      name: 'plain',
      about: 'three percpu areas taken and given back with each tc_action',
      stage: {},
      workload: () => ownerName('tc', 'plain'),
    },
    {
      name: 'ctor/dtor',
      about: 'by constructor when the slab is made, back when the slab goes',
      stage: {},
      workload: () => ownerName('tc', 'ctor'),
    },
  ],
  workloads: ['tc_action'],
  replay: false,
  shows: ['locks', 'perf-lock', 'memory'],
  lockNames: ['pcpu_alloc_mutex', 'pcpu_lock'],
  expectations: [
    {
      source: 'seed 001, patch 4',
      text: 'constructors that keep the percpu memory take less time',
      variant: 'ctor/dtor',
      outcome: 'better',
    },
  ],
  published: {
    source: 'Yoo, seed 001: system time of tdc.py -f tc-tests/filters/flower.json -26 %',
    titles: ['system time'],
    rows: [{ workload: 'tc_action', variant: 'ctor/dtor', gains: [0.26] }],
  },
  publishedLocks: [
    {
      title: 'before, as published in seed 001 for tc-testing; the first lock has no name there',
      locks: [
        {
          name: '',
          acquisitions: 15_042_346,
          contentions: 15_042_346,
          waitTotalNs: 57.4 * SECOND,
          waitMaxNs: 4e6,
          waitMinNs: 316,
        },
        {
          name: 'pcpu_alloc_mutex',
          acquisitions: 10_959_650,
          contentions: 10_959_650,
          waitTotalNs: 10_959_650 * 7.1e3,
          waitMaxNs: 3.76e6,
          waitMinNs: 313,
        },
      ],
    },
    {
      title: 'after; the maximum of the first is an overflow and left out here',
      locks: [
        {
          name: '',
          acquisitions: 15_488_031,
          contentions: 15_488_031,
          waitTotalNs: 15_488_031 * 5.16e3,
          waitMaxNs: 0,
          waitMinNs: 316,
        },
        {
          name: 'pcpu_alloc_mutex',
          acquisitions: 7_695_276,
          contentions: 7_695_276,
          waitTotalNs: 26.07 * SECOND,
          waitMaxNs: 4.03e6,
          waitMinNs: 284,
        },
      ],
    },
  ],
};
