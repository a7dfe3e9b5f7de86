/**
 * Struct layouts for shared memory: a field list becomes word offsets, a pointer is a word index with a
 * compile-time tag. Nothing of this exists at run time but numbers.
 */

/** A word index into the arena, tagged with the struct that lives there. `0` is NULL. Erased at run time. */
export type Ptr<Tag extends string> = number & { readonly __struct: Tag };

/** Bytes in a word. All shared metadata is made of 32-bit words. */
export const WORD_BYTES = 4;

/** Words in a cache line: what two CPUs must not share, lest each write of one stall the other. */
export const LINE_WORDS = 16;

type Fields = Readonly<Record<string, number>>;

/** Word offset of each field, and the size of the whole in words. */
export type Layout<F extends Fields> = { readonly [K in keyof F]: number } & { readonly SIZEOF: number };

const registry: string[] = [];

/**
 * Lays fields out in declaration order and returns their word offsets.
 *
 * Hot code must not use `Layout.field` directly: destructure into module-local constants, which V8 folds.
 *
 * @param name the kernel's name of the struct; part of the ABI hash
 * @param fields field name to size in words
 * @param options `alignWords` rounds the size up, `LINE_WORDS` for what must own its cache line
 * @example
 * const Sheaf = struct('slab_sheaf', { link: 1, cache: 1, size: 1, node: 1 });
 * const { size: SIZE } = Sheaf;
 */
export function struct<const F extends Fields>(
  name: string,
  fields: F,
  options: { alignWords?: number } = {},
): Layout<F> {
  const { alignWords = 1 } = options;
  const offsets: Record<string, number> = {};
  let end = 0;
  for (const [field, words] of Object.entries(fields)) {
    offsets[field] = end;
    end += words;
  }
  offsets.SIZEOF = Math.ceil(end / alignWords) * alignWords;
  registry.push(`${name}%${alignWords}{${Object.entries(offsets).map(([field, at]) => `${field}@${at}`)}}`);
  // A copy: V8 makes a dictionary of an object that got many fields one by one, and compiled code searches it by name.
  return Object.freeze({ ...offsets }) as unknown as Layout<F>;
}

/**
 * FNV-1a over every struct layout that was declared so far and over `extra`. Two threads whose programs lay
 * memory out differently get different hashes, and `attach` refuses: the build-time size check of static
 * caches, made at run time.
 */
export function abiHash(extra: string): number {
  let hash = 0x811c9dc5;
  for (const text of [...registry].sort().concat(extra)) {
    for (let i = 0; i < text.length; i++) {
      hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    }
  }
  return hash | 0;
}
