/**
 * The option `slab_debug`, as the kernel reads it: blocks separated by `;`, each of letters and, after a comma, the names
 * of caches. A block without names is for all caches, and the last such block counts; of blocks with names the first that
 * matches counts. A name that ends in `*` is a prefix.
 */
import {
  describe,
  type Geometry,
  LINE_WORDS,
  requireInteger,
  struct,
  WORD_BYTES,
  type Words,
} from '../struct/index.js';
import {
  SLAB_CONSISTENCY_CHECKS,
  SLAB_DEBUG_DEFAULT,
  SLAB_FAILSLAB,
  SLAB_NO_USER_FLAGS,
  SLAB_NOLEAKTRACE,
  SLAB_POISON,
  SLAB_RED_ZONE,
  SLAB_STORE_USER,
  SLAB_TRACE,
} from './flags.js';

const LETTERS: Readonly<Record<string, number>> = {
  f: SLAB_CONSISTENCY_CHECKS,
  z: SLAB_RED_ZONE,
  p: SLAB_POISON,
  u: SLAB_STORE_USER,
  t: SLAB_TRACE,
  a: SLAB_FAILSLAB,
};

export interface SlabDebugSpec {
  /** Flags of caches that no block names. */
  readonly global: number;
  readonly blocks: ReadonlyArray<{ readonly flags: number; readonly names: readonly string[] }>;
  /** `O`: a cache whose order debugging would raise goes without what takes room. */
  readonly keepOrder: boolean;
}

/**
 * Reads the option; '' is no debugging. Throws RangeError for a letter that means nothing, which the kernel prints and
 * skips.
 */
export function parseSlabDebug(text: string): SlabDebugSpec {
  let global = 0;
  let keepOrder = false;
  const blocks: Array<{ flags: number; names: string[] }> = [];
  for (const block of text.split(';')) {
    if (block === '') continue;
    const comma = block.indexOf(',');
    const letters = comma < 0 ? block : block.slice(0, comma);
    // A list of names alone asks for everything.
    const flags = comma === 0 ? SLAB_DEBUG_DEFAULT : flagsOf(letters, text);
    if (/o/i.test(letters)) keepOrder = true;
    if (comma < 0) global = flags;
    else blocks.push({ flags, names: block.slice(comma + 1).split(',') });
  }
  return { global, blocks, keepOrder };
}

function flagsOf(letters: string, text: string): number {
  let flags = 0;
  for (const letter of letters) {
    const flag = LETTERS[letter.toLowerCase()];
    if (letter === '-') flags = 0;
    else if (flag !== undefined) flags |= flag;
    else if (letter.toLowerCase() !== 'o') {
      throw new RangeError(
        `slabDebug is ${describe(text)}; '${letter}' is none of F, Z, P, U, T, A, O and - before the comma of a block`,
      );
    }
  }
  return flags;
}

export const isSlabDebugOff = ({ global, blocks }: SlabDebugSpec): boolean =>
  global === 0 && blocks.length === 0;

const matches = (name: string, pattern: string): boolean => {
  const star = pattern.indexOf('*');
  return star < 0 ? name === pattern : name.startsWith(pattern.slice(0, star));
};

/** The debug flags of a cache that asked for `flags` itself. Kernel: `kmem_cache_flags`. */
export function debugFlagsFor({ global, blocks }: SlabDebugSpec, name: string, flags: number): number {
  if ((flags & SLAB_NO_USER_FLAGS) !== 0) return 0;
  const block = blocks.find(({ names }) => names.some((pattern) => matches(name, pattern)));
  if (block !== undefined) return block.flags;
  // Of a checker's own cache nobody wants to know who allocates, unless it is named.
  return (flags & SLAB_NOLEAKTRACE) === 0 ? global : global & ~SLAB_STORE_USER;
}

/** What all threads need for debugging; the text of the option follows. */
export const SlabDebug = struct(
  'slab_debug',
  {
    /** Word index of the stack depot's table, 0 until there is one. */
    depot: 1,
    /** Bytes of the option's text. */
    optionBytes: 1,
  },
  { alignWords: LINE_WORDS },
);

const SLAB_DEBUG_BYTES_MAX = 1024;

/** No debugging. */
export const NO_SLAB_DEBUG: SlabDebugSpec = { global: 0, blocks: [], keepOrder: false };

/** Checks the arena's option and gives the text of it: `true` is what the kernel makes of the bare word. */
export function slabDebugText(option: unknown = ''): string {
  if (option === true) return 'FZPU';
  if (option === false) return '';
  if (typeof option !== 'string') {
    throw new TypeError(
      `slabDebug is ${describe(option)}; it must be a boolean, or a string as FZPU,kmalloc-*`,
    );
  }
  parseSlabDebug(option);
  const { length } = new TextEncoder().encode(option);
  if (length <= SLAB_DEBUG_BYTES_MAX) return option;
  throw new RangeError(`slabDebug has ${length} bytes; it must have at most ${SLAB_DEBUG_BYTES_MAX}`);
}

export const slabDebugWords = (text: string): number =>
  SlabDebug.SIZEOF + Math.ceil(new TextEncoder().encode(text).length / WORD_BYTES);

/** Writes the option into a new arena. */
export function writeSlabDebug(m: Words, { slabDebug }: Geometry, text: string): void {
  const bytes = new TextEncoder().encode(text);
  new Uint8Array(m.buffer, (slabDebug + SlabDebug.SIZEOF) * WORD_BYTES, bytes.length).set(bytes);
  m[slabDebug + SlabDebug.optionBytes] = bytes.length;
}

/** The text of the option. Throws RangeError when its length is none that an option can have. */
export function readSlabDebugText(m: Words, { slabDebug }: Pick<Geometry, 'slabDebug'>): string {
  const at = (slabDebug + SlabDebug.SIZEOF) * WORD_BYTES;
  const length = requireInteger(
    'length of slabDebug',
    m[slabDebug + SlabDebug.optionBytes],
    0,
    SLAB_DEBUG_BYTES_MAX,
  );
  // Some engines refuse to decode a shared view: copy first.
  return new TextDecoder().decode(new Uint8Array(m.buffer, at, length).slice());
}

export const readSlabDebug = (m: Words, geometry: Geometry): SlabDebugSpec =>
  parseSlabDebug(readSlabDebugText(m, geometry));
