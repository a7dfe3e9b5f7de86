/** The word view over an arena: every shared structure is read and written through one of these per thread. */
export type Words = Int32Array<SharedArrayBuffer>;
export type Bytes = Uint8Array<SharedArrayBuffer>;
export type Doubles = Float64Array<SharedArrayBuffer>;

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 1 << PAGE_SHIFT;

/** Rounds up to a multiple of `to`, a power of two. Exact for values below 2^53. */
export function alignUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
