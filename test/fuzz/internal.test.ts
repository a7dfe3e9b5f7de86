/**
 * What is on the classes of the public API for other layers alone: the docstrings mark it `@internal`, and the fuzzer has
 * lists of it. They must say the same.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { SURFACES } from '#src/lab/fuzz/surface.js';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));
/** The fuzzer and its like have no classes that users see. */
const SKIPPED = /^(lab|cli)\b/;

interface Member {
  /** A field that holds no function is never in the fuzzer's lists, and may be marked. */
  isField: boolean;
  isMarked: boolean;
}

interface Class {
  base: string | undefined;
  members: Map<string, Member>;
}

const HIDDEN = ts.ModifierFlags.Private | ts.ModifierFlags.Protected | ts.ModifierFlags.Static;

const isMarked = (node: ts.Node): boolean =>
  ts.getJSDocTags(node).some(({ tagName }) => tagName.text === 'internal');

/** Methods, accessors and fields that TypeScript lets users name. Of overloads and pairs of accessors, the first counts. */
function membersOf(node: ts.ClassDeclaration): Map<string, Member> {
  const members = new Map<string, Member>();
  for (const each of node.members) {
    if (each.name === undefined || !ts.isIdentifier(each.name)) continue;
    if ((ts.getCombinedModifierFlags(each) & HIDDEN) !== 0 || members.has(each.name.text)) continue;
    members.set(each.name.text, { isField: ts.isPropertyDeclaration(each), isMarked: isMarked(each) });
  }
  return members;
}

function readClasses(): Map<string, Class> {
  const classes = new Map<string, Class>();
  for (const file of readdirSync(SRC, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts') || SKIPPED.test(file)) continue;
    const text = readFileSync(join(SRC, file), 'utf8');
    const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
    for (const node of source.statements) {
      if (!ts.isClassDeclaration(node) || node.name === undefined) continue;
      const base = node.heritageClauses?.find(({ token }) => token === ts.SyntaxKind.ExtendsKeyword);
      classes.set(node.name.text, {
        base: base?.types[0]?.expression.getText(source),
        members: membersOf(node),
      });
    }
  }
  return classes;
}

const classes = readClasses();

/** What users can name of a class, what it inherits included; the class itself comes before its base. */
function surfaceOf(name: string): Map<string, Member> {
  const found = new Map<string, Member>();
  for (let at = classes.get(name); at !== undefined; at = classes.get(at.base ?? '')) {
    for (const [member, what] of at.members) if (!found.has(member)) found.set(member, what);
  }
  return found;
}

const ofClasses = SURFACES.filter(({ name }) => classes.has(name));

describe('what the docstrings mark as internal', () => {
  it('is looked for in every class that the fuzzer calls', () => {
    const others = SURFACES.filter(({ name }) => !classes.has(name)).map(({ name }) => name);
    expect(others.sort()).toEqual(['CacheDebug', 'Cursor', 'granary']); // an interface, made at run time, functions
    expect(surfaceOf('Arena').has('kmalloc')).toBe(true);
    expect(surfaceOf('KmemCache').has('releaseIfRequested')).toBe(true);
  });

  it.each(ofClasses.map(({ name, internal }) => ({ name, internal })))(
    'is what the fuzzer does not call: $name',
    ({ name, internal }) => {
      const listed = new Set(internal.split(' '));
      const wrong = [...surfaceOf(name)].flatMap(([member, { isField, isMarked }]) => {
        if (listed.has(member) && !isMarked)
          return [`${member} is in the fuzzer's list, and has no @internal`];
        if (isMarked && !isField && !listed.has(member)) return [`${member} is @internal, and in no list`];
        return [];
      });
      expect(wrong).toEqual([]);
    },
  );
});
