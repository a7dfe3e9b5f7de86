/** Reading tables of what a Linux kernel computed for its caches. Columns are found by name; others are ignored. */

/** The text is not a table of this format; says where. */
export class OracleFormatError extends Error {
  override name = 'OracleFormatError';
}

export interface Row {
  line: number;
  cells: Map<string, string>;
}

function parseHeader(text: string, columns: readonly string[]): string[] {
  const names = text
    .replace(/^\uFEFF/, '')
    .split(',')
    .map((name) => name.trim());
  const missing = columns.filter((column) => !names.includes(column));
  if (missing.length > 0) throw new OracleFormatError(`line 1: missing columns: ${missing.join(', ')}`);
  const twice = columns.filter((column) => names.indexOf(column) !== names.lastIndexOf(column));
  if (twice.length > 0) throw new OracleFormatError(`line 1: columns given twice: ${twice.join(', ')}`);
  return names;
}

function parseRow(text: string, line: number, names: string[]): Row {
  const cells = text.split(',').map((cell) => cell.trim());
  if (cells.length !== names.length) {
    throw new OracleFormatError(`line ${line}: ${cells.length} cells, the header names ${names.length}`);
  }
  return { line, cells: new Map(names.map((name, i) => [name, cells[i]!])) };
}

/** The rows of a table that has these columns. Throws OracleFormatError. */
export function parseRows(text: string, columns: readonly string[]): Row[] {
  const lines = text.split(/\r?\n/);
  const names = parseHeader(lines[0]!, columns);
  const rows: Row[] = [];
  for (let i = 1; i < lines.length; i++) {
    if (lines[i]!.trim() !== '') rows.push(parseRow(lines[i]!, i + 1, names));
  }
  if (rows.length === 0)
    throw new OracleFormatError('no rows behind the header: there is nothing to compare');
  return rows;
}

/** The whole numbers of these columns of a row. Throws OracleFormatError. */
export function numbersOf({ line, cells }: Row, columns: readonly string[]): Map<string, number> {
  const numbers = new Map<string, number>();
  for (const column of columns) {
    const cell = cells.get(column)!;
    if (!/^\d+$/.test(cell)) {
      throw new OracleFormatError(`line ${line}, column ${column}: expected a whole number, got '${cell}'`);
    }
    numbers.set(column, Number(cell));
  }
  return numbers;
}
