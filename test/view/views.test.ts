import { describe, expect, it } from 'vitest';
import {
  arrayOf,
  kmemCacheSetup,
  kmemCacheSetupUsercopy,
  SLAB_HWCACHE_ALIGN,
  SlabBugError,
  structOf,
  textOf,
} from '#src/index.js';
import { boot, expectSound, MiB } from '../cache/support/arena.js';

const Vec = structOf('vec', { x: 'f64', y: 'f64' });
const All = structOf('all', {
  a: 'i8',
  b: 'u8',
  c: 'i16',
  d: 'u16',
  e: 'i32',
  f: 'u32',
  g: 'f32',
  h: 'f64',
  i: 'i64',
  j: 'u64',
  next: 'addr',
});

describe('a struct lies as C lays it out', () => {
  it('each field at a multiple of its alignment, the whole too', () => {
    const Mixed = structOf('mixed', {
      a: 'u8',
      b: 'f64',
      c: 'u16',
      d: 'i32',
      e: Vec,
      f: arrayOf('u16', 3),
      g: textOf(5),
    });
    const offsets = Object.fromEntries(
      Object.entries(Mixed.fields).map(([name, { offset }]) => [name, offset]),
    );
    expect(offsets).toEqual({ a: 0, b: 8, c: 16, d: 20, e: 24, f: 40, g: 46 });
    expect(Mixed).toMatchObject({ sizeof: 56, alignof: 8, name: 'mixed' });
    expect(Mixed.fields.f.bytes).toBe(6);
    expect(structOf('bytes', { a: 'u8', b: textOf(2) })).toMatchObject({ sizeof: 3, alignof: 1 });
  });
});

describe.each([
  ['plain', false],
  ['hardened', true],
])('a cursor over a %s arena', (_name, hardenedUsercopy) => {
  const setup = () => {
    const arena = boot({ hardenedUsercopy });
    return { arena, cache: arena.createCache('c', { size: 256 }) };
  };

  it('reads and writes every kind of number, at its limits', () => {
    const { arena, cache } = setup();
    const all = All.cursor(arena, cache).at(cache.alloc());
    const values = {
      a: -128,
      b: 255,
      c: -32768,
      d: 65535,
      e: -(2 ** 31),
      f: 2 ** 32 - 1,
      g: 1.5,
      h: Math.PI,
      i: -(2n ** 63n),
      j: 2n ** 64n - 1n,
      next: cache.alloc(),
    };
    Object.assign(all, values);
    for (const [field, value] of Object.entries(values)) expect(all[field as 'a'], field).toBe(value);
    const p = all.address;
    expect(arena.f64[(p + All.fields.h.offset) >> 3]).toBe(Math.PI);
    expect(arena.i32[(p + All.fields.e.offset) >> 2]).toBe(-(2 ** 31));
    expect(all.at(values.next).address).toBe(values.next);
    expect(Object.keys(Object.getPrototypeOf(all))).toEqual(Object.keys(values));
  });

  it('follows a list with one object of JavaScript', () => {
    const { arena, cache } = setup();
    const Node = structOf('node', { next: 'addr', value: 'u32' });
    const node = Node.cursor(arena, cache);
    let head = 0;
    for (let i = 1; i <= 100; i++) {
      const p = cache.alloc();
      const made = node.at(p);
      made.next = head;
      made.value = i;
      head = p;
    }
    let sum = 0;
    for (let p = head; p !== 0; p = node.next) sum += node.at(p).value;
    expect(sum).toBe(5050);
  });

  it('moves with its parts: structs, arrays, text', () => {
    const { arena, cache } = setup();
    const Deep = structOf('deep', {
      id: 'u8',
      box: structOf('box', { low: Vec, high: Vec, tag: 'u16' }),
      points: arrayOf(Vec, 3),
      links: arrayOf('addr', 4),
      wide: arrayOf('i64', 2),
      name: textOf(12),
    });
    const deep = Deep.cursor(arena);
    const other = Deep.cursor(arena);
    const [p, q] = [cache.alloc(), cache.alloc()];
    for (const [at, base] of [
      [p, 100],
      [q, 200],
    ] as const) {
      deep.at(at);
      deep.box.low.x = base + 1;
      deep.box.high.y = base + 2;
      deep.box.tag = base + 3;
      for (let i = 0; i < 3; i++) deep.points.get(i).y = base + 10 + i;
      for (let i = 0; i < 4; i++) deep.links.set(i, base + 20 + i);
      deep.wide.set(1, BigInt(base));
      deep.name = `käse ${base}`;
    }
    other.at(p);
    deep.at(q);
    expect([other.box.low.x, other.box.high.y, other.box.tag]).toEqual([101, 102, 103]);
    expect([deep.box.low.x, deep.box.high.y, deep.box.tag]).toEqual([201, 202, 203]);
    expect([0, 1, 2].map((i) => deep.points.get(i).y)).toEqual([210, 211, 212]);
    expect([0, 1, 2, 3].map((i) => other.links.get(i))).toEqual([120, 121, 122, 123]);
    expect([other.wide.get(1), deep.wide.get(1), deep.links.length]).toEqual([100n, 200n, 4]);
    expect([other.name, deep.name]).toEqual(['käse 100', 'käse 200']);
    if (!hardenedUsercopy) expect(arena.readText(p + Deep.fields.name.offset, 12)).toBe('käse 100');
    const box = deep.box;
    expect(deep.at(p).box).toBe(box);
    expect(box.low.x).toBe(101);
  });

  it('refuses what is outside an array or too long for its room, and writes nothing', () => {
    const { arena, cache } = setup();
    const T = structOf('t', { list: arrayOf('u8', 4), name: textOf(4), after: 'u8', vecs: arrayOf(Vec, 2) });
    const t = T.cursor(arena).at(cache.alloc());
    t.name = 'abcd';
    t.after = 7;
    for (const i of [-1, 4, 1.5, Number.NaN, '0' as never]) {
      expect(() => t.list.get(i)).toThrow(RangeError);
      expect(() => t.list.set(i, 1)).toThrow(/it must be an integer from 0 to 3/);
    }
    expect(() => t.vecs.get(2)).toThrow(RangeError);
    expect(() => t.vecs.set(0, {} as never)).toThrow(TypeError);
    expect(() => {
      t.name = 'abcde';
    }).toThrow('text has 5 bytes in UTF-8; there is room for 4');
    expect(() => {
      t.name = 5 as never;
    }).toThrow(TypeError);
    expect([t.name, t.after]).toEqual(['abcd', 7]);
    t.name = 'x';
    expect(t.name).toBe('x');
  });

  it('copies bytes and text in and out of what kmalloc gave', () => {
    const { arena } = setup();
    const p = arena.kmalloc(100);
    arena.copyFromUser(p + 3, Uint8Array.of(1, 2, 3));
    const out = new Uint8Array(5);
    arena.copyToUser(out, p + 2);
    expect([...out.subarray(1, 4)]).toEqual([1, 2, 3]);
    expect(arena.writeText(p, 20, 'grün')).toBe(5);
    expect(arena.readText(p, 20)).toBe('grün');
    const big = arena.kmalloc(100_000);
    arena.copyFromUser(big + 90_000, new Uint8Array(10_000));
    expect(() => arena.copyFromUser(arena.geometry.bytes - 4, new Uint8Array(5))).toThrow(SlabBugError);
    expect(() => arena.copyToUser(new Uint8Array(5), 64)).toThrow(
      /5 bytes from 64 on do not lie in the heap/,
    );
    for (const wrong of [[1, 2], 'text', new Int32Array(2)]) {
      expect(() => arena.copyFromUser(p, wrong as never)).toThrow(TypeError);
      expect(() => arena.copyToUser(wrong as never, p)).toThrow(TypeError);
    }
    expectSound(arena);
  });
});

describe('definitions', () => {
  it.each<[string, () => unknown, RegExp]>([
    [
      'of no kind',
      () => structOf('s', { a: 'u128' as never }),
      /type of s\.a is "u128"; it must be one of i8/,
    ],
    ['of an object', () => structOf('s', { a: {} as never }), /type of s\.a is "a Object"|type of s\.a/],
    ['named like an own one', () => structOf('s', { address: 'u8' }), /field of struct s is named address/],
    ['none at all', () => structOf('s', {}), /struct s has 0 bytes/],
    ['too many', () => structOf('s', { a: arrayOf('f64', 1 << 20) }), /has 8388608 bytes/],
    ['no length', () => arrayOf('u8', 0), /length is 0/],
    ['no room', () => textOf(0), /bytes is 0/],
  ])('with fields %s are refused', (_what, action, message) => {
    expect(action).toThrow(message);
  });

  it('make caches: size, alignment, and the range of a field', () => {
    const Task = structOf('task', { id: 'u32', comm: textOf(16), load: 'f64' });
    expect(kmemCacheSetup(Task, SLAB_HWCACHE_ALIGN)).toEqual({
      name: 'task',
      size: 32,
      align: 8,
      flags: SLAB_HWCACHE_ALIGN,
    });
    expect(kmemCacheSetupUsercopy(Task, 0, 'comm')).toMatchObject({ useroffset: 4, usersize: 16 });
    expect(() => kmemCacheSetupUsercopy(Task, 0, 'name')).toThrow(/a field of task: id, comm, load/);
  });
});

describe('a hardened arena', () => {
  const Task = structOf('task', { id: 'u32', comm: textOf(16), load: 'f64' });
  const taskCache = kmemCacheSetupUsercopy(Task, 0, 'comm');
  const closed = { name: 'closed', size: 32 };
  const setup = (check: 'none' | 'free' | 'full' = 'free') => {
    const arena = boot({ hardenedUsercopy: true, caches: [taskCache, closed], check, bytes: 4 * MiB });
    return { arena, tasks: arena.staticCache(taskCache), others: arena.staticCache(closed) };
  };

  it.each([
    [4, 16, true],
    [8, 4, true],
    [3, 2, false],
    [19, 2, false],
    [0, 32, false],
    [30, 4, false],
  ])('lets bytes out of the usercopy range alone: offset %i, %i bytes: %s', (offset, n, allowed) => {
    const { arena, tasks } = setup();
    const p = tasks.alloc();
    const copy = () => arena.copyToUser(new Uint8Array(n), p + offset);
    const write = () => arena.copyFromUser(p + offset, new Uint8Array(n));
    for (const action of [copy, write]) {
      if (allowed) action();
      else expect(action).toThrow(/^BUG task: Kernel memory exposure attempt: .* bytes 4 to 20 may be/);
    }
  });

  it('lets nothing out of a cache without one, out of free objects, or past the end of a block', () => {
    const { arena, tasks, others } = setup();
    const p = others.alloc();
    expect(() => arena.copyToUser(new Uint8Array(1), p)).toThrow(/nothing of it may be/);
    const q = tasks.alloc();
    tasks.free(q);
    expect(() => arena.readText(q + 4, 4)).toThrow(/lies in an object that is free/);
    const k = arena.kmalloc(64);
    expect(() => arena.copyFromUser(k + 60, new Uint8Array(5))).toThrow(/bytes 0 to 64 may be/);
    const pages = arena.allocPages(1);
    arena.copyFromUser(pages + 8000, new Uint8Array(192));
    expect(() => arena.copyFromUser(pages + 8000, new Uint8Array(193))).toThrow(SlabBugError);
    arena.freePages(pages, 1);
    expect(() => arena.copyFromUser(pages, new Uint8Array(1))).toThrow(/lies in a free page/);
    arena.copyFromUser(p, new Uint8Array(0));
  });

  it('lets a cursor look at whole, live objects of its cache alone', () => {
    const { arena, tasks, others } = setup();
    const task = Task.cursor(arena, tasks);
    const p = tasks.alloc();
    expect(() => task.id).toThrow(/access through a cursor moved to no object yet/);
    task.at(p).id = 5;
    expect(() => task.at(p + 4)).toThrow(/4 bytes into an object/);
    expect(() => task.at(others.alloc())).toThrow(/^BUG task: .* is of closed/);
    expect(() => task.at(0)).toThrow(SlabBugError);
    const Large = structOf('large', { bytes: arrayOf('u8', 33) });
    expect(() => Large.cursor(arena).at(p)).toThrow(/a view of 33 bytes on an object of 32/);
    expect(task.id).toBe(5);
    tasks.free(p);
    expect(() => task.id).toThrow(/^BUG task: access through a cursor whose object was freed/);
    expect(() => {
      task.comm = 'x';
    }).toThrow(SlabBugError);
    const List = structOf('list', { n: arrayOf('u8', 4), v: Vec });
    const q = tasks.alloc();
    const list = List.cursor(arena).at(q);
    list.n.set(0, 1);
    list.v.x = 1;
    tasks.free(q);
    expect(() => list.n.get(0)).toThrow(SlabBugError);
    expect(() => list.v.x).toThrow(SlabBugError);
  });

  it('checks ranges even where no state of objects is kept', () => {
    const { arena, tasks } = setup('none');
    const p = tasks.alloc();
    arena.writeText(p + 4, 16, 'init');
    expect(Task.cursor(arena, tasks).at(p).comm).toBe('init');
    expect(() => arena.writeText(p, 16, 'init')).toThrow(SlabBugError);
  });
});
