/**
 * Definitions of caches: what a cache is, with the functions that run on its objects. Functions cannot cross threads,
 * names can, so every thread imports the module that defines a cache and finds the functions there by name.
 */
import {
  type CacheDesc,
  type ObjectCallbacks,
  SLAB_CTOR,
  SLAB_DTOR,
  SLAB_KEEPS_STATE,
  SLAB_NO_MERGE,
} from '../slab/index.js';
import { CacheDefinitionError, describe, requireKnown } from '../struct/index.js';
import { CACHE_OPTIONS, type CacheOptions, checkName } from './options.js';

/** The options of a cache and its functions; `A` is the arena, with which they are called. */
export interface CacheDefinition<A = unknown> extends CacheOptions, ObjectCallbacks<A> {}

const KNOWN = [
  ...CACHE_OPTIONS,
  ...Object.keys({ ctor: true, dtor: true, ctorSlab: true, dtorSlab: true } satisfies Record<
    keyof ObjectCallbacks,
    true
  >),
];

/** What defineCache returns: createCache makes a cache of it, once for the arena, and openCache opens that. */
export class DefinedCache {
  readonly name: string;
  readonly definition: Readonly<CacheDefinition<never>>;
  /** The module that called defineCache, as far as it can be told. */
  readonly definedIn: string;
  readonly options: CacheOptions;
  /** SLAB_CTOR, SLAB_DTOR and what goes with them. */
  readonly callbackFlags: number;

  constructor(name: string, definition: CacheDefinition<never>, definedIn: string) {
    const { ctor, ctorSlab, dtor, dtorSlab, ...options } = definition;
    const ctorFlag = ctor !== undefined || ctorSlab !== undefined ? SLAB_CTOR | SLAB_NO_MERGE : 0;
    const dtorFlag = dtor !== undefined || dtorSlab !== undefined ? SLAB_DTOR | SLAB_NO_MERGE : 0;
    this.name = name;
    this.definition = definition;
    this.definedIn = definedIn;
    this.options = options;
    this.callbackFlags = ctorFlag | dtorFlag;
  }
}

/** Bits of the flags that say which functions a cache has. */
const CALLBACK_FLAGS = SLAB_KEEPS_STATE;

/** What createCache was asked for. Throws when a name has functions and comes without them, or options come twice. */
export function whatToMake(wanted: string | DefinedCache, given: CacheOptions | undefined) {
  if (wanted instanceof DefinedCache) {
    if (given === undefined) return wanted;
    throw new TypeError(`options is ${describe(given)}; the definition of ${wanted.name} has them already`);
  }
  const name = checkName(wanted);
  const defined = definitions.get(name);
  if (defined !== undefined) {
    throw new RangeError(
      `name is ${JSON.stringify(name)}; it is defined in ${defined.definedIn}: pass what defineCache returned`,
    );
  }
  return { name, options: given as CacheOptions, callbackFlags: 0, definedIn: '' };
}

const PAIRS = [
  ['ctor', 'ctorSlab'],
  ['dtor', 'dtorSlab'],
] as const;
const definitions = new Map<string, DefinedCache>();

/** What users call by ../define.ts, which knows the arena and has the rest of the words. */
export function defineCache(name: string, definition: CacheDefinition<never>): DefinedCache {
  checkName(name);
  if (typeof definition !== 'object' || definition === null) {
    throw new TypeError(`definition is ${describe(definition)}; it must be an object with at least \`size\``);
  }
  requireKnown('definition', definition, KNOWN);
  for (const pair of PAIRS) {
    const given = pair.filter((key) => definition[key] !== undefined);
    for (const key of given) {
      if (typeof definition[key] !== 'function') {
        throw new TypeError(`${key} of ${name} is ${describe(definition[key])}; it must be a function`);
      }
    }
    if (given.length === 2)
      throw new TypeError(`${name} has both ${pair.join(' and ')}; give it one of them`);
  }
  const before = definitions.get(name);
  if (before !== undefined) {
    throw new RangeError(`cache ${name} is defined already on this thread, in ${before.definedIn}`);
  }
  const defined = new DefinedCache(name, definition, callerModule());
  definitions.set(name, defined);
  return defined;
}

/** The definition of that name on this thread. */
export const definitionOf = (name: string): DefinedCache | undefined => definitions.get(name);

/** The file that called defineCache, from the call stack; it is for people to read. */
function callerModule(): string {
  const caller = new Error('where').stack?.split('\n')[3] ?? '';
  return (
    /((?:\w+:\/\/|\/)[^\s()]*?)(?::\d+)*\)?$/.exec(caller.trim())?.[1] ?? 'a module that could not be told'
  );
}

/** What is wrong with this thread's definition of a cache that exists, or undefined. */
export function definitionFault(s: CacheDesc, madeIn: string): CacheDefinitionError | undefined {
  if ((s.flags & CALLBACK_FLAGS) === 0) return undefined;
  const defined = definitionOf(s.name);
  if (defined === undefined) {
    const what = 'its functions are not on this thread; import the module that calls defineCache';
    return new CacheDefinitionError(s.name, `${what}(${JSON.stringify(s.name)}, ...), ${madeIn}`);
  }
  const { size } = defined.options;
  const flags = defined.callbackFlags;
  const differs = (what: string, here: unknown, there: unknown): CacheDefinitionError =>
    new CacheDefinitionError(
      s.name,
      `${what} is ${here} where this thread defines it, in ${defined.definedIn}, and ${there} where it was made, in ${madeIn}`,
    );
  if (size !== s.objectSize) return differs('size', size, s.objectSize);
  if ((flags & CALLBACK_FLAGS) !== (s.flags & CALLBACK_FLAGS)) {
    return differs('what it has', functionsOf(flags), functionsOf(s.flags));
  }
  return undefined;
}

const functionsOf = (flags: number): string =>
  [(flags & SLAB_CTOR) !== 0 ? 'a constructor' : '', (flags & SLAB_DTOR) !== 0 ? 'a destructor' : '']
    .filter((text) => text !== '')
    .join(' and ') || 'no functions';
