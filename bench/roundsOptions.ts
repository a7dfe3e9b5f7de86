/** The command line of the benchmarks that take a number of rounds. */
import { Command } from 'commander';
import { integer, programInOneLine } from '../src/cli/options.js';

export interface RoundsOptions {
  readonly rounds: number;
  readonly check: boolean;
  readonly json: boolean;
}

const ROUNDS_MAX = 10_000;

/** What the program was started with. Ends it, with status 2, when that is no use. */
export function roundsOptions(
  name: string,
  about: { readonly measures: string; readonly bar: string; readonly least: number; readonly rounds: number },
): RoundsOptions {
  const { measures, bar, least, rounds } = about;
  return programInOneLine(new Command(`npm run ${name} --`))
    .description(measures)
    .option('--rounds <n>', `rounds, at least ${least}`, integer(least, ROUNDS_MAX), rounds)
    .option('--check', `exit status 1 when ${bar}`, false)
    .option('--json', 'print one JSON object instead of the table', false)
    .parse()
    .opts<RoundsOptions>();
}
