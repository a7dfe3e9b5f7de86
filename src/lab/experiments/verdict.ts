/** What the figures of an experiment say, in sentences that are made from the intervals. */
import type { Expectation, Experiment } from './experiment.js';
import { type Outcome, ROUNDS_MIN } from './judge.js';
import { at, quantityLines } from './quantities.js';
import type { ExperimentRow } from './row.js';

/** An expectation and what became of it. */
export interface Verdict {
  source: string;
  text: string;
  /** Cases in which it was to hold, and did. */
  cases: number;
  held: number;
  /** Cases in which the opposite was shown. */
  contradicted: number;
  holds: boolean;
  sentence: string;
}

type Judged = ExperimentRow & { readonly outcome: Outcome };

/** Cases that are named one by one; the rest is in the table. */
const NAMED = 4;
/** Up to here the time is the same. */
const SAME = 1.1;
const OUTCOMES: readonly Outcome[] = ['better', 'worse', 'no difference shown', 'void'];

const times = (row: ExperimentRow): string =>
  row.ratio === null
    ? 'void'
    : `${row.ratio.estimate.toFixed(2)}x (${row.ratio.low.toFixed(2)}..${row.ratio.high.toFixed(2)})`;

const byRatio = (rows: readonly Judged[]): Judged[] =>
  [...rows].sort((a, b) => (a.ratio?.estimate ?? 0) - (b.ratio?.estimate ?? 0));

/** `from 0.50x (0.49..0.51) on pair, 1 thread, to ...` */
function range(rows: readonly Judged[]): string {
  const sorted = byRatio(rows);
  const least = sorted[0]!;
  const most = sorted.at(-1)!;
  if (least === most) return `${times(most)} the time, ${at(most)}`;
  return `${times(least)} the time, ${at(least)}, to ${times(most)}, ${at(most)}`;
}

function part(outcome: Outcome, rows: readonly Judged[], all: number): string {
  const none = outcome === 'no difference shown';
  const every = all === 1 ? 'in the only case' : none ? `in any of ${all} cases` : `in all ${all} cases`;
  const how = rows.length === all ? every : `in ${rows.length} of ${all} cases`;
  return outcome === 'void' ? `void ${how}` : `${outcome} ${how}: ${range(rows)}`;
}

const rowsOf = (rows: readonly ExperimentRow[], variant: string): Judged[] =>
  rows.filter(
    (row): row is Judged =>
      row.variant === variant && row.outcome !== 'baseline' && row.outcome !== 'control',
  );

/** What is to be said of one variant against the baseline. */
function variantVerdict(rows: readonly ExperimentRow[], variant: string, baseline: string): string {
  const mine = rowsOf(rows, variant);
  const parts = OUTCOMES.map((outcome) => [outcome, mine.filter((row) => row.outcome === outcome)] as const)
    .filter(([, some]) => some.length > 0)
    .map(([outcome, some]) => part(outcome, some, mine.length));
  return `${variant} against ${baseline}: ${parts.join('; ')}.`;
}

function listed(rows: readonly Judged[]): string {
  const names = rows.slice(0, NAMED).map((row) => `${at(row)} ${times(row)}`);
  const more = rows.length - names.length;
  return names.join(', ') + (more > 0 ? ` and ${more} more` : '');
}

/** No difference is shown, and the interval has no room for one that matters. */
const isSame = ({ outcome, ratio }: Judged): boolean =>
  outcome === 'no difference shown' && ratio !== null && ratio.low >= 1 / SAME && ratio.high <= SAME;

/** Compares what a source expects with what was shown. Cases that are void say nothing. */
export function expectationVerdict(rows: readonly ExperimentRow[], expected: Expectation): Verdict {
  const { source, text, variant, outcome, where = () => true } = expected;
  const mine = rowsOf(rows, variant).filter((row) => row.outcome !== 'void' && where(row));
  const held = mine.filter((row) => row.outcome === outcome || (outcome === 'same' && isSame(row)));
  const open = mine.filter((row) => row.outcome === 'no difference shown' && !held.includes(row));
  const against = mine.filter((row) => !held.includes(row) && !open.includes(row));
  const holds = mine.length > 0 && held.length === mine.length;
  const all = mine.length === 1 ? 'the only case' : `all ${mine.length} cases`;
  const parts: string[] = [];
  if (mine.length === 0) parts.push('it could not be tested: no case of it was measured');
  else if (holds) parts.push(`it holds in ${all}`);
  else {
    const word = against.length > 0 ? 'DOES NOT HOLD' : 'is NOT SHOWN everywhere';
    parts.push(`it ${word}: it holds in ${held.length} of ${mine.length} cases`);
    const shown = outcome === 'same' ? 'a difference' : 'the opposite';
    if (against.length > 0) parts.push(`${shown} is shown in ${against.length} (${listed(against)})`);
    if (open.length > 0) parts.push(`no difference is shown in ${open.length} (${listed(open)})`);
  }
  return {
    source,
    text,
    cases: mine.length,
    held: held.length,
    contradicted: against.length,
    holds,
    sentence: `Expected (${source}): ${text}: ${parts.join('; ')}.`,
  };
}

interface Verdicts {
  /** A sentence for each variant, each expectation and each further quantity. */
  lines: string[];
  expectations: Verdict[];
}

/** All that the rows say. Void numbers come first, and what they would have said is left out. */
export function verdicts(experiment: Experiment, rows: readonly ExperimentRow[], rounds: number): Verdicts {
  const [first, ...rest] = experiment.variants;
  const baselines = new Set([first!.name, ...rest.flatMap(({ against = [] }) => against)]);
  const others = rest.filter(({ name }) => !baselines.has(name));
  const bad = rows.filter(({ problems }) => problems.length > 0);
  const lines: string[] = [];
  if (bad.length > 0) {
    lines.push(
      `${bad.length} of ${rows.length} rows are VOID, their numbers mean nothing: ${bad[0]!.variant}, ${at(bad[0]!)}: ${bad[0]!.problems[0]}`,
    );
  }
  if (rounds < ROUNDS_MIN) {
    lines.push(`${rounds} rounds are too few to show a difference; it takes at least ${ROUNDS_MIN}.`);
  }
  for (const { name, against = first!.name } of others) lines.push(variantVerdict(rows, name, against));
  const expectations = experiment.expectations.map((expected) => expectationVerdict(rows, expected));
  lines.push(...expectations.map(({ sentence }) => sentence));
  lines.push(
    ...quantityLines(
      experiment.shows,
      rows,
      experiment.variants.map(({ name }) => name),
    ),
  );
  return { lines, expectations };
}
