/** The table of costs in docs/hardening.md is that of the experiment: its figures are one run's, its lines are not. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { hardeningCost } from '#src/lab/experiments/hardeningCost.js';

const PAGE = readFileSync(new URL('../../docs/hardening.md', import.meta.url), 'utf8');

it('has a line for each variant and a column for each case', () => {
  const [, figures] = PAGE.split('<!-- figures: npx granary experiment hardening-cost --markdown -->\n');
  const lines = figures!.split('\n<!-- end of figures -->')[0]!.split('\n');
  const cells = lines.map((line) =>
    line
      .split('|')
      .map((cell) => cell.trim())
      .slice(1, -1),
  );
  const { variants, workloads } = hardeningCost;
  expect(cells[0]).toEqual(['option', 'against', ...workloads, 'what it is for']);
  expect(cells.slice(2).map((row) => [row[0], row.at(-1)])).toEqual(
    variants.map(({ name, about }) => [name, about]),
  );
  for (const row of cells.slice(2)) {
    for (const figure of row.slice(2, -1))
      expect(figure).toMatch(/^(\d+\.\d ns|~?\d+\.\d\d \(\d+\.\d\d\.\.\d+\.\d\d\))$/);
  }
});
