/** The options of the kernel's slabinfo tool, for `granary info`. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { InfoReport } from '../lab/info.js';
import type { SlabinfoOptions, SlabinfoSort } from '../observe/index.js';
import { integer } from './options.js';

/** Commander's names for the letters, where they differ from the tool's. */
export interface ToolFlags {
  aliases?: boolean;
  single?: boolean;
  firstAlias?: boolean;
  inBytes?: boolean;
  activityTable?: boolean;
  empty?: boolean;
  zero?: boolean;
  inverted?: boolean;
  loss?: boolean;
  numa?: boolean;
  report?: boolean;
  slabs?: boolean;
  sortSize?: boolean;
  sortActivity?: boolean;
  sortPartial?: boolean;
  lines?: number;
  totals?: boolean;
  extended?: boolean;
  unreclaim?: boolean;
  shrink?: boolean;
  validate?: boolean;
  tracking?: boolean;
  ops?: boolean;
  debug?: string | true;
}

const FLAGS: ReadonlyArray<readonly [flags: string, about: string]> = [
  ['-l, --slabs', 'the table of caches alone'],
  ['-a, --aliases', 'which caches merged'],
  ['-1, --single', 'a line for each name'],
  ['-f, --first-alias', 'a merged cache by the first of its names'],
  ['-A, --sort-activity', 'sort by allocations and frees'],
  ['-S, --sort-size', 'sort by memory'],
  ['-P, --sort-partial', 'sort by partial slabs'],
  ['-L, --loss', 'show and sort by memory without objects'],
  ['-i, --inverted', 'sort the other way round'],
  ['-B, --in-bytes', 'bytes, not K, M and G'],
  ['-D, --activity-table', 'allocations and frees of each cache, and how many were fast'],
  ['-n, --numa', 'slabs by node'],
  ['-r, --report', 'all about each cache'],
  ['-e, --empty', 'empty caches alone'],
  ['-z, --zero', 'empty caches too'],
  ['-U, --unreclaim', 'without caches whose memory can be reclaimed'],
  ['-T, --totals', 'sums and averages'],
  ['-X, --extended', 'totals, then the largest caches and those that lose most, in bytes'],
  ['-t, --tracking', 'who allocated what each cache has out, and who freed it before'],
  ['-o, --ops', 'constructors and destructors'],
  ['-s, --shrink', 'shrink the caches before looking'],
  ['-v, --validate', 'validate each of them'],
];

function debugLetters(text: string): string {
  if (/^([fzputa]+|-)$/i.test(text)) return text;
  throw new InvalidArgumentError('It must be letters of F, Z, P, U, T and A, or -.');
}

export function addToolOptions(command: Command): Command {
  for (const [flags, about] of FLAGS) command.addOption(new Option(flags, `slabinfo: ${about}`));
  command.addOption(
    new Option(
      '-d, --debug [letters]',
      'slabinfo: each cache is to have these of FZPUT, A for FZPU, - for none; T alone can be switched',
    ).argParser(debugLetters),
  );
  return command.option('-N, --lines <n>', 'slabinfo: so many rows', integer(1, 10_000));
}

/** What the tool prints, or undefined when none of its letters and no name was given. */
export function toolOptions(
  flags: ToolFlags,
  pattern: RegExp | undefined,
  traces: InfoReport['traces'],
): SlabinfoOptions | undefined {
  const { shrink: _shrink, validate: _validate, debug, lines, ...own } = flags;
  const asked = FLAGS.some(([option]) => own[optionKey(option) as keyof typeof own] === true);
  if (!asked && lines === undefined && debug === undefined && pattern === undefined) return undefined;
  const on = (value: boolean | undefined): boolean => value === true;
  return {
    aliases: on(own.aliases),
    single: on(own.single),
    firstAlias: on(own.firstAlias),
    bytes: on(own.inBytes),
    activity: on(own.activityTable),
    empty: on(own.empty),
    zero: on(own.zero),
    inverted: on(own.inverted),
    loss: on(own.loss),
    numa: on(own.numa),
    report: on(own.report),
    totals: on(own.totals),
    extended: on(own.extended),
    unreclaimable: on(own.unreclaim),
    ops: on(own.ops),
    ...(own.tracking || own.report ? { tracking: (name) => tracesFrom(traces, name) } : {}),
    sort: sortOf(own),
    ...(lines === undefined ? {} : { lines }),
    ...(pattern === undefined ? {} : { pattern }),
  };
}

/** As the cache had them when it was looked at. */
const tracesFrom = (traces: InfoReport['traces'], name: string) => ({
  allocTraces: () => traces[name]?.alloc ?? [],
  freeTraces: () => traces[name]?.free ?? [],
});

/** `-S, --sort-size` is `sortSize` to commander. */
const optionKey = (flags: string): string =>
  flags.slice(flags.indexOf('--') + 2).replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

function sortOf({ sortSize, sortActivity, sortPartial, loss }: ToolFlags): SlabinfoSort {
  if (sortSize) return 'size';
  if (sortActivity) return 'activity';
  if (sortPartial) return 'partial';
  return loss ? 'loss' : 'name';
}
