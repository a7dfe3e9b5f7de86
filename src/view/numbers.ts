/** One typed array a kind of number over a buffer, and how each is read and written at a byte address. */
import type { Scalar } from './fields.js';

export interface NumberViews {
  readonly i8: Int8Array<SharedArrayBuffer>;
  readonly u8: Uint8Array<SharedArrayBuffer>;
  readonly i16: Int16Array<SharedArrayBuffer>;
  readonly u16: Uint16Array<SharedArrayBuffer>;
  readonly i32: Int32Array<SharedArrayBuffer>;
  readonly u32: Uint32Array<SharedArrayBuffer>;
  readonly f32: Float32Array<SharedArrayBuffer>;
  readonly f64: Float64Array<SharedArrayBuffer>;
  readonly i64: BigInt64Array<SharedArrayBuffer>;
  readonly u64: BigUint64Array<SharedArrayBuffer>;
}

export function numberViews(buffer: SharedArrayBuffer): NumberViews {
  return {
    i8: new Int8Array(buffer),
    u8: new Uint8Array(buffer),
    i16: new Int16Array(buffer),
    u16: new Uint16Array(buffer),
    i32: new Int32Array(buffer),
    u32: new Uint32Array(buffer),
    f32: new Float32Array(buffer),
    f64: new Float64Array(buffer),
    i64: new BigInt64Array(buffer),
    u64: new BigUint64Array(buffer),
  };
}

/** What a field's accessors stand on: something with the address of an object. */
export interface At {
  readonly address: number;
}

export type Accessors = PropertyDescriptor & ThisType<At>;

/** Reads and writes element `i` of numbers that lie one behind the other from a byte address on. */
export interface Elements {
  get(p: number, i: number): number | bigint;
  set(p: number, i: number, value: number | bigint): void;
}

/*
 * Each kind has functions of its own, though all say the same: V8 keeps what it learns of an array access with the source
 * in which it is written, and an access that has met several kinds of arrays is slow for each of them.
 */

/** A property of a cursor: the number `offset` bytes into its object. */
export const numberField: Readonly<Record<Scalar, (v: NumberViews, offset: number) => Accessors>> = {
  i8: ({ i8 }, offset) => ({
    get() {
      return i8[this.address + offset]!;
    },
    set(value: number) {
      i8[this.address + offset] = value;
    },
  }),
  u8: ({ u8 }, offset) => ({
    get() {
      return u8[this.address + offset]!;
    },
    set(value: number) {
      u8[this.address + offset] = value;
    },
  }),
  i16: ({ i16 }, offset) => ({
    get() {
      return i16[(this.address + offset) >> 1]!;
    },
    set(value: number) {
      i16[(this.address + offset) >> 1] = value;
    },
  }),
  u16: ({ u16 }, offset) => ({
    get() {
      return u16[(this.address + offset) >> 1]!;
    },
    set(value: number) {
      u16[(this.address + offset) >> 1] = value;
    },
  }),
  i32: ({ i32 }, offset) => ({
    get() {
      return i32[(this.address + offset) >> 2]!;
    },
    set(value: number) {
      i32[(this.address + offset) >> 2] = value;
    },
  }),
  u32: ({ u32 }, offset) => ({
    get() {
      return u32[(this.address + offset) >> 2]!;
    },
    set(value: number) {
      u32[(this.address + offset) >> 2] = value;
    },
  }),
  f32: ({ f32 }, offset) => ({
    get() {
      return f32[(this.address + offset) >> 2]!;
    },
    set(value: number) {
      f32[(this.address + offset) >> 2] = value;
    },
  }),
  f64: ({ f64 }, offset) => ({
    get() {
      return f64[(this.address + offset) >> 3]!;
    },
    set(value: number) {
      f64[(this.address + offset) >> 3] = value;
    },
  }),
  i64: ({ i64 }, offset) => ({
    get() {
      return i64[(this.address + offset) >> 3]!;
    },
    set(value: bigint) {
      i64[(this.address + offset) >> 3] = value;
    },
  }),
  u64: ({ u64 }, offset) => ({
    get() {
      return u64[(this.address + offset) >> 3]!;
    },
    set(value: bigint) {
      u64[(this.address + offset) >> 3] = value;
    },
  }),
  addr: ({ i32 }, offset) => ({
    get() {
      return i32[(this.address + offset) >> 2]!;
    },
    set(value: number) {
      i32[(this.address + offset) >> 2] = value;
    },
  }),
};

/** The same for the elements of an array. */
export const numberElements: Readonly<Record<Scalar, (v: NumberViews) => Elements>> = {
  i8: ({ i8 }) => ({
    get: (p, i) => i8[p + i]!,
    set: (p, i, value) => {
      i8[p + i] = value as number;
    },
  }),
  u8: ({ u8 }) => ({
    get: (p, i) => u8[p + i]!,
    set: (p, i, value) => {
      u8[p + i] = value as number;
    },
  }),
  i16: ({ i16 }) => ({
    get: (p, i) => i16[(p >> 1) + i]!,
    set: (p, i, value) => {
      i16[(p >> 1) + i] = value as number;
    },
  }),
  u16: ({ u16 }) => ({
    get: (p, i) => u16[(p >> 1) + i]!,
    set: (p, i, value) => {
      u16[(p >> 1) + i] = value as number;
    },
  }),
  i32: ({ i32 }) => ({
    get: (p, i) => i32[(p >> 2) + i]!,
    set: (p, i, value) => {
      i32[(p >> 2) + i] = value as number;
    },
  }),
  u32: ({ u32 }) => ({
    get: (p, i) => u32[(p >> 2) + i]!,
    set: (p, i, value) => {
      u32[(p >> 2) + i] = value as number;
    },
  }),
  f32: ({ f32 }) => ({
    get: (p, i) => f32[(p >> 2) + i]!,
    set: (p, i, value) => {
      f32[(p >> 2) + i] = value as number;
    },
  }),
  f64: ({ f64 }) => ({
    get: (p, i) => f64[(p >> 3) + i]!,
    set: (p, i, value) => {
      f64[(p >> 3) + i] = value as number;
    },
  }),
  i64: ({ i64 }) => ({
    get: (p, i) => i64[(p >> 3) + i]!,
    set: (p, i, value) => {
      i64[(p >> 3) + i] = value as bigint;
    },
  }),
  u64: ({ u64 }) => ({
    get: (p, i) => u64[(p >> 3) + i]!,
    set: (p, i, value) => {
      u64[(p >> 3) + i] = value as bigint;
    },
  }),
  addr: ({ i32 }) => ({
    get: (p, i) => i32[(p >> 2) + i]!,
    set: (p, i, value) => {
      i32[(p >> 2) + i] = value as number;
    },
  }),
};
