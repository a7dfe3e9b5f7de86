/** What `oracle:layout` and `oracle:merge` have in common: a table of a live kernel is read and each row compared. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { OracleFormatError } from '../lab/oracleTable.js';
import { programInOneLine } from './options.js';

const DEFAULT_FILE = fileURLToPath(import.meta.resolve('#test/oracle/slab-layout-linux-6.18-2cpu.csv'));
const EXIT = { agrees: 0, differs: 1, unusable: 2 } as const;

/** A command for one file, without which it takes the one that the tests use. */
export function oracleCommand(name: string, description: string): Command {
  return programInOneLine(new Command(`npm run ${name} --`))
    .description(description)
    .argument('[file]', 'a table in the form of that file', DEFAULT_FILE)
    .addHelpText(
      'after',
      '\nExit status: 0 every row agrees; 1 some differ; 2 the file or the options are not usable.',
    );
}

/** Runs it; `check` compares the text of the file and tells what it found. */
export function runOracle(
  command: Command,
  check: (text: string) => { readonly text: string; readonly differ: number },
): void {
  const unusable = (why: string): never => {
    console.error(`${command.name().replace(/^npm run | --$/g, '')}: ${why}`);
    process.exit(EXIT.unusable);
  };
  command.parse();
  const file = command.processedArgs[0] as string;
  let content = '';
  try {
    content = readFileSync(file, 'utf8');
  } catch (error) {
    unusable(`cannot read ${file}: ${(error as Error).message}`);
  }
  try {
    const { text, differ } = check(content);
    console.log(text);
    process.exitCode = differ > 0 ? EXIT.differs : EXIT.agrees;
  } catch (error) {
    if (!(error instanceof OracleFormatError)) throw error;
    unusable(`${file}: ${error.message}`);
  }
}
