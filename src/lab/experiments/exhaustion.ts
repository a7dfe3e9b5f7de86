/** Memory that runs out, again and again. Kernel: slab_bulk_test04. */
import { LAYERS } from '../../struct/index.js';
import { AN_OPERATION, type Experiment, type Variant } from './experiment.js';

const ABOUT: Readonly<Record<(typeof LAYERS)[number], string>> = {
  sheaves: 'sheaves and barns, which reclaim empties',
  'percpu-array': 'an array per CPU',
  'cpu-slab': 'a slab per CPU, and partial ones',
  none: 'slabs and list_lock only',
};

const withLayer = (layer: (typeof LAYERS)[number]): Variant => ({
  name: layer,
  about: ABOUT[layer],
  stage: { layer },
});

export const exhaustion: Experiment = {
  name: 'exhaustion',
  question:
    'Objects of 1 KiB are allocated by up to 128 until there are none, and freed: is everything given back, and what does it cost?',
  operation: AN_OPERATION,
  seconds: 30,
  threads: [1],
  variants: [
    withLayer('none'),
    ...LAYERS.filter((layer) => layer !== 'none').map(withLayer),
    { name: 'tiny', about: 'small slabs, one object at a time', stage: { tiny: true } },
  ],
  workloads: ['exhaust'],
  replay: false,
  bytes: 8 << 20,
  shows: ['paths', 'memory'],
  expectations: [],
};
