import { describe, expect, it } from 'vitest';
import { attributeFiles, SLAB_HWCACHE_ALIGN, SLAB_RECLAIM_ACCOUNT, SlabBugError } from '#src/index.js';
import { Page } from '#src/page/index.js';
import {
  allocMany,
  boot,
  expectSound,
  expectUnchanged,
  freeMany,
  partialList,
  secondCpu,
} from '../cache/support/arena.js';

describe('the files of a cache', () => {
  const setup = () => {
    const arena = boot({ cpus: 2, nodes: 2, bytes: 16 << 20, merge: 'primary' });
    const cache = arena.createCache('c', { size: 190, flags: SLAB_HWCACHE_ALIGN | SLAB_RECLAIM_ACCOUNT });
    return { arena, cache };
  };

  it('read as sysfs has them', () => {
    const { arena, cache } = setup();
    allocMany(cache, 3);
    const other = secondCpu(arena);
    allocMany(other.openCache('c'), 3);
    other.endTurn();
    arena.endTurn();
    const expected = {
      slab_size: '192',
      object_size: '190',
      align: '64',
      objs_per_slab: '21',
      order: '0',
      sheaf_capacity: '60',
      min_partial: '5',
      cpu_partial: '0',
      slabs_cpu_partial: '0(0)',
      aliases: '0',
      hwcache_align: '1',
      reclaim_account: '1',
      destroy_by_rcu: '0',
      cache_dma: '0',
      sanity_checks: '0',
      trace: '0',
      red_zone: '0',
      poison: '0',
      store_user: '0',
      failslab: '0',
      usersize: '0',
      remote_node_defrag_ratio: '100',
      slabs: '6 N0=3 N1=3',
      total_objects: '126 N0=63 N1=63',
      shrink: '',
      validate: '',
      alloc_fastpath: '6 C0=3 C1=3',
      free_fastpath: '0',
    };
    for (const [file, value] of Object.entries(expected)) {
      expect(arena.readAttribute('c', file), file).toBe(value);
    }
    for (const file of attributeFiles()) expect(arena.readAttribute('c', file)).not.toContain('undefined');
    expect(attributeFiles()).toEqual(expect.arrayContaining(Object.keys(expected)));
  });

  it('are found by any name and by the id', () => {
    const { arena, cache } = setup();
    arena.createCache('alias', { size: 190, flags: SLAB_HWCACHE_ALIGN | SLAB_RECLAIM_ACCOUNT });
    for (const name of ['c', 'alias', ':a-0000192']) {
      expect(arena.readAttribute(name, 'aliases')).toBe('1');
      arena.writeAttribute(name, 'min_partial', '9\n');
      expect(cache.minPartial).toBe(9);
      cache.minPartial = 5;
    }
    expect(() => arena.readAttribute(':0000192', 'order')).toThrow(/no cache is named ":0000192"/);
  });

  it('act when they are written', () => {
    const { arena, cache } = setup();
    freeMany(cache, allocMany(cache, 500));
    arena.writeAttribute('c', 'remote_node_defrag_ratio', '50');
    expect(arena.readAttribute('c', 'remote_node_defrag_ratio')).toBe('50');
    arena.writeAttribute('c', 'cpu_partial', '0');
    arena.writeAttribute('c', 'shrink', '1');
    expect(arena.readAttribute('c', 'slabs')).toBe('0');
    expect(arena.readAttribute('c', 'alloc_slab')).not.toBe('0');
    arena.writeAttribute('c', 'alloc_slab', '0');
    expect(arena.readAttribute('c', 'alloc_slab')).toBe('0');
    arena.writeAttribute('c', 'validate', '1');
    expectSound(arena);
  });

  it('say what validate found in this cache, and not in another', () => {
    const { arena, cache } = setup();
    const other = arena.createCache('other', { size: 512 });
    allocMany(cache, 5);
    allocMany(other, 5);
    arena.endTurn();
    const [slab] = partialList(arena, other);
    arena.i32[slab!.page + Page.objects] = slab!.objects - 1;
    arena.writeAttribute('c', 'validate', '1');
    expect(() => arena.writeAttribute('other', 'validate', '1')).toThrow(SlabBugError);
    expect(() => arena.writeAttribute('other', 'validate', '1')).toThrow(
      /^BUG other: validate found \d+ faults, the first: I/,
    );
  });

  it.each([
    ['min_partial', '-1'],
    ['min_partial', 'x'],
    ['min_partial', ''],
    ['min_partial', '0x10'],
    ['cpu_partial', '30'],
    ['remote_node_defrag_ratio', '101'],
    ['shrink', '0'],
    ['validate', 'yes'],
    ['alloc_slab', '1'],
    ['order', '1'],
    ['slabs', '0'],
    ['no_such_file', '1'],
  ])('refuse %s = %j, with nothing changed', (file, text) => {
    const { arena } = setup();
    expectUnchanged(arena, () => {
      expect(() => arena.writeAttribute('c', file, text)).toThrow(RangeError);
      expect(() => arena.writeAttribute('c', file, 1 as never)).toThrow(TypeError);
      expect(() => arena.writeAttribute('none', 'shrink', '1')).toThrow('no cache is named "none"');
    });
  });
});
