/** The kernel's slub_kunit, lib/tests/slub_kunit.c, case by case under its names, with its counts of errors. */
import { describe, expect, it } from 'vitest';
import { __GFP_ZERO, GFP_KERNEL, SLAB_NO_MERGE, SLAB_POISON, SLAB_RED_ZONE } from '#src/index.js';
import { expectSound, inside, secondCpu } from '../cache/support/arena.js';
import { Book, inject } from '../nolock/support.js';
import { bytesOf, kunit, testCache, validate } from './support.js';

const LONG = process.env.GRANARY_LONG !== undefined;
const fill = (value: number, n: number): number[] => Array.from({ length: n }, () => value);

describe('slub_test', () => {
  it('test_clobber_zone: a byte behind an allocated object', () => {
    const { arena, errors } = kunit();
    const s = testCache(arena, 'TestSlub_RZ_alloc', 64, SLAB_RED_ZONE);
    const p = s.alloc();
    arena.u8[p + 64] = 0x12;
    validate(s);
    expect(errors()).toBe(2);
    s.free(p);
    expect(s.destroy().leaked).toBe(0);
    expect(errors()).toBe(2);
    expectSound(arena);
  });

  it('test_next_pointer: the free pointer of a freed object', () => {
    const { arena, errors, reset, reports } = kunit();
    const s = testCache(arena, 'TestSlub_next_ptr_free', 64, SLAB_POISON);
    const p = s.alloc();
    s.free(p);
    const at = p + s.desc.offset;
    const link = arena.i32[at >> 2]!;
    arena.u8[at] = ~arena.u8[at]!;
    validate(s);
    expect(errors()).toBe(3);
    expect(reports.map(({ what }) => what.replace(/\d+/g, 'N'))).toEqual([
      'Freechain corrupt',
      'Wrong object count. Counter is N but counted were N',
      'Object count adjusted',
    ]);
    // The list was cut there; with the pointer back there are more objects than the count now says.
    arena.i32[at >> 2] = link;
    reset();
    validate(s);
    expect(errors()).toBe(2);
    reset();
    validate(s);
    expect(errors()).toBe(0);
    expect(s.destroy().leaked).toBe(0);
    expectSound(arena);
  });

  it.each([
    ['test_first_word', 'TestSlub_1th_word_free', 0, 0x78],
    ['test_clobber_50th_byte', 'TestSlub_50th_word_free', 50, 0x9a],
  ])('%s: a byte of a freed object', (_name, cache, offset, value) => {
    const { arena, errors } = kunit();
    const s = testCache(arena, cache, 64, SLAB_POISON);
    const p = s.alloc();
    s.free(p);
    arena.u8[p + offset] = value;
    validate(s);
    expect(errors()).toBe(2);
    expect(s.destroy().leaked).toBe(0);
    expect(errors()).toBe(2);
  });

  it('test_clobber_redzone_free: a byte behind a freed object', () => {
    const { arena, errors } = kunit();
    const s = testCache(arena, 'TestSlub_RZ_free', 64, SLAB_RED_ZONE);
    const p = s.alloc();
    s.free(p);
    arena.u8[p + 64] = 0xab;
    validate(s);
    expect(errors()).toBe(2);
    expect(s.destroy().leaked).toBe(0);
    expect(errors()).toBe(2);
  });

  it('test_kmalloc_redzone_access: bytes 18 and 19 of a request for 18', () => {
    const { arena, errors, reports } = kunit({ slabDebug: 'ZU,kmalloc-32' });
    const s = arena.openCache('kmalloc-32');
    const p = arena.kmalloc(18, GFP_KERNEL);
    arena.u8[p + 18] = 0xab;
    arena.u8[p + 19] = 0xab;
    validate(s);
    expect(errors()).toBe(2);
    expect(reports[0]!.damage).toMatchObject({ area: 'kmalloc Redzone', from: p + 18, to: p + 20 });
    arena.kfree(p);
    validate(s);
    expect(errors()).toBe(2);
  });

  it('test_kfree_rcu: kfree_rcu, and the cache destroyed at once', () => {
    const { arena, errors } = kunit();
    const s = testCache(arena, 'TestSlub_kfree_rcu', 24, SLAB_NO_MERGE);
    s.freeRcu(s.alloc());
    expect(s.destroy().leaked).toBe(0);
    expect(errors()).toBe(0);
  });

  it('test_kfree_rcu_wq_destroy: the same, destroyed by another thread after a while', async () => {
    const { arena, errors } = kunit();
    const reclaim = secondCpu(arena); // the kernel's is a workqueue that reclaim may use
    reclaim.onSlabReport(() => expect.unreachable());
    for (let round = 0; round < 10; round++) {
      const s = testCache(arena, 'TestSlub_kfree_rcu_wq_destroy', 24, SLAB_NO_MERGE);
      s.freeRcu(s.alloc());
      const delay = (round * 97) % (LONG ? 256 : 20);
      await new Promise((done) => setTimeout(done, delay));
      expect(reclaim.openCache(s.name).destroy().leaked).toBe(0);
    }
    expect(errors()).toBe(0);
  });

  it('test_leak_destroy: a cache destroyed with an object left', () => {
    const { arena, errors, reports } = kunit();
    const s = testCache(arena, 'TestSlub_leak_destroy', 64, SLAB_NO_MERGE);
    const p = s.alloc();
    expect(s.destroy()).toMatchObject({ leaked: 1, objects: [p] });
    expect(errors()).toBe(2);
    expect(reports.map(({ what }) => what)).toEqual([
      'Objects remaining on __kmem_cache_shutdown()',
      'Object remaining',
    ]);
  });

  it('test_krealloc_redzone_zeroing', () => {
    const { arena, errors } = kunit({ slabDebug: 'ZU,kmalloc-64' });
    const s = arena.openCache('kmalloc-64');
    const p = arena.kmalloc(48);
    arena.u8.fill(0xff, p, p + 48);
    // Shrinking, still with __GFP_ZERO: what is no longer asked for becomes red zone.
    expect(arena.krealloc(p, 40, GFP_KERNEL | __GFP_ZERO)).toBe(p);
    expect(bytesOf(arena, p, 0, 40)).toEqual(fill(0xff, 40));
    expect(bytesOf(arena, p, 40, 64)).toEqual(fill(0xcc, 24));
    // Growing within the object.
    expect(arena.krealloc(p, 56, GFP_KERNEL | __GFP_ZERO)).toBe(p);
    expect(bytesOf(arena, p, 40, 56)).toEqual(fill(0, 16));
    expect(bytesOf(arena, p, 56, 64)).toEqual(fill(0xcc, 8));
    validate(s);
    expect(errors()).toBe(0);
    arena.u8.fill(0xff, p, p + 56);
    // Growing beyond it.
    const q = arena.krealloc(p, 112, GFP_KERNEL | __GFP_ZERO);
    expect(q).not.toBe(p);
    expect(bytesOf(arena, q, 0, 56)).toEqual(fill(0xff, 56));
    expect(bytesOf(arena, q, 56, 112)).toEqual(fill(0, 56));
    arena.kfree(q);
    validate(s);
    expect(errors()).toBe(0);
  });

  const ROUNDS = LONG ? 1000 : 20;
  const OBJECTS = LONG ? 1000 : 100;

  it.each([
    ['test_kmalloc_kfree_nolock', 'turn', ''],
    ['test_kmalloc_nolock_and_friends_perf', 'turn', 'FZPU,kmalloc-*'],
    ['test_kmalloc_nolock_and_friends_kprobe', 'op', ''],
  ] as const)('%s: kmalloc and kfree interrupted in their locks', (name, lockPolicy, slabDebug) => {
    const { arena, errors } = kunit({ bytes: 32 << 20, slabDebug, lockPolicy });
    // The kprobe sits in slab_attach_kprobe_locked, where the pcs lock is held; the others come at any moment.
    const inPcs = name.endsWith('kprobe');
    const book = new Book(arena);
    const injection = inject(arena, book, (_cls, moment) => !inPcs || moment === 'after try', {
      budget: slabDebug === '' ? 3000 : 100,
    });
    const objects = new Int32Array(OBJECTS);
    const rounds = slabDebug === '' ? ROUNDS : ROUNDS / 10;
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < OBJECTS; i++) objects[i] = arena.kmalloc(8 + ((i * 37) % 1000));
      for (const p of objects) {
        if (p === 0) continue;
        if (round % 2 === 0) arena.kfree(p);
        else arena.kfreeRcu(p);
      }
    }
    injection.end();
    arena.kfreeRcuBarrier();
    expect(injection.got, 'no handler got anything').toBeGreaterThan(10);
    expect([...injection.faults, ...book.faults]).toEqual([]);
    expect(errors()).toBe(0);
    for (const cache of slabDebug === '' ? [] : inside(arena).all()) {
      if (cache.name.startsWith('kmalloc-')) expect(validate(cache)).toBe(0);
    }
    expectSound(arena);
  });
});
