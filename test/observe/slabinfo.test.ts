import { describe, expect, it } from 'vitest';
import { SLAB_CACHE_DMA, SLAB_HWCACHE_ALIGN, SLAB_RECLAIM_ACCOUNT } from '#src/index.js';
import { LOCK_CLASS_NAMES, LockClass } from '#src/sync/index.js';
import { allocMany, boot, freeMany, secondCpu } from '../cache/support/arena.js';

const HEADER = [
  'slabinfo - version: 2.1',
  '# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>',
];
/** "%-17s %6lu %6lu %6u %4u %4d : tunables %4u %4u %4u : slabdata %6lu %6lu %6lu" */
const LONG = '[ \\d]{5}\\d';
const SHORT = '[ \\d]{3}\\d';
const LINE = new RegExp(
  `^\\S.{16} ${LONG} ${LONG} ${LONG} ${SHORT} ${SHORT} : tunables ${SHORT} ${SHORT} ${SHORT} : slabdata ${LONG} ${LONG} ${LONG}$`,
);

describe('slabinfo', () => {
  it('is the text of /proc/slabinfo, to the column', () => {
    const arena = boot();
    const cache = arena.createCache('vm_area_struct', { size: 192 });
    allocMany(cache, 100);
    const text = arena.slabinfo();
    expect(text.endsWith('\n')).toBe(true);
    const lines = text.slice(0, -1).split('\n');
    expect(lines.slice(0, 2)).toEqual(HEADER);
    expect(lines.find((line) => line.startsWith('vm_area'))).toBe(
      'vm_area_struct       120    126    192   21    1 : tunables    0    0    0 : slabdata      6      6      0',
    );
    expect(lines).toHaveLength(2 + arena.cacheNames().length);
    for (const line of lines.slice(2)) expect(line).toMatch(LINE);
  });

  it('keeps its columns apart when names and numbers are long', () => {
    const arena = boot();
    arena.createCache('a-name-that-is-longer-than-the-column', { size: 1 << 20 });
    const line = arena
      .slabinfo()
      .split('\n')
      .find((each) => each.startsWith('a-name'))!;
    expect(line.split(/\s+/).slice(0, 6)).toEqual([
      'a-name-that-is-longer-than-the-column',
      '0',
      '0',
      '1048576',
      '1',
      '256',
    ]);
  });

  it('counts what sheaves hold as active, and nothing after a shrink', () => {
    const arena = boot();
    const cache = arena.createCache('c', { size: 192 });
    const figures = () =>
      arena
        .slabinfo()
        .split('\n')
        .find((line) => line.startsWith('c '))!
        .split(/\s+/)
        .slice(1, 3)
        .map(Number);
    freeMany(cache, allocMany(cache, 30));
    expect(figures()).toEqual([60, 63]);
    cache.shrink();
    expect(figures()).toEqual([0, 0]);
  });
});

describe('cacheInfo', () => {
  it('has the attributes of /sys/kernel/slab', () => {
    const arena = boot({ cpus: 2, nodes: 2, bytes: 16 << 20 });
    const cache = arena.createCache('c', { size: 190, flags: SLAB_HWCACHE_ALIGN | SLAB_RECLAIM_ACCOUNT });
    cache.minPartial = 7;
    const other = secondCpu(arena);
    allocMany(other.openCache('c'), 3);
    freeMany(cache, allocMany(cache, 200));
    other.endTurn();
    const info = arena.cacheInfo().find(({ name }) => name === 'c')!;
    expect(info).toEqual({
      ctor: '',
      dtor: '',
      name: 'c',
      object_size: 190,
      slab_size: 192,
      align: 64,
      order: 0,
      objs_per_slab: 21,
      sheaf_capacity: 60,
      layer: 'sheaves',
      array_size: 0,
      min_partial: 7,
      slabs: 15,
      partial: 2,
      objects_partial: 9 + 18,
      total_objects: 315,
      objects: 300,
      barn_full: 2,
      barn_empty: 0,
      hwcache_align: 1,
      reclaim_account: 1,
      cache_dma: 0,
      sanity_checks: 0,
      trace: 0,
      red_zone: 0,
      poison: 0,
      store_user: 0,
      failslab: 0,
      slab_errors: 0,
      aliases: 0,
      sysfs_id: 'c',
      names: ['c'],
      destroy_by_rcu: 0,
      usersize: 0,
      remote_node_defrag_ratio: 100,
      cpu_partial: 0,
      slabs_cpu_partial: '0(0)',
      cpu_slabs: 0,
      nodes: [
        { slabs: 12, partial: 1, total_objects: 252, objects_partial: 9 },
        { slabs: 3, partial: 1, total_objects: 63, objects_partial: 18 },
      ],
      stats: cache.stats(),
      trylockFailures: 0,
      allocBypasses: 0,
      freeBypasses: 0,
      layer_stats: {},
    });
  });

  it('tells flags apart', () => {
    const arena = boot();
    arena.createCache('dma', { size: 64, flags: SLAB_CACHE_DMA });
    expect(arena.cacheInfo().find(({ name }) => name === 'dma')).toMatchObject({
      hwcache_align: 0,
      reclaim_account: 0,
      cache_dma: 1,
    });
  });
});

describe('lockStat', () => {
  it('is empty without statistics', () => {
    expect(boot().lockStat()).toEqual([]);
  });

  it('has a row for each class, with what this thread did', () => {
    const arena = boot({ lockStat: 'full' });
    const before = arena.lockStat();
    expect(before.map(({ name }) => name)).toEqual(LOCK_CLASS_NAMES);
    const cache = arena.createCache('c', { size: 4096 });
    freeMany(cache, allocMany(cache, 60));
    arena.kfreeRcu(arena.kmalloc(20_000)); // no sheaf takes that
    arena.rcu.barrier();
    arena.endTurn();
    const after = arena.lockStat();
    const gained = after.map((row, i) => row.acquisitions - before[i]!.acquisitions);
    const { Krcp } = LockClass; // after which come those of trees and percpu memory
    expect(gained.every((n, cls) => n > 0 || cls > Krcp)).toBe(true);
    expect(gained[0]).toBe(1);
    for (const row of after) {
      expect(row.contentions).toBe(0);
      expect(row.holdSamples).toBe(row.name === 'cpu_sheaves->lock' ? 0 : row.acquisitions);
    }
  });
});
