import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = new URL('../../', import.meta.url);
const PAGE = readFileSync(new URL('docs/features.md', ROOT), 'utf8');
const STATES = ['works', 'partly', 'not yet', 'does not apply'];

const range = (prefix: string, last: number, digits: number) =>
  Array.from({ length: last }, (_, i) => prefix + String(i + 1).padStart(digits, '0'));

const IDS = [
  ...range('S', 100, 3),
  ...range('0-', 7, 2),
  ...range('1-', 18, 2),
  ...range('2-', 3, 2),
  ...range('3-', 7, 2),
  ...range('4-', 5, 2),
  ...range('M-', 10, 2),
];

interface Feature {
  id: string;
  feature: string;
  state: string;
  where: string;
}

function readFeature(line: string): Feature {
  const cells = line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim());
  if (cells.length !== 4) throw new Error(`a feature needs 4 cells, got ${cells.length}: ${line}`);
  const [id, feature, state, where] = cells as [string, string, string, string];
  return { id, feature, state, where };
}

/** The sections that list features; others have tables of their own. */
const LISTS = PAGE.split('\n## ').filter((section) => section.includes('\n| id |'));

const features = LISTS.flatMap((section) => section.split('\n'))
  .filter((line) => line.startsWith('|') && !/^\|( id |---)/.test(line))
  .map(readFeature);

const inState = (...states: string[]) => features.filter(({ state }) => states.includes(state));
const testFiles = (where: string) => where.match(/\btest\/[\w./-]+\.test\.ts\b/g) ?? [];
const isThere = (path: string) => existsSync(fileURLToPath(new URL(path, ROOT)));

describe('docs/features.md', () => {
  it('names every feature exactly once, in order', () => {
    expect(features.map(({ id }) => id)).toEqual(IDS);
  });

  it('describes every feature', () => {
    expect(features.filter(({ feature }) => feature === '').map(({ id }) => id)).toEqual([]);
  });

  it('uses the four states', () => {
    expect(features.filter(({ state }) => !STATES.includes(state))).toEqual([]);
  });

  it('names tests that exist for what works', () => {
    const untested = inState('works').filter(({ where }) => testFiles(where).length === 0);
    expect(untested.map(({ id }) => id)).toEqual([]);
    const missing = inState('works', 'partly').flatMap(({ id, where }) =>
      testFiles(where)
        .filter((path) => !isThere(path))
        .map((path) => `${id}: ${path}`),
    );
    expect(missing).toEqual([]);
  });

  it('gives a reason for what does not apply or works partly', () => {
    const withoutReason = inState('partly', 'does not apply').filter(({ where }) => {
      const words = where.replace(/`[^`]*`/g, '').match(/[a-z]{2,}/gi) ?? [];
      return words.length < 3;
    });
    expect(withoutReason.map(({ id }) => id)).toEqual([]);
  });
});
