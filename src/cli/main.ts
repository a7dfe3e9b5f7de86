#!/usr/bin/env node
/** The command line of the lab: `granary study`, `granary experiment`, `granary replay`, `granary info`. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { NotInThisBuildError } from '../lab/experiments/index.js';
import { TraceError } from '../lab/trace/index.js';
import { experimentCommand } from './experiment.js';
import { infoCommand } from './info.js';
import { EXIT, inOneLine } from './options.js';
import { replayCommand } from './replay.js';
import { studyCommand } from './study.js';

const HELP = `
Examples:
  granary study --seconds 20           what the locks cost on this machine
  granary experiment --list            questions to ask of it
  granary replay trace.txt --cpus 2    a kernel's allocations, on two threads
  granary info                         what an arena looks like from inside

Exit status: 0 all is well; 1 something was unsound; 2 wrong options or unreadable input.`;

const PACKAGE = new URL('../../../package.json', import.meta.url);
const { version } = JSON.parse(readFileSync(PACKAGE, 'utf8')) as { version: string };

function program(): Command {
  const granary = new Command('granary')
    .description("Linux's slab allocator with sheaves on shared memory, and a lab for its lock contention.")
    .version(version, '-V, --version', 'print the version')
    .addHelpText('before', `granary ${version}\n`)
    .addHelpText('after', HELP);
  for (const command of [studyCommand(), experimentCommand(), replayCommand(), infoCommand()])
    granary.addCommand(command);
  // Sub-commands that are added take over nothing of this by themselves.
  for (const command of [granary, ...granary.commands]) {
    inOneLine(command, `granary ${command === granary ? '' : `${command.name()} `}--help`).exitOverride();
  }
  return granary;
}

// A reader that has seen enough, such as `head`, is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
});

/** Bad input is said in one line; what should not have happened is told in full. */
function fail(error: unknown): void {
  if (error instanceof CommanderError) {
    // Its message is out already; asking for help is no mistake.
    process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    return;
  }
  const expected =
    error instanceof TraceError ||
    error instanceof NotInThisBuildError ||
    error instanceof RangeError ||
    (error instanceof Error && 'syscall' in error);
  if (expected) process.stderr.write(`granary: ${error.message}\n`);
  else
    process.stderr.write(
      `granary: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
  process.exitCode = expected ? EXIT.usage : EXIT.unsound;
}

try {
  await program().parseAsync();
} catch (error) {
  fail(error);
}
