/** The classes of cursors: one per struct and arena, made when the first cursor is. */
import type { KmemCachePtr } from '../slab/index.js';
import { describe, type Geometry, SlabBugError } from '../struct/index.js';
import type {
  ArrayType,
  ElementType,
  FieldType,
  FieldTypes,
  Scalar,
  StructShape,
  TextType,
} from './fields.js';
import { isScalar } from './fields.js';
import {
  type Accessors,
  type At,
  type Elements,
  type NumberViews,
  numberElements,
  numberField,
  numberViews,
} from './numbers.js';
import type { ViewSource } from './structOf.js';
import { readText, writeText } from './text.js';
import { UserCopy } from './usercopy.js';

type Value<T> = T extends 'i64' | 'u64'
  ? bigint
  : T extends Scalar
    ? number
    : T extends TextType
      ? string
      : T extends ArrayType<infer E>
        ? ArrayView<E>
        : T extends StructShape<infer G>
          ? Fields<G>
          : never;

type Writable = Scalar | TextType;

/** The fields of one struct in the arena. A field that is itself a struct or an array is a view of it. */
export type Fields<F extends FieldTypes> = {
  -readonly [K in keyof F as F[K] extends Writable ? K : never]: Value<F[K]>;
} & { readonly [K in keyof F as F[K] extends Writable ? never : K]: Value<F[K]> };

/** A view that is moved from object to object. */
export type Cursor<F extends FieldTypes> = Fields<F> & {
  /** Looks at the object at `address` from now on, and returns itself. */
  at(address: number): Cursor<F>;
  /** Address of the object that it looks at; 0 before the first. */
  readonly address: number;
};

/** An array within an object. */
export interface ArrayView<E extends ElementType> {
  readonly length: number;
  /** Element `i`; one that is a struct is a view that the next call moves. Throws RangeError outside. */
  get(i: number): Value<E>;
  /** Writes element `i`; not for structs. Throws RangeError outside. */
  set(i: number, value: Value<E>): void;
}

/** What a cursor has beside its fields. */
interface Base extends At {
  address: number;
  at(address: number): Base;
}

/** A cursor, or a view on a part of what a cursor looks at. */
interface Place extends At {
  /** In a hardened arena: throws unless the object is still what it was. */
  assertLive?(): void;
}

type AnyCursorClass = new (cache: number) => Base;
/** Makes what a cursor has for a field that is no single value. */
type PartMaker = (whole: Place) => object;

/** What the classes of one arena have in common. */
class ViewSet {
  readonly numbers: NumberViews;
  readonly guard: UserCopy;
  readonly shadow: Uint8Array<SharedArrayBuffer>;
  readonly classes = new Map<StructShape, AnyCursorClass>();

  constructor(buffer: SharedArrayBuffer, geometry: Geometry) {
    this.numbers = numberViews(buffer);
    this.shadow = new Uint8Array(buffer, geometry.shadow, geometry.shadow === 0 ? 0 : geometry.bytes / 8);
    const { i32: m, u8, f64 } = this.numbers;
    this.guard = new UserCopy({ m, u8, f64, shadow: this.shadow }, geometry);
  }
}

const sets = new WeakMap<SharedArrayBuffer, ViewSet>();

export function cursorClass<F extends FieldTypes>(
  type: StructShape<F>,
  { buffer, geometry }: ViewSource,
): new (
  cache: number,
) => Cursor<F> {
  let set = sets.get(buffer);
  if (set === undefined) {
    set = new ViewSet(buffer, geometry);
    sets.set(buffer, set);
  }
  let made = set.classes.get(type);
  if (made === undefined) {
    made = set.guard.hardened ? guardedClass(set, type) : plainClass(set, type);
    set.classes.set(type, made);
  }
  return made as unknown as new (
    cache: number,
  ) => Cursor<F>;
}

function plainClass(set: ViewSet, type: StructShape): AnyCursorClass {
  const parts = partsOf(set, type);
  const StructCursor = class implements Base {
    address = 0;
    constructor() {
      addParts(this, parts);
    }
    at(address: number): this {
      this.address = address;
      return this;
    }
  };
  defineValues(StructCursor.prototype, set, type);
  return StructCursor;
}

function guardedClass(set: ViewSet, type: StructShape): AnyCursorClass {
  const { guard, shadow } = set;
  const { name, sizeof } = type;
  const parts = partsOf(set, type);
  const GuardedCursor = class implements Base {
    address = 0;
    private readonly cache: number;
    private state = 0;

    constructor(cache: number) {
      this.cache = cache;
      addParts(this, parts);
    }

    at(address: number): this {
      guard.assertObject(address, sizeof, this.cache as KmemCachePtr);
      this.address = address;
      this.state = shadow[address >> 3] ?? 0;
      return this;
    }

    assertLive(): void {
      if (this.address !== 0 && (shadow[this.address >> 3] ?? 0) === this.state) return;
      const what = this.address === 0 ? 'moved to no object yet' : 'whose object was freed';
      throw new SlabBugError('use-after-free', name, this.address, `access through a cursor ${what}`);
    }
  };
  defineValues(GuardedCursor.prototype, set, type);
  return GuardedCursor;
}

/** Numbers and text are accessors, which all cursors of a class share. */
function defineValues(prototype: object, set: ViewSet, type: StructShape): void {
  for (const [field, fieldType] of Object.entries(type.types)) {
    const accessors = valueField(set, fieldType, type.fields[field]!.offset);
    if (accessors === undefined) continue;
    const used = set.guard.hardened ? guarded(accessors) : accessors;
    Object.defineProperty(prototype, field, { ...used, enumerable: true });
  }
}

function valueField({ numbers }: ViewSet, type: FieldType, offset: number): Accessors | undefined {
  if (isScalar(type)) return numberField[type](numbers, offset);
  return type.kind === 'text' ? textField(numbers.u8, offset, type.bytes) : undefined;
}

function textField(u8: Uint8Array, offset: number, bytes: number): Accessors {
  return {
    get() {
      return readText(u8, this.address + offset, bytes);
    },
    set(text: string) {
      writeText(u8, this.address + offset, bytes, text);
    },
  };
}

/** The same accessors for a hardened arena. */
function guarded({ get, set }: Accessors): Accessors {
  return {
    get(this: Required<Place>) {
      this.assertLive();
      return get!.call(this);
    },
    set(this: Required<Place>, value: unknown) {
      this.assertLive();
      set!.call(this, value);
    },
  } as Accessors;
}

/** Structs and arrays are made with the cursor, one each, and follow it: their address is reckoned from its. */
function partsOf(set: ViewSet, type: StructShape): ReadonlyMap<string, PartMaker> {
  const parts = new Map<string, PartMaker>();
  for (const [field, fieldType] of Object.entries(type.types)) {
    if (isScalar(fieldType) || fieldType.kind === 'text') continue;
    const { offset } = type.fields[field]!;
    parts.set(
      field,
      fieldType.kind === 'array' ? arrayPart(set, fieldType, offset) : structPart(set, fieldType, offset),
    );
  }
  return parts;
}

function addParts(whole: Place, parts: ReadonlyMap<string, PartMaker>): void {
  for (const [field, make] of parts) {
    Object.defineProperty(whole, field, { value: make(whole), enumerable: true });
  }
}

function structPart(set: ViewSet, type: StructShape, offset: number): (whole: Place) => Element {
  const parts = partsOf(set, type);
  const { sizeof } = type;
  const Part = class implements Element {
    index = 0;
    private readonly whole: Place;
    constructor(whole: Place) {
      this.whole = whole;
      addParts(this, parts);
    }
    get address(): number {
      return this.whole.address + offset + this.index * sizeof;
    }
    assertLive(): void {
      this.whole.assertLive?.();
    }
  };
  defineValues(Part.prototype, set, type);
  return (whole) => new Part(whole);
}

/** A struct within an object; `index` is its number where it is one of several. */
interface Element extends Place {
  index: number;
}

function outside(i: number, length: number): RangeError {
  return new RangeError(`index is ${describe(i)}; it must be an integer from 0 to ${length - 1}`);
}

function arrayPart(set: ViewSet, { element, length }: ArrayType, offset: number): PartMaker {
  return isScalar(element)
    ? numberArrayPart(numberElements[element](set.numbers), length, offset)
    : structArrayPart(structPart(set, element, offset), length);
}

function numberArrayPart({ get, set }: Elements, length: number, offset: number): PartMaker {
  return (whole) =>
    Object.freeze({
      length,
      get(i: number) {
        if (!(i >= 0 && i < length && i === (i | 0))) throw outside(i, length);
        whole.assertLive?.();
        return get(whole.address + offset, i);
      },
      set(i: number, value: number | bigint) {
        if (!(i >= 0 && i < length && i === (i | 0))) throw outside(i, length);
        whole.assertLive?.();
        set(whole.address + offset, i, value);
      },
    });
}

function structArrayPart(make: (whole: Place) => Element, length: number): PartMaker {
  return (whole) => {
    const element = make(whole);
    return Object.freeze({
      length,
      get(i: number) {
        if (!(i >= 0 && i < length && i === (i | 0))) throw outside(i, length);
        element.index = i;
        return element;
      },
      set() {
        throw new TypeError('an element that is a struct is not written whole; write its fields');
      },
    });
  };
}
