import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  calculateAlignment,
  calculateCpuPartial,
  calculateMinObjects,
  calculateMinPartial,
  calculateOrder,
  calculateSheafCapacity,
  calculateSizes,
  getOrder,
  type LayoutInput,
} from '#src/slab/layout.js';

const MAX_BYTES = 4 << 20;
const layout = (objectSize: number, more: Partial<LayoutInput> = {}) =>
  calculateSizes({ objectSize, cpus: 2, ...more });

describe('objects per slab', () => {
  it('wants 4 * (bits of the CPU count + 1) objects', () => {
    const expected = (cpus: number) => {
      if (cpus === 1) return 8;
      if (cpus < 4) return 12;
      if (cpus < 8) return 16;
      if (cpus < 16) return 20;
      if (cpus < 32) return 24;
      return cpus < 64 ? 28 : 32;
    };
    for (let cpus = 1; cpus <= 64; cpus++)
      expect(calculateMinObjects(cpus), `${cpus} CPUs`).toBe(expected(cpus));
  });

  it.each([
    [1, 0, 8],
    [2, 1, 16],
    [4, 1, 16],
    [8, 2, 32],
    [64, 2, 32],
  ])('gives 512-byte objects on %i CPUs order %i', (cpus, order, objects) => {
    expect(calculateSizes({ objectSize: 512, cpus })).toMatchObject({ order, objects });
  });
});

describe('order', () => {
  it.each([
    [8, 0, 512],
    [192, 0, 21],
    [456, 1, 17],
    [688, 2, 23],
    [1472, 3, 22],
    [2672, 3, 12],
    [8192, 3, 4],
    [32768, 3, 1],
    [51488, 4, 1],
    [65536, 4, 1],
    [MAX_BYTES, 10, 1],
  ])('of a %i-byte object is %i with %i objects', (size, order, objects) => {
    expect(layout(size)).toMatchObject({ size, order, objects });
  });

  it('accepts more waste only when no order is tight enough', () => {
    // 3 objects of 10000 leave 2768 of 32768 bytes: more than 1/16, less than 1/8.
    expect(layout(10000)).toMatchObject({ order: 3, objects: 3 });
    // One object of 17000 leaves 15768 bytes: only the last fraction, 1/2, admits it.
    expect(layout(17000)).toMatchObject({ order: 3, objects: 1 });
  });

  it('keeps the smallest usable slab beside the preferred one', () => {
    expect(layout(2048)).toMatchObject({ order: 3, objects: 16, minOrder: 0, minObjects: 2 });
    expect(layout(5000)).toMatchObject({ minOrder: 1, minObjects: 1 });
  });

  it('follows the kernel parameters', () => {
    expect(calculateOrder(64, { cpus: 2, minOrder: 2 })).toBe(2);
    expect(calculateOrder(2048, { cpus: 2, maxOrder: 1 })).toBe(1);
    expect(calculateOrder(512, { cpus: 2, minObjects: 64 })).toBe(3);
    expect(layout(512, { maxOrder: 0 })).toMatchObject({ order: 0, objects: 8 });
  });

  it('never holds more objects than a slab can count', () => {
    expect(calculateOrder(8, { cpus: 2, minOrder: 6, maxOrder: 10 })).toBe(5);
    expect(calculateOrder(8, { cpus: 2, minOrder: 5, maxOrder: 10 })).toBe(5);
  });

  it('is the lowest that holds the bytes', () => {
    expect([1, 4096, 4097, 8192, 8193, MAX_BYTES, MAX_BYTES + 1].map(getOrder)).toEqual([
      0, 0, 1, 1, 2, 10, 11,
    ]);
  });
});

describe('alignment', () => {
  it('is a word at least, and what was asked for', () => {
    expect(calculateAlignment(100)).toBe(8);
    expect(calculateAlignment(100, 1)).toBe(8);
    expect(calculateAlignment(100, 16)).toBe(16);
    expect(calculateAlignment(8192, 8192)).toBe(8192);
  });

  it.each([
    [1, 8],
    [8, 8],
    [9, 16],
    [16, 16],
    [17, 32],
    [32, 32],
    [33, 64],
    [64, 64],
    [65, 64],
    [5000, 64],
  ])('to cache lines is halved while the object of %i bytes fits: %i', (size, align) => {
    expect(calculateAlignment(size, 0, true)).toBe(align);
  });

  it('takes the larger of the cache line and the request', () => {
    expect(calculateAlignment(20, 8, true)).toBe(32);
    expect(calculateAlignment(20, 256, true)).toBe(256);
  });

  it('rounds the stride, not the object', () => {
    expect(layout(72, { hwcacheAlign: true })).toMatchObject({ inuse: 72, size: 128, align: 64 });
  });
});

describe('free pointer', () => {
  it.each([
    [1, 0],
    [8, 0],
    [15, 0],
    [16, 8],
    [24, 8],
    [40, 16],
    [192, 96],
  ])('lies in the middle of a plain object of %i bytes: %i', (size, offset) => {
    expect(layout(size).offset).toBe(offset);
  });

  it('lies behind an object whose contents must survive a free', () => {
    expect(layout(112, { typesafeByRcu: true })).toMatchObject({ inuse: 112, offset: 112, size: 120 });
    expect(layout(1008, { hasCtor: true })).toMatchObject({ inuse: 1008, offset: 1008, size: 1016 });
    expect(layout(13, { hasCtor: true })).toMatchObject({ inuse: 16, offset: 16, size: 24 });
  });

  it('uses the padding before the alignment when there is some', () => {
    expect(layout(184, { typesafeByRcu: true, hwcacheAlign: true })).toMatchObject({
      offset: 184,
      size: 192,
    });
  });

  it('lies where the cache asked, and costs nothing there', () => {
    const input = { typesafeByRcu: true, hwcacheAlign: true, freeptrOffset: 40 };
    expect(layout(192, input)).toMatchObject({ offset: 40, size: 192 });
    expect(layout(12, { hasCtor: true, freeptrOffset: 8 })).toMatchObject({ offset: 8, size: 16 });
    expect(layout(64, { hasCtor: true, freeptrOffset: 0 })).toMatchObject({ offset: 0, size: 64 });
  });
});

describe('limits by stride', () => {
  it.each([
    [8, 60],
    [248, 60],
    [256, 28],
    [1016, 28],
    [1024, 12],
    [4088, 12],
    [4096, 4],
    [MAX_BYTES, 4],
  ])('a sheaf of %i-byte objects holds %i', (size, capacity) => {
    expect(calculateSheafCapacity(size)).toBe(capacity);
    expect(layout(size).sheafCapacity).toBe(capacity);
  });

  it('a request only raises the capacity', () => {
    expect(calculateSheafCapacity(256, 32)).toBe(32);
    expect(calculateSheafCapacity(192, 32)).toBe(60);
    expect(layout(256, { sheafCapacity: 100 }).sheafCapacity).toBe(100);
  });

  it('min_partial is half the stride in powers of two, from 5 to 10', () => {
    const sizes = [8, 4095, 4096, 16383, 16384, 1 << 18, 1 << 20, MAX_BYTES];
    expect(sizes.map(calculateMinPartial)).toEqual([5, 5, 6, 6, 7, 9, 10, 10]);
  });

  it('cpu_partial falls with the stride', () => {
    expect([8, 255, 256, 1023, 1024, 4095, 4096].map(calculateCpuPartial)).toEqual([
      120, 120, 52, 52, 24, 24, 6,
    ]);
  });

  it('all count the stride, not the object', () => {
    const grown = layout(1020, { typesafeByRcu: true });
    expect(grown).toMatchObject({ size: 1032, cpuPartial: 24, sheafCapacity: 12 });
  });
});

describe('refusals', () => {
  it.each([0, -8, Number.NaN, 1.5, Number.POSITIVE_INFINITY, MAX_BYTES + 1])(
    'an object of %d bytes',
    (size) => {
      expect(() => layout(size)).toThrow(RangeError);
      expect(() => layout(size)).toThrow(`size must be a whole number from 1 to 4194304, got ${size}`);
    },
  );

  it('an object that no longer fits with its free pointer', () => {
    const tooLarge = () => layout(MAX_BYTES, { hasCtor: true });
    expect(tooLarge).toThrow(RangeError);
    expect(tooLarge).toThrow(/^size must leave room .* got 4194304 \(slot of 4194312 bytes, align 8\)$/);
  });

  it.each([3, 12, -8, Number.NaN, 0.5, MAX_BYTES * 2, 2 ** 32])('an alignment of %d', (align) => {
    expect(() => layout(64, { align })).toThrow(RangeError);
    expect(() => layout(64, { align })).toThrow(
      `align must be 0 or a power of two up to 4194304, got ${align}`,
    );
  });

  it.each([-8, 64, 72, Number.NaN, 4.5])('a free pointer at %d of a 64-byte object', (freeptrOffset) => {
    const input = { typesafeByRcu: true, freeptrOffset };
    expect(() => layout(64, input)).toThrow(RangeError);
    expect(() => layout(64, input)).toThrow(
      `freeptrOffset must be a whole number from 0 to 63, got ${freeptrOffset}`,
    );
  });

  it('a misaligned free pointer, and one that nothing asks for', () => {
    expect(() => layout(64, { hasCtor: true, freeptrOffset: 12 })).toThrow(
      'freeptrOffset must be a multiple of 8, got 12',
    );
    expect(() => layout(64, { freeptrOffset: 8 })).toThrow(
      'freeptrOffset 8 is only allowed with SLAB_TYPESAFE_BY_RCU or a constructor',
    );
  });

  it.each([
    ['cpus', { cpus: 0 }],
    ['cpus', { cpus: Number.NaN }],
    ['minOrder', { minOrder: 4 }],
    ['maxOrder', { maxOrder: 11 }],
    ['minObjects', { minObjects: -1 }],
    ['sheafCapacity', { sheafCapacity: -1 }],
    ['sheafCapacity', { sheafCapacity: 2.5 }],
  ])('a bad %s', (name, input) => {
    expect(() => layout(64, input)).toThrow(RangeError);
    expect(() => layout(64, input)).toThrow(`${name} must be a whole number from`);
  });
});

describe('every layout', () => {
  const size = fc.oneof(
    fc.integer({ min: 1, max: 600 }),
    fc.integer({ min: 1, max: 40_000 }),
    fc.integer({ min: 1, max: MAX_BYTES / 2 }),
  );
  const input = fc.record({
    objectSize: size,
    align: fc.integer({ min: 0, max: 12 }).map((bits) => 1 << bits),
    hwcacheAlign: fc.boolean(),
    typesafeByRcu: fc.boolean(),
    hasCtor: fc.boolean(),
    cpus: fc.integer({ min: 1, max: 512 }),
  });

  it('keeps objects apart, aligned and inside the slab', () => {
    fc.assert(
      fc.property(input, (given) => {
        const made = calculateSizes(given);
        const survives = given.typesafeByRcu || given.hasCtor;
        expect(made.size).toBeGreaterThanOrEqual(survives ? given.objectSize + 8 : given.objectSize);
        expect(made.size).toBeGreaterThanOrEqual(8);
        expect(made.size % made.align).toBe(0);
        expect(made.align).toBeGreaterThanOrEqual(given.align);
        expect(made.objects * made.size).toBeLessThanOrEqual(4096 << made.order);
        expect((made.objects + 1) * made.size).toBeGreaterThan(4096 << made.order);
        expect(made.minObjects * made.size).toBeLessThanOrEqual(4096 << made.minOrder);
        expect(made.objects).toBeGreaterThanOrEqual(1);
        expect(made.minObjects).toBeGreaterThanOrEqual(1);
        expect(made.objects).toBeLessThanOrEqual(32767);
        expect(made.offset % 8).toBe(0);
        expect(made.offset + 8).toBeLessThanOrEqual(made.size);
        if (survives) expect(made.offset).toBeGreaterThanOrEqual(given.objectSize);
      }),
      { numRuns: 2000 },
    );
  });

  it('wastes as little as some order up to the limit allows', () => {
    const stride = size.map((bytes) => Math.ceil(bytes / 8) * 8);
    fc.assert(
      fc.property(stride, fc.integer({ min: 1, max: 512 }), (bytes, cpus) => {
        const order = calculateOrder(bytes, { cpus });
        if (bytes > 4096 << 3) {
          expect(order).toBe(getOrder(bytes));
          return;
        }
        const waste = (at: number) => ((4096 << at) % bytes) / (4096 << at);
        const enough = Math.min(calculateMinObjects(cpus), Math.floor((4096 << 3) / bytes));
        const usable = [0, 1, 2, 3].filter((at) => Math.floor((4096 << at) / bytes) >= enough);
        const fraction = [1 / 16, 1 / 8, 1 / 4, 1 / 2].find((most) =>
          usable.some((at) => waste(at) <= most),
        )!;
        expect(order).toBe(usable.find((at) => waste(at) <= fraction));
      }),
      { numRuns: 2000 },
    );
  });
});
