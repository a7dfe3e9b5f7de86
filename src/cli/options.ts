/** Parsers for the values of command-line options, and how a command ends when it cannot go on. */
import { type Command, InvalidArgumentError } from 'commander';
import { type CheckLevel, LOCK_POLICIES, type LockPolicy } from '../struct/index.js';

/** Exit statuses, documented in each command's help. */
export const EXIT = { ok: 0, unsound: 1, usage: 2 } as const;

/** A command whose errors are one line each, which ends with where its options are described: `help` shows them. */
export function inOneLine(command: Command, help: string): Command {
  return command.configureOutput({
    outputError: (text, write) => write(`${text.trim().replace(/\s*\n\s*/g, ' ')} (${help})\n`),
  });
}

/** The same for a program that is one command: it ends with the status of wrong options. */
export function programInOneLine(command: Command): Command {
  return inOneLine(command, `${command.name()} --help`).exitOverride(({ exitCode }) =>
    process.exit(exitCode === 0 ? EXIT.ok : EXIT.usage),
  );
}

export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

export function number(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !(value >= min && value <= max)) {
      throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** `1,2,4` */
export function integers(min: number, max: number): (text: string) => number[] {
  const one = integer(min, max);
  return (text) => text.split(',').map(one);
}

export function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new InvalidArgumentError('It must be a regular expression.');
  }
}

const SUFFIXES: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

/** `64m`, `1g`, `4096`: rounded up to whole pages. */
export function bytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmg]?)(?:i?b)?$/i.exec(text.trim());
  if (match === null) throw new InvalidArgumentError('It must be a size like 67108864, 64m or 1g.');
  return Math.ceil((Number(match[1]) * SUFFIXES[match[2]!.toLowerCase()]!) / 4096) * 4096;
}

export const policies: readonly LockPolicy[] = LOCK_POLICIES;
export const checks: readonly CheckLevel[] = ['none', 'free', 'full'];
