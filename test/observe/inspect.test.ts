/** What console.log prints of an arena and its handles: a line each, of whatever has become of them. */
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { Arena, defineCache } from '#src/index.js';
import { boot, MiB, secondCpu } from '../cache/support/arena.js';

const BOOTED = Arena.create({ bytes: 64 * MiB, cpus: 4 });

describe('console.log', () => {
  it('of an arena is one line, online or not', () => {
    const arena = Arena.attach(BOOTED.handle);
    const what = 'policy turn, check free';
    expect(inspect(arena)).toBe(
      `Arena { 64 MiB, 4 CPUs (0 online), 15 caches, sheaves, ${what}, this thread is no CPU }`,
    );
    arena.online({ cpu: 2 });
    arena.createCache('one', { size: 8 });
    expect(inspect(arena)).toBe(
      `Arena { 64 MiB, 4 CPUs (1 online), 16 caches, sheaves, ${what}, this thread is CPU 2 }`,
    );
    expect(inspect({ arena, list: [arena] })).toMatch(
      /^\{\n {2}arena: Arena \{ 64 MiB.*\},\n {2}list: \[\n.*Arena \{/,
    );
    arena.offline();
    expect(inspect(arena)).toContain('(0 online)');
    const small = Arena.create({
      bytes: 700416,
      cpus: 1,
      check: 'none',
      lockPolicy: 'op',
      layer: 'cpu-slab',
    });
    expect(inspect(small)).toBe(
      'Arena { 684 KiB, 1 CPU (0 online), 15 caches, cpu-slab, policy op, check none, this thread is no CPU }',
    );
  });

  it.each([
    ['sheaves', 'sheaves of 60'],
    ['percpu-array', 'percpu-array of 120'],
    ['cpu-slab', 'cpu-slab'],
    ['none', 'none'],
  ] as const)('of a cache in layer %s is one line', (layer, front) => {
    const arena = boot();
    const cache = arena.createCache('node', { size: 96, layer });
    cache.alloc();
    expect(inspect(cache)).toBe(`KmemCache "node" { objects of 96 bytes, 42 a slab, ${front}, CPU 0 }`);
  });

  it('of a cache tells when it can no longer be used', () => {
    const arena = boot();
    const other = secondCpu(arena);
    const cache = arena.createCache(defineCache('inspected', { size: 1, ctor: () => 0 }));
    const theirs = other.openCache('inspected');
    other.offline();
    expect(inspect(theirs)).toMatch(
      /^KmemCache "inspected" \{ objects of 1 byte, .*, its thread went offline \}$/,
    );
    cache.destroy();
    for (const each of [cache, theirs]) expect(inspect(each)).toBe('KmemCache "inspected" { destroyed }');
  });

  it('of a CPU, a prefilled sheaf and a group is one line', () => {
    const arena = boot({ cpus: 4, nodes: 2 });
    const { cpu } = arena;
    expect(inspect(cpu)).toBe('ThisCpu { CPU 0, thread 0, node 0, online }');
    const cache = arena.createCache('node', { size: 96 });
    const sheaf = cache.prefill(12)!;
    sheaf.alloc();
    expect(inspect(sheaf)).toMatch(/^PrefilledSheaf of "node" \{ \d+ of \d+ objects left \}$/);
    cache.return(sheaf);
    expect(inspect(sheaf)).toBe('PrefilledSheaf of "node" { over: it was returned }');
    expect(inspect(arena.percpu)).toBe('PercpuAllocator { CPU 0 }');
    expect(inspect(cache.handles())).toMatch(/^CacheHandles of "node" \{ \d+ generations \}$/);
    for (const of of [arena.maple, arena.mms, arena.groups])
      expect(inspect(of).split('\n').length).toBeLessThan(8);
    const group = arena.groups.create('tasks', { limit: 3 * MiB });
    expect(inspect(group)).toBe('MemoryGroup "tasks" { 0 bytes of at most 3 MiB }');
    group.limit = 1500;
    expect(inspect(group)).toBe('MemoryGroup "tasks" { 0 bytes of at most 1.5 KiB }');
    arena.offline();
    expect(inspect(cpu)).toBe('ThisCpu { CPU 0, thread 0, node 0, offline }');
  });
});
