/** The kinds of fields that a struct may have, and where they lie: C's layout, each at a multiple of its own alignment. */
import { describe, optionError, requireInteger } from '../struct/index.js';

/** Bytes of each number; its alignment is the same. `addr` is the address of another object, 0 for none. */
const SCALAR_BYTES = {
  i8: 1,
  u8: 1,
  i16: 2,
  u16: 2,
  i32: 4,
  u32: 4,
  f32: 4,
  f64: 8,
  i64: 8,
  u64: 8,
  addr: 4,
} as const;

/** A number in memory, by its bits; i64 and u64 are bigints. */
export type Scalar = keyof typeof SCALAR_BYTES;

/** `length` elements, one behind the other. Made by {@link arrayOf}. */
export interface ArrayType<E extends ElementType = ElementType> {
  readonly kind: 'array';
  readonly element: E;
  readonly length: number;
}

/** UTF-8 in `bytes` bytes, with zeros behind. Made by {@link textOf}. */
export interface TextType {
  readonly kind: 'text';
  readonly bytes: number;
}

/** What a struct is to others that have it as a field. */
export interface StructShape<F extends FieldTypes = FieldTypes> {
  readonly kind: 'struct';
  readonly name: string;
  readonly sizeof: number;
  readonly alignof: number;
  readonly types: F;
  readonly fields: { readonly [K in keyof F]: FieldPlace };
}

// biome-ignore lint/suspicious/noExplicitAny: a struct within a struct within a struct: TypeScript needs an end
export type ElementType = Scalar | StructShape<any>;
export type FieldType = ElementType | ArrayType | TextType;
/** The fields of a struct, in their order. */
export type FieldTypes = Readonly<Record<string, FieldType>>;

/** Where a field lies in its struct, in bytes. */
export interface FieldPlace {
  readonly offset: number;
  readonly bytes: number;
}

const STRUCT_BYTES_MAX = 1 << 22;

/**
 * A field of `length` numbers or structs.
 * @example
 * const Node = structOf('node', { keys: arrayOf('u32', 8), children: arrayOf('addr', 9) });
 */
export function arrayOf<E extends ElementType>(element: E, length: number): ArrayType<E> {
  requireInteger('length', length, 1, STRUCT_BYTES_MAX);
  sizeAndAlign('element', element);
  return Object.freeze({ kind: 'array', element, length });
}

/** A field of text that takes up to `bytes` bytes of UTF-8. */
export function textOf(bytes: number): TextType {
  requireInteger('bytes', bytes, 1, STRUCT_BYTES_MAX);
  return Object.freeze({ kind: 'text', bytes });
}

export function isScalar(type: unknown): type is Scalar {
  return typeof type === 'string' && Object.hasOwn(SCALAR_BYTES, type);
}

/** Bytes and alignment of a field. Throws RangeError that names it when `type` is none. */
function sizeAndAlign(name: string, type: FieldType): { bytes: number; align: number } {
  if (isScalar(type)) return { bytes: SCALAR_BYTES[type], align: SCALAR_BYTES[type] };
  if (typeof type === 'object' && type !== null) {
    if (type.kind === 'text') return { bytes: type.bytes, align: 1 };
    if (type.kind === 'struct') return { bytes: type.sizeof, align: type.alignof };
    if (type.kind === 'array') {
      const { bytes, align } = sizeAndAlign(name, type.element);
      return { bytes: bytes * type.length, align };
    }
  }
  const known = Object.keys(SCALAR_BYTES).join(', ');
  throw optionError(
    `type of ${name}`,
    typeof type === 'object' ? describe(type) : type,
    `one of ${known}, or what structOf, arrayOf or textOf returns`,
  );
}

/** Lays fields out in their order. */
export function layOutFields(
  name: string,
  types: FieldTypes,
): { fields: Record<string, FieldPlace>; sizeof: number; alignof: number } {
  const fields: Record<string, FieldPlace> = {};
  let end = 0;
  let alignof = 1;
  for (const [field, type] of Object.entries(types)) {
    const { bytes, align } = sizeAndAlign(`${name}.${field}`, type);
    const offset = Math.ceil(end / align) * align;
    fields[field] = Object.freeze({ offset, bytes });
    end = offset + bytes;
    alignof = Math.max(alignof, align);
  }
  const sizeof = Math.ceil(end / alignof) * alignof;
  if (sizeof === 0 || sizeof > STRUCT_BYTES_MAX) {
    throw new RangeError(`struct ${name} has ${sizeof} bytes; it must have 1 to ${STRUCT_BYTES_MAX}`);
  }
  return { fields: Object.freeze(fields), sizeof, alignof };
}
