/** The command line of `npm run bench:peers`. */
import { parseArgs } from 'node:util';

export interface Options {
  readonly rounds: number;
  readonly quick: boolean;
  readonly json: string | undefined;
  readonly check: boolean;
  readonly filter: RegExp | undefined;
  readonly seed: number;
  readonly help: boolean;
}

export const USAGE = `usage: npm run bench:peers -- [options]

Measures this allocator next to glibc malloc, jemalloc, mimalloc, tcmalloc, @thi.ng/malloc and plain
typed arrays: all in one run, in turns.

  --rounds N       samples of each variant and row (default 15; with --quick 3)
  --quick          short samples and a short warm-up: to see that it works, not to quote
  --filter REGEX   only the workloads whose name matches: pair, batch-16, batch-1000, batch-10000,
                   shuffled-1000, producer-consumer
  --seed N         order of the variants within each round (default 1)
  --json FILE      all figures, raw samples included; - writes them to the standard output and the
                   tables to the standard error
  --check          exit status 1 when a bar is missed; otherwise only when this allocator could not be
                   measured, or left an unsound arena behind
  -h, --help       this text
`;

const DEFAULT_ROUNDS = 15;
const QUICK_ROUNDS = 3;

/** Throws an Error with one line to show when the arguments make no sense. */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      check: { type: 'boolean', default: false },
      filter: { type: 'string' },
      seed: { type: 'string', default: '1' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const { quick, check, json, filter, help } = values;
  const rounds = values.rounds ?? String(quick ? QUICK_ROUNDS : DEFAULT_ROUNDS);
  return {
    rounds: wholeNumber('--rounds', rounds, 1, 10_000),
    quick,
    json,
    check,
    filter: filter === undefined ? undefined : pattern(filter),
    seed: wholeNumber('--seed', values.seed, 1, 0x7fffffff),
    help,
  };
}

function wholeNumber(option: string, text: string, low: number, high: number): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isInteger(value) && value >= low && value <= high) return value;
  throw new RangeError(`${option} takes a whole number from ${low} to ${high}, got "${text}"`);
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new RangeError(`--filter takes a regular expression, got "${text}"`);
  }
}
