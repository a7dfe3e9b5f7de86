/** Call sites and types that choose among the copies of the kmalloc caches. */
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { __GFP_ACCOUNT, type Arena, GFP_KERNEL, type KmallocOptions, type KmallocSite } from '#src/index.js';
import { boot, expectSound, footprint, inside, MiB, secondCpu } from '../cache/support/arena.js';

const bootCopies = (kmalloc: KmallocOptions): Arena => boot({ bytes: 32 * MiB, kmalloc });

function cacheName(arena: Arena, site: KmallocSite, gfp = GFP_KERNEL): string {
  const p = site.alloc(100, gfp);
  const { name } = inside(arena).kmallocs.cacheOf(p)!;
  arena.kfree(p);
  return name;
}

describe('call sites', () => {
  const arena = bootCopies({ copies: 15, types: ['cgroup'], seed: 1 });

  it('spread over the normal caches and all copies', () => {
    const counts = new Map<string, number>();
    for (let site = 0; site < 1600; site++) {
      const name = cacheName(arena, arena.kmallocSite({ site }));
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    const copies = Array.from({ length: 15 }, (_, i) => `kmalloc-rnd-${String(i + 1).padStart(2, '0')}-128`);
    expect([...counts.keys()].sort()).toEqual(['kmalloc-128', ...copies].sort());
    // 1600 sites over 16: each gets 100, give or take what a fair choice would miss by once in 10^9.
    for (const [name, n] of counts) expect([name, n > 40 && n < 180]).toEqual([name, true]);
  });

  it('get the same copy in each thread, and another with another seed', () => {
    const copiesOf = (seed: number) => {
      const arena = bootCopies({ copies: 15, seed });
      const other = secondCpu(arena);
      return Array.from({ length: 40 }, (_, site) => {
        const { copy } = arena.kmallocSite({ site });
        expect(other.kmallocSite({ site }).copy).toBe(copy);
        return copy;
      });
    };
    expect(copiesOf(7)).toEqual(copiesOf(7));
    expect(copiesOf(7)).not.toEqual(copiesOf(8));
  });

  it('are told apart by the line that makes the handle', () => {
    const again = () => arena.kmallocSite().copy;
    expect(new Set([again(), again(), again()]).size).toBe(1);
    const lines = [
      arena.kmallocSite().copy,
      arena.kmallocSite().copy,
      arena.kmallocSite().copy,
      arena.kmallocSite().copy,
      arena.kmallocSite().copy,
      arena.kmallocSite().copy,
      arena.kmallocSite().copy,
      arena.kmallocSite().copy,
    ];
    expect(new Set(lines).size).toBeGreaterThan(1);
  });

  it('are told by the same line in another thread', async () => {
    const line = `
      const { Arena } = await import(${JSON.stringify(import.meta.resolve('#src/index.js'))});
      const { parentPort, workerData } = await import('node:worker_threads');
      const arena = Arena.attach(workerData);
      arena.online();
      parentPort.postMessage(arena.kmallocSite().copy);
      arena.offline();`;
    const url = new URL(`data:text/javascript,${encodeURIComponent(line)}`);
    const copies: number[] = [];
    for (let i = 0; i < 2; i++) {
      const worker = new Worker(url, { workerData: arena.handle, execArgv: [] });
      // Asked for before the message has come: the thread may be gone in the same tick.
      const ended = new Promise((resolve) => worker.once('exit', resolve));
      copies.push(
        await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject)),
      );
      await ended;
    }
    expect(copies[0]).toBe(copies[1]);
  });

  it('of a call with flags for another type are not looked at', () => {
    for (let site = 0; site < 20; site++) {
      expect(cacheName(arena, arena.kmallocSite({ site }), GFP_KERNEL | __GFP_ACCOUNT)).toBe(
        'kmalloc-cg-128',
      );
    }
    const before = footprint(arena);
    const large = arena.kmallocSite({ site: 3 }).alloc(20_000);
    expect(arena.ksize(large)).toBe(32_768);
    arena.kfree(large);
    expect(footprint(arena)).toEqual(before);
    expectSound(arena);
  });

  it('change nothing in an arena without copies, and end when the thread goes offline', () => {
    const arena = boot();
    const site = arena.kmallocSite({ site: 5 });
    expect(cacheName(arena, site)).toBe('kmalloc-128');
    arena.offline();
    expect(() => site.alloc(100)).toThrow(/this thread has left CPU 0/);
  });

  it.each([
    [{ site: 0.5 }, RangeError, /site is 0.5/],
    [{ type: 5 }, TypeError, /type is 5; it must be the name of a type/],
    [{ pointers: 'no' }, TypeError, /pointers is "no"; it must be a boolean/],
    [3, TypeError, /options is 3; it must be an object/],
  ])('refuse %j', (options, type, message) => {
    const make = () => arena.kmallocSite(options as never);
    expect(make).toThrow(type);
    expect(make).toThrow(message);
  });
});

describe('types', () => {
  it.each([1, 2, 3, 15])('with addresses and without never share one of %i copies', (copies) => {
    const arena = bootCopies({ copies, copyBy: 'type' });
    const of = (pointers: boolean) =>
      new Set(
        Array.from({ length: 200 }, (_, i) =>
          cacheName(arena, arena.kmallocSite({ type: `t${i}`, pointers })),
        ),
      );
    const [withPointers, without] = [of(true), of(false)];
    expect([...withPointers].filter((name) => without.has(name))).toEqual([]);
    expect(withPointers.size + without.size).toBe(copies + 1);
    for (const name of withPointers) expect(name).toMatch(/^kmalloc-part-\d\d-128$/);
    expect(without).toContain('kmalloc-128');
  });

  it('choose alike in every arena, and a site without a type allocates from the normal caches', () => {
    const [one, two] = [
      bootCopies({ copies: 15, copyBy: 'type' }),
      bootCopies({ copies: 15, copyBy: 'type' }),
    ];
    for (const type of ['msg_msg', 'file', 'cred']) {
      expect(one!.kmallocSite({ type }).copy).toBe(two!.kmallocSite({ type }).copy);
    }
    expect(one!.kmallocSite().copy).toBe(0);
    expect(one!.kmallocSite({ site: 77 }).copy).toBe(0);
  });
});
