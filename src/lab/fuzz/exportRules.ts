/** The functions that the package exports. */
import * as granary from '../../index.js';
import * as A from './args.js';
import { call, type Rules, type Surface } from './rule.js';

const rows = (world: { arena: granary.Arena }) => world.arena.lockStat();

const STRUCT = granary.structOf('fuzz', { x: 'u32', y: 'f64' });

/** Definitions are for the life of a thread. */
let defined = 0;

const rules: Rules = {
  arrayOf: call([() => 'u32', () => 4]),
  attributeFiles: call(),
  defineCache: call([() => `defined${defined++}`, () => ({ size: 64 })]),
  formatTraces: call([() => []]),
  joinHandle: call([() => 7, () => 1]),
  kmemCacheSetup: call([() => STRUCT, () => 0]),
  kmemCacheSetupUsercopy: call([() => STRUCT, () => 0, () => 'x']),
  lockStatText: call([rows]),
  perfLockContention: call([rows]),
  perfLockReport: call([rows]),
  slabinfoTool: call([(world) => world.arena.cacheInfo()]),
  splitHandle: call([() => 2 ** 33]),
  structOf: call([A.name, () => ({ x: 'u32' })]),
  textOf: call([() => 16]),
};

const CONSTRUCTORS = [
  'AttachError',
  'CacheDefinitionError',
  'ConstructorError',
  'CpuError',
  'GranaryError',
  'LockError',
  'LockdepError',
  'OutOfMemoryError',
  'RcuStallError',
  'SlabBugError',
];
const MADE_BY = [
  'DefinedCache',
  'KmallocSite',
  'KmemBuckets',
  'KmemCache',
  'MemoryGroup',
  'PrefilledSheaf',
  'Rcu',
];

/** A bundler makes getters of what is exported. */
const FUNCTIONS = Object.fromEntries(
  Object.entries(granary).filter(([, value]) => typeof value === 'function'),
);

export const EXPORTS: Surface = {
  name: 'granary',
  pick: () => FUNCTIONS,
  weight: 4,
  rules,
  internal: '',
  elsewhere: {
    Arena: 'create and attach are the entrance`s',
    SlabObjects: 'made by constructors of slabs',
    ...Object.fromEntries(CONSTRUCTORS.map((name) => [name, 'an error, which users do not make'])),
    ...Object.fromEntries(MADE_BY.map((name) => [name, 'a class whose objects are surfaces of their own'])),
  },
};
