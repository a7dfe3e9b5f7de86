/** An address space is a map from pages to flags, whatever is done to it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Area,
  type Mm,
  SLAB_TYPESAFE_BY_RCU,
  VM_EXEC,
  VM_GROWSDOWN,
  VM_READ,
  VM_WRITE,
} from '#src/index.js';
import { MMAP_MIN, TASK_SIZE } from '#src/mm/index.js';
import { RangeModel } from '#workers/litmus/rangeModel.js';
import { boot, expectSound, MiB, moved } from '../cache/support/arena.js';
import { watchNodes } from '../maple/support.js';

const PAGE = 4096;
const BASE = 0x100000;
const RW = VM_READ | VM_WRITE;

/** What the model has, with neighbours that are alike as one. */
function runs(model: RangeModel): Area[] {
  const found: Area[] = [];
  for (const { first, last, entry } of model.ranges) {
    const below = found.at(-1);
    if (below !== undefined && below.end === first && below.flags === entry) below.end = last + 1;
    else found.push({ start: first, end: last + 1, flags: entry });
  }
  return found;
}

interface Op {
  kind: 'map' | 'map anywhere' | 'unmap' | 'protect' | 'fault';
  at: number;
  pages: number;
  flags: number;
}

const operation: fc.Arbitrary<Op> = fc.record({
  kind: fc.constantFrom('map', 'map', 'map anywhere', 'unmap', 'unmap', 'protect', 'fault'),
  at: fc.nat(160),
  pages: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 60 })),
  flags: fc.constantFrom(VM_READ, RW, VM_READ | VM_EXEC),
});

function apply(mm: Mm, model: RangeModel, { kind, at, pages, flags }: Op): void {
  const start = BASE + at * PAGE;
  const bytes = pages * PAGE;
  switch (kind) {
    case 'map':
      expect(mm.map(bytes, { at: start, flags })).toBe(start);
      model.store(start, start + bytes - 1, flags);
      break;
    case 'map anywhere': {
      const place = model.emptyAreaReverse(bytes, MMAP_MIN, TASK_SIZE - 1);
      expect(mm.map(bytes, { flags })).toBe(place);
      model.store(place, place + bytes - 1, flags);
      break;
    }
    case 'unmap':
      expect(mm.unmap(start, bytes)).toBeGreaterThanOrEqual(0);
      model.store(start, start + bytes - 1, 0);
      break;
    case 'protect':
      expect(mm.protect(start, bytes, flags)).toBe(true);
      for (const { first, last } of model.overlapping(start, start + bytes - 1)) {
        model.store(Math.max(first, start), Math.min(last, start + bytes - 1), flags);
      }
      break;
    case 'fault':
      expect(mm.fault(start + 17, VM_WRITE)).toBe((model.load(start + 17) & VM_WRITE) !== 0);
      expect(mm.faultUnderMmapLock(start + 17)).toBe(model.load(start + 17) !== 0);
      break;
  }
}

describe('an address space', () => {
  it('equals a map from pages to flags', { timeout: 60_000 }, () => {
    const arena = boot({ bytes: 16 * MiB });
    const { vmas } = arena.mms;
    fc.assert(
      fc.property(fc.array(operation, { minLength: 60, maxLength: 60, size: 'max' }), (ops) => {
        const mm = arena.mms.create()!;
        const model = new RangeModel();
        for (const op of ops) apply(mm, model, op);
        expect(mm.list()).toEqual(runs(model));
        expect(mm.validate()).toEqual([]);
        const child = arena.mms.fork(mm)!;
        expect(child.list()).toEqual(runs(model));
        expect(child.validate()).toEqual([]);
        apply(child, model, ops[0]!);
        expect(child.list()).toEqual(runs(model));
        arena.mms.destroy(child);
        expect(mm.validate()).toEqual([]);
        arena.mms.destroy(mm);
        arena.rcu.quiescent();
      }),
      { numRuns: 40 },
    );
    arena.kfreeRcuBarrier();
    expectSound(arena);
    for (const cache of [vmas, arena.mms.mms, arena.maple.nodes]) expect(cache.destroy().leaked).toBe(0);
  });

  it('finds areas, grows a heap and a stack', () => {
    const arena = boot({ bytes: 16 * MiB });
    const mm = arena.mms.create()!;
    expect(mm.brk(BASE)).toBe(true);
    expect(mm.brk(BASE + 8 * PAGE)).toBe(true);
    expect(mm.brk(BASE + 12 * PAGE)).toBe(true);
    expect(mm.list()).toEqual([{ start: BASE, end: BASE + 12 * PAGE, flags: RW }]);
    expect(mm.brk(BASE + 2 * PAGE)).toBe(true);
    expect(mm.brk(BASE - PAGE)).toBe(false);
    const wall = mm.map(PAGE, { at: BASE + 20 * PAGE, flags: VM_READ });
    expect(mm.brk(BASE + 30 * PAGE)).toBe(false);
    expect(mm.find(BASE + 3 * PAGE)).toEqual({ start: wall, end: wall + PAGE, flags: VM_READ });
    expect(mm.find(wall + PAGE)).toBeUndefined();
    const top = BASE + 100 * PAGE;
    mm.map(2 * PAGE, { at: top, flags: RW | VM_GROWSDOWN });
    expect(mm.growDown(top - 5 * PAGE)).toBe(true);
    expect(mm.find(top - 5 * PAGE)).toEqual({
      start: top - 5 * PAGE,
      end: top + 2 * PAGE,
      flags: RW | VM_GROWSDOWN,
    });
    expect(mm.growDown(top + 10 * PAGE)).toBe(false);
    expect(mm.validate()).toEqual([]);
    arena.mms.destroy(mm);
  });

  it('refuses what is no range of pages', () => {
    const arena = boot();
    const mm = arena.mms.create()!;
    expect(() => mm.map(PAGE, { at: BASE + 1 })).toThrow(/multiple of 4096/);
    expect(() => mm.unmap(0, PAGE)).toThrow(RangeError);
    expect(() => mm.map(0)).toThrow(/bytes is 0/);
    expect(() => arena.mms.open(64)).toThrow(/BUG mm_struct/);
    arena.mms.destroy(mm);
    // Refused before a reference is taken: another thread's writer would wait for it.
    const area = mm.map(PAGE);
    const flags = { valueOf: () => 1 } as unknown as number;
    expect(() => mm.fault(area, flags)).toThrow(/flags/);
    expect(() => mm.faultUnderMmapLock(area, flags)).toThrow(/flags/);
    expect(mm.unmap(area, PAGE)).toBe(1);
  });
});

describe('the cache of areas', () => {
  it('is type-safe, has its free pointer in the object, and sheaves of the 32 that are asked for, or more', () => {
    const arena = boot();
    const { vmas } = arena.mms;
    expect([vmas.name, vmas.objectSize, vmas.sheafCapacity]).toEqual(['vm_area_struct', 192, 60]);
    expect(vmas.desc.flags & SLAB_TYPESAFE_BY_RCU).not.toBe(0);
    expect(vmas.desc.offset).toBe(24);
    expect(vmas.size, 'no word behind the object').toBe(192);
  });

  it('frees areas at once, and nodes after a grace period', () => {
    const arena = boot();
    const mm = arena.mms.create()!;
    for (let i = 0; i < 20; i++) mm.map(PAGE, { at: BASE + 2 * i * PAGE });
    const before = arena.maple.nodes.stats().FREE_RCU_SHEAF;
    const deltas = moved(arena.mms.vmas, () => expect(mm.unmap(BASE, 20 * PAGE)).toBe(10));
    expect(deltas).toEqual({ FREE_FASTPATH: 10 });
    expect(arena.maple.nodes.stats().FREE_RCU_SHEAF).toBeGreaterThan(before);
    arena.mms.destroy(mm);
  });
});

describe('fork', () => {
  it('copies the tree with one node for the root and a prefilled sheaf for the children of each inner node', () => {
    const arena = boot({ bytes: 16 * MiB });
    const mm = arena.mms.create()!;
    for (let i = 0; i < 700; i++) mm.map(PAGE, { at: BASE + 2 * i * PAGE });
    expect(mm.areasTree.height).toBe(3);
    const watch = watchNodes(arena.maple.nodes);
    const child = arena.mms.fork(mm)!;
    const [root, ...rest] = watch.calls;
    expect(root).toBe('alloc');
    const sheaves = rest.filter((_, i) => i % 2 === 0);
    expect(rest.filter((_, i) => i % 2 === 1)).toEqual(sheaves.map(() => 'return'));
    expect(sheaves.every((call) => /^prefill \d+$/.test(call))).toBe(true);
    // The first is for the root's children; each of these is an inner node with a sheaf of its own.
    const counts = sheaves.map((call) => Number(call.split(' ')[1]));
    expect(counts.length).toBe(1 + counts[0]!);
    expect(child.validate()).toEqual([]);
    expect(child.list()).toEqual(mm.list());
  });

  it('undoes itself, whichever allocation fails for good', () => {
    const arena = boot({ bytes: 16 * MiB });
    const mm = arena.mms.create()!;
    for (let i = 0; i < 300; i++) mm.map(PAGE, { at: BASE + 2 * i * PAGE });
    const list = mm.list();
    const { nodes } = arena.maple;
    const { vmas } = arena.mms;
    const honest = { alloc: nodes.alloc, prefill: nodes.prefill };
    const allocVma = vmas.alloc;
    let left = 0;
    for (left = 0; left < 400; left += 23) {
      let budget = left;
      const spend = (): boolean => budget-- > 0;
      nodes.alloc = (gfp) => (spend() ? honest.alloc.call(nodes, gfp) : 0);
      nodes.prefill = (n, gfp) => (spend() ? honest.prefill.call(nodes, n, gfp) : null);
      vmas.alloc = (gfp) => (spend() ? allocVma.call(vmas, gfp) : 0);
      const child = arena.mms.fork(mm);
      Object.assign(nodes, honest);
      vmas.alloc = allocVma;
      if (child !== null) break;
      expect(mm.list()).toEqual(list);
      expect(mm.validate()).toEqual([]);
    }
    expect(left).toBeGreaterThan(300);
    expect(left).toBeLessThan(400);
    expect(vmas.stats().ALLOC_FASTPATH).toBeGreaterThan(300);
  });
});

describe('out of memory', () => {
  it('an operation fails, retries, or leaves what there was', () => {
    const arena = boot({ bytes: 16 * MiB });
    const { nodes } = arena.maple;
    const { vmas } = arena.mms;
    const mm = arena.mms.create()!;
    const model = new RangeModel();
    for (let i = 0; i < 60; i++)
      apply(mm, model, { kind: 'map', at: 2 * i, pages: 1, flags: i % 3 === 0 ? VM_READ : RW });
    const allocs = { alloc: nodes.alloc, prefill: nodes.prefill, refill: nodes.refill };
    const allocVma = vmas.alloc;
    let failed = 0;
    for (let round = 0; round < 120; round++) {
      const start = BASE + (round % 50) * 2 * PAGE;
      const bytes = 3 * PAGE;
      const before = runs(model);
      nodes.alloc = () => 0;
      nodes.prefill = () => null;
      nodes.refill = () => null;
      if (round % 2 === 0) vmas.alloc = () => 0;
      const done = round % 3 === 0 ? mm.unmap(start, bytes) >= 0 : mm.protect(start, bytes, VM_EXEC);
      Object.assign(nodes, allocs);
      vmas.alloc = allocVma;
      expect(mm.validate()).toEqual([]);
      if (!done) failed++;
      // What a failed protect has done it has done completely; do it again.
      if (round % 3 !== 0) {
        expect(mm.protect(start, bytes, VM_EXEC)).toBe(true);
        for (const { first, last } of model.overlapping(start, start + bytes - 1)) {
          model.store(Math.max(first, start), Math.min(last, start + bytes - 1), VM_EXEC);
        }
      } else if (done) model.store(start, start + bytes - 1, 0);
      else expect(merged(mm.list())).toEqual(before);
      apply(mm, model, { kind: 'map', at: (round % 50) * 2, pages: 1, flags: RW });
    }
    expect(failed).toBeGreaterThan(30);
    expect(merged(mm.list())).toEqual(runs(model));
    arena.mms.destroy(mm);
    arena.kfreeRcuBarrier();
    expectSound(arena);
  });
});

/** Areas with what a failed operation split as one. */
function merged(areas: Area[]): Area[] {
  const model = new RangeModel();
  for (const { start, end, flags } of areas) model.store(start, end - 1, flags);
  return runs(model);
}
