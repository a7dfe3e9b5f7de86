/** The docstrings of the public API: every name that the package exports has one. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));

const parse = (file: string): ts.SourceFile =>
  ts.createSourceFile(file, readFileSync(join(SRC, file), 'utf8'), ts.ScriptTarget.Latest, true);

/** Names in the export lists of index.ts. */
function exportedNames(): string[] {
  return parse('index.ts').statements.flatMap((node) =>
    ts.isExportDeclaration(node) && node.exportClause !== undefined && ts.isNamedExports(node.exportClause)
      ? node.exportClause.elements.map(({ name }) => name.text)
      : [],
  );
}

/** Declarations that a module exports, by name: whether they have a docstring. */
function declarations(source: ts.SourceFile): [name: string, documented: boolean][] {
  return source.statements.flatMap((node): [string, boolean][] => {
    const isExported =
      ts.canHaveModifiers(node) && ts.getModifiers(node)?.[0]?.kind === ts.SyntaxKind.ExportKeyword;
    if (!isExported) return [];
    const documented = ts
      .getJSDocCommentsAndTags(node)
      .some((each) => ts.isJSDoc(each) && each.comment !== undefined);
    if (ts.isVariableStatement(node)) {
      return node.declarationList.declarations.map(({ name }) => [name.getText(source), documented]);
    }
    const { name } = node as ts.DeclarationStatement;
    return name === undefined ? [] : [[name.getText(source), documented]];
  });
}

describe('every name that the package exports', () => {
  const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.ts') && !/^(lab|cli)\b/.test(file),
  );
  const all = files.flatMap((file) => declarations(parse(file)));
  const undocumented = new Set(all.filter(([, documented]) => !documented).map(([name]) => name));

  it('is found in the source', () => {
    const known = new Set(all.map(([name]) => name));
    const names = exportedNames();
    expect(names.length).toBeGreaterThan(100);
    expect(names.filter((name) => !known.has(name))).toEqual([]);
  });

  it('has a docstring', () => {
    expect(exportedNames().filter((name) => undocumented.has(name))).toEqual([]);
  });
});
