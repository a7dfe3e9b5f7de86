/** An option that is misspelt is refused, by name, and nothing has changed then: it would be as good as none. */
import { describe, expect, it } from 'vitest';
import { Arena, defineCache, slabinfoTool } from '#src/index.js';
import { nearestName, requireKnown } from '#src/struct/index.js';
import { boot, expectRefused, MiB } from './support/arena.js';

const wrong = (options: object): never => options as never;
const good = { bytes: 8 * MiB, cpus: 2 };

describe('Arena.create', () => {
  it.each<[object, RegExp]>([
    [{ cpu: 3 }, /^options has cpu; did you mean cpus\? It may have bytes, cpus, threads, nodes, /],
    [{ LockPolicy: 'op' }, /^options has LockPolicy; did you mean lockPolicy\?/],
    [{ barnful: 3 }, /^options has barnful; did you mean barnFull\?/],
    [{ colour: 3 }, /^options has colour; it may have bytes, cpus, /],
    [{ colour: undefined }, /^options has colour; it may have/],
    [{ kmalloc: { copie: 3 } }, /^kmalloc has copie; did you mean copies\? It may have types, copies, /],
    [{ percpu: { unitpages: 8 } }, /^percpu has unitpages; did you mean unitPages\?/],
    [
      { guard: { every: 9, object: 4 } },
      /^guard has object; did you mean objects\? It may have every, objects$/,
    ],
    [{ refinements: { speed: true } }, /^refinements has speed; it may have /],
    [{ caches: [{ name: 's', size: 8, modul: true }] }, /^caches\[0\], s, has modul; did you mean module\?/],
    [{ caches: [{ name: 's', size: 8, flag: 0 }] }, /^caches\[0\], s, has flag; did you mean flags\?/],
  ])('refuses %o', (options, message) => {
    const buffer = new SharedArrayBuffer(good.bytes);
    expect(() => Arena.create(wrong({ ...good, buffer, ...options }))).toThrow(TypeError);
    expect(() => Arena.create(wrong({ ...good, buffer, ...options }))).toThrow(message);
    expect(new Int32Array(buffer).every((word) => word === 0)).toBe(true);
  });

  it('takes known options that are undefined', () => {
    const all = ['cpus', 'kmalloc', 'guard', 'percpu', 'caches', 'buffer', 'merge', 'tiny'];
    const arena = boot({ ...good, ...Object.fromEntries(all.map((name) => [name, undefined])) });
    const cache = arena.createCache('c', wrong({ size: 8, align: undefined, layer: undefined }));
    expect(cache.alloc()).not.toBe(0);
  });
});

describe('what is called with options', () => {
  const arena = boot({ ...good, maxCaches: 40 });
  void arena.maple.nodes; // made at the first use
  const mm = arena.mms.create()!;
  const other = Arena.attach(arena.handle);
  const name = 'nobody-defines-it-twice';

  it.each<[string, RegExp, () => unknown]>([
    ['attach', /has cache; did you mean caches/, () => Arena.attach(arena.handle, wrong({ cache: [] }))],
    [
      'online',
      /has tId; did you mean tid\? It may have cpu, thread, tid$/,
      () => other.online(wrong({ tId: 1 })),
    ],
    [
      'createCache',
      /^options has sheafcapacity; did you mean sheafCapacity\? It may have size, align, /,
      () => arena.createCache('zz', wrong({ size: 8, sheafcapacity: 3 })),
    ],
    ['createCache', /has ctor; it may/, () => arena.createCache('zz', wrong({ size: 8, ctor: () => {} }))],
    [
      'defineCache',
      /^definition has ctro; did you mean ctor\? It may have size, .*guard, ctor, dtor, ctorSlab, dtorSlab$/,
      () => defineCache(name, wrong({ size: 8, ctro: () => {} })),
    ],
    ['createBuckets', /has flag; did you mean flags/, () => arena.createBuckets('zz', wrong({ flag: 0 }))],
    ['kmallocSite', /has sites; did you mean site/, () => arena.kmallocSite(wrong({ sites: 1 }))],
    [
      'groups.create',
      /has limits; did you mean limit/,
      () => arena.groups.create('zz', wrong({ limits: 1 })),
    ],
    ['failslab', /has Nth; did you mean nth/, () => arena.failslab(wrong({ Nth: 1 }))],
    ['maple.create', /has gap; did you mean gaps/, () => arena.maple.create(wrong({ gap: true }))],
    ['mm.map', /has flag; did you mean flags/, () => mm.map(4096, wrong({ flag: 1 }))],
    ['slabinfoTool', /has line; did you mean lines/, () => slabinfoTool([], wrong({ line: 1 }))],
  ])('%s refuses %s', (_what, message, call) => expectRefused(arena, call, TypeError, message));

  it('and has made nothing of what it refused', () => {
    expect(arena.cacheNames().filter((each) => each.startsWith('zz'))).toEqual([]);
    expect(other.isOnline).toBe(false);
    expect(defineCache(name, { size: 8 }).name).toBe(name);
  });
});

describe('the name that was meant', () => {
  const known = ['size', 'align', 'sheafCapacity', 'thread', 'threads'];
  it.each([
    ['Size', 'size'],
    ['sice', 'size'],
    ['threas', 'thread'],
    ['sheafCapcaity', 'sheafCapacity'],
    ['sheaf', 'sheafCapacity'],
    ['alignment', 'align'],
    ['sh', undefined],
    ['soup', undefined],
    ['', undefined],
  ])('of %s is %s', (name, meant) => expect(nearestName(name, known)).toBe(meant));

  it('is none, and soon, of a very long one', () => {
    const name = 'x'.repeat(1 << 20);
    expect(nearestName(name, known)).toBe(undefined);
    expect(() => requireKnown('options', { [name]: 1 }, known)).toThrow(/^.{1,200}$/);
  });

  it('is none for what a prototype has', () => {
    expect(() => requireKnown('options', { toString: 1 }, known)).toThrow(/^options has toString; it may/);
    expect(() => requireKnown('options', Object.create({ novel: 1 }), known)).not.toThrow();
  });
});
