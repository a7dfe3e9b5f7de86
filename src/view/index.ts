export type { ArrayView, Cursor, Fields } from './cursor.js';
export {
  type ArrayType,
  arrayOf,
  type FieldPlace,
  type FieldTypes,
  type Scalar,
  type StructShape,
  type TextType,
  textOf,
} from './fields.js';
export { type StructType, structOf, type ViewSource } from './structOf.js';
export { UserCopy } from './usercopy.js';
