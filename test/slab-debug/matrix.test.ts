/**
 * The corruption matrix: what is done wrong, in every column, with the exact count of errors and a second validation that
 * is clean after the repair. The cases are in matrix/, and what each goes through in matrix/run.ts. The long form goes
 * through random layouts: size, alignment, constructor, place in the slab.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LONG } from '../cache/support/arena.js';
import { BYTES } from './matrix/bytes.js';
import { CALLS } from './matrix/calls.js';
import { OBJECTS } from './matrix/objects.js';
import { type Case, runCase } from './matrix/run.js';
import { COLUMN_NAMES, type Column, LAYOUTS, type Layout } from './matrix/scene.js';
import { WORDS } from './matrix/words.js';

const CASES: Record<string, Case[]> = {
  'bytes that are overwritten': BYTES,
  'words of a freelist': WORDS,
  'calls that are wrong': CALLS,
  'objects, and what keeps them': OBJECTS,
};
const ALL = Object.values(CASES).flat();
const HOUR = 3_600_000;

/** All of them in the long form, else one: another for the next case, and in another column. */
function layoutsOf(test: Case, column: Column): Layout[] {
  const possible = LAYOUTS.filter(test.layouts ?? (() => true));
  if (LONG) return possible;
  return [possible[(ALL.indexOf(test) + 2 * COLUMN_NAMES.indexOf(column)) % possible.length]!];
}

// Debug caches capture a stack at each step: the runner's way of mapping it to the source takes half of the time.
const { prepareStackTrace } = Error;
beforeAll(() => {
  Reflect.deleteProperty(Error, 'prepareStackTrace');
});
afterAll(() => {
  if (prepareStackTrace !== undefined) Error.prepareStackTrace = prepareStackTrace;
});

it('the matrix has at least 60 cases, each once, in three columns', () => {
  expect(ALL.length).toBeGreaterThanOrEqual(60);
  expect(new Set(ALL.map(({ name }) => name)).size).toBe(ALL.length);
  for (const { is } of ALL) expect(Object.keys(is)).toEqual(['plain', 'debug', 'hardened']);
});

describe.each(Object.entries(CASES))('%s', (_what, cases) => {
  describe.each(COLUMN_NAMES)('%s', (column) => {
    it.each(cases.map((test) => [test.name, test] as const))(
      '%s',
      async (_name, test) => {
        for (const layout of layoutsOf(test, column)) {
          try {
            await runCase(test, column, layout);
          } catch (error) {
            (error as Error).message += `\nin layout ${JSON.stringify(layout)}`;
            throw error;
          }
        }
      },
      LONG ? HOUR : undefined,
    );
  });
});

describe.each(['none', 'cpu-slab', 'percpu-array'] as const)(
  'words of a freelist, hardened, layer %s',
  (layer) => {
    it.each(WORDS.map((test) => [test.name, test] as const))('%s', (_name, test) =>
      runCase(test, 'hardened', LAYOUTS[2 + (WORDS.indexOf(test) % 3)]!, { layer }),
    );
  },
);
