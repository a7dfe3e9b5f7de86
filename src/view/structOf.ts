/**
 * Structs for what users put into objects: fields by name, in C's layout, read and written through cursors.
 *
 * A cursor is one JavaScript object that is moved from object to object, so that looking at a million of them makes none.
 * Its class is put together from a function per field, without any code that is made at run time: it works under a content
 * security policy that forbids `eval`.
 */
import type { KmemCache } from '../cache/index.js';
import { type Geometry, requireObject, requireString } from '../struct/index.js';
import { type Cursor, cursorClass } from './cursor.js';
import { type FieldTypes, layOutFields, type StructShape } from './fields.js';

/** An arena, as far as a view needs it. */
export interface ViewSource {
  readonly buffer: SharedArrayBuffer;
  readonly geometry: Geometry;
}

/** What {@link structOf} returns. */
export interface StructType<F extends FieldTypes = FieldTypes> extends StructShape<F> {
  /**
   * A cursor of its own. Take one for each object that is looked at at the same time. In a hardened arena it accepts only
   * allocated objects, of `cache` if one is given, and looks at each access whether they still are.
   */
  cursor(arena: ViewSource, cache?: KmemCache): Cursor<F>;
}

/** Names that a cursor has already. */
const TAKEN = ['at', 'address', 'constructor', 'assertLive'];

/**
 * Defines a struct. Fields are numbers (`i8` to `f64`, `i64` and `u64` as bigint), `addr` for the address of another object,
 * arrays, text, and other structs.
 * @example
 * const Point = structOf('point', { x: 'f64', y: 'f64', next: 'addr', name: textOf(16) });
 * const point = Point.cursor(arena);
 * point.at(p).x = 1.5;
 * for (let q = p; q !== 0; q = point.at(q).next) sum += point.at(q).y;
 */
export function structOf<const F extends FieldTypes>(name: string, types: F): StructType<F> {
  requireString('name', name);
  requireObject('types', types);
  const reserved = Object.keys(types).find((field) => TAKEN.includes(field));
  if (reserved !== undefined) {
    throw new RangeError(`a field of struct ${name} is named ${reserved}, which every cursor has already`);
  }
  const { fields, sizeof, alignof } = layOutFields(name, types);
  const type: StructType<F> = {
    kind: 'struct',
    name,
    sizeof,
    alignof,
    types: Object.freeze({ ...types }),
    fields: fields as StructType<F>['fields'],
    cursor: (arena, cache) => new (cursorClass(type, arena))(cache?.primary.desc.ptr ?? 0),
  };
  return Object.freeze(type);
}
