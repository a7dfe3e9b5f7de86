import { describe, expect, it } from 'vitest';
import {
  AttachError,
  CpuError,
  describe as describeValue,
  GranaryError,
  LockError,
  optionError,
  requireInteger,
  requireOneOf,
  SlabBugError,
} from '#src/struct/index.js';

describe('describe', () => {
  it.each([
    [undefined, 'undefined'],
    [null, 'null'],
    [Number.NaN, 'NaN'],
    [-0.5, '-0.5'],
    [5n, '5n'],
    ['a "b"', '"a \\"b\\""'],
    [true, 'true'],
    [Symbol('s'), 'Symbol(s)'],
    [[1], 'an Array'],
    [{}, 'an Object'],
    [Object.create(null), 'an object'],
    [new Uint8Array(3), 'a Uint8Array'],
    [() => 1, 'a Function'],
  ])('says %o shortly', (value, text) => {
    expect(describeValue(value)).toBe(text);
  });

  it('cuts a long text', () => {
    expect(describeValue('x'.repeat(1000))).toHaveLength('""...'.length + 64);
  });
});

describe('requireInteger', () => {
  it('returns what is in range', () => {
    expect(requireInteger('n', 3, 3, 5)).toBe(3);
    expect(requireInteger('n', 5, 3, 5)).toBe(5);
  });

  it.each([2, 6, 3.5, Number.NaN, Number.POSITIVE_INFINITY])(
    'refuses %s with name, value and range',
    (value) => {
      expect(() => requireInteger('n', value, 3, 5)).toThrow(RangeError);
      expect(() => requireInteger('n', value, 3, 5)).toThrow(
        `n is ${value}; it must be an integer from 3 to 5`,
      );
    },
  );

  it.each([
    ['4', '"4"'],
    [4n, '4n'],
    [null, 'null'],
    [{}, 'an Object'],
  ])('refuses the type of %o', (value, text) => {
    expect(() => requireInteger('n', value, 3, 5)).toThrow(TypeError);
    expect(() => requireInteger('n', value, 3, 5)).toThrow(`n is ${text}; it must be a number`);
  });
});

describe('options by name', () => {
  it('are one of a list', () => {
    expect(requireOneOf('policy', 'b', ['a', 'b'])).toBe('b');
    expect(() => requireOneOf('policy', 'c', ['a', 'b'])).toThrow('policy is "c"; it must be one of a, b');
    expect(optionError('x', 1, 'even')).toBeInstanceOf(RangeError);
  });
});

describe('the errors', () => {
  it('carry what a caller needs to react', () => {
    const bug = new SlabBugError('double-free', 'foo', 4096, 'Object already free');
    expect(bug).toMatchObject({ name: 'SlabBugError', kind: 'double-free', cache: 'foo', address: 4096 });
    expect(bug.message).toBe('BUG foo: Object already free');
    expect(new LockError('m', 'barn->lock', 3)).toMatchObject({
      name: 'LockError',
      lockClass: 'barn->lock',
      owner: 3,
    });
    for (const error of [bug, new LockError('m', 'c', 0), new CpuError('m'), new AttachError('m')]) {
      expect(error).toBeInstanceOf(GranaryError);
      expect(error).toBeInstanceOf(Error);
    }
  });
});
