/**
 * What the native side needs: a C compiler, and other programs' allocators as shared libraries. Either may be
 * missing; then the rows do without, and a line says which package would bring it.
 */
import { execFile } from 'node:child_process';
import { accessSync, constants, mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Native } from './plan.js';

/** The file system as far as the searches see it. */
export interface Lookup {
  /** Names in a directory; none when there is no such directory. */
  list(directory: string): string[];
  /** The executable of this name that a shell would start, if any. */
  which(program: string): string | undefined;
}

export const realLookup: Lookup = {
  list(directory) {
    try {
      return readdirSync(directory);
    } catch {
      return [];
    }
  },
  which(program) {
    const places = (process.env.PATH ?? '').split(delimiter).filter((place) => place !== '');
    return places.map((place) => join(place, program)).find(isExecutable);
  },
};

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

interface Library {
  readonly variant: Exclude<Native, 'glibc'>;
  readonly file: RegExp;
  readonly name: string;
  readonly package: string;
}

const LIBRARIES: readonly Library[] = [
  { variant: 'jemalloc', file: /^libjemalloc\.so\.2$/, name: 'libjemalloc.so.2', package: 'libjemalloc2' },
  { variant: 'mimalloc', file: /^libmimalloc\.so\.2/, name: 'libmimalloc.so.2', package: 'libmimalloc2.0' },
  {
    variant: 'tcmalloc',
    file: /^libtcmalloc_minimal\.so\.4$/,
    name: 'libtcmalloc_minimal.so.4',
    package: 'libtcmalloc-minimal4',
  },
];

const TRIPLETS: Partial<Record<NodeJS.Architecture, string>> = {
  x64: 'x86_64-linux-gnu',
  arm64: 'aarch64-linux-gnu',
  riscv64: 'riscv64-linux-gnu',
  ppc64: 'powerpc64le-linux-gnu',
  s390x: 's390x-linux-gnu',
};

/** Where libraries lie, those of this machine's own architecture first. */
function libraryDirectories(lookup: Lookup, arch: NodeJS.Architecture): string[] {
  const multiarch = lookup.list('/usr/lib').filter((name) => name.endsWith('-linux-gnu'));
  const own = (name: string): number => (name === TRIPLETS[arch] ? 0 : 1);
  multiarch.sort((a, b) => own(a) - own(b));
  return [...multiarch.map((name) => `/usr/lib/${name}`), '/usr/lib64', '/usr/lib', '/usr/local/lib'];
}

export interface FoundLibraries {
  /** Path to preload, by variant. */
  readonly paths: ReadonlyMap<Native, string>;
  /** One line for each library that is missing. */
  readonly missing: readonly string[];
}

/** Looks for the allocators in the usual places. */
export function findLibraries(lookup: Lookup = realLookup, arch = process.arch): FoundLibraries {
  const paths = new Map<Native, string>();
  const missing: string[] = [];
  const directories = libraryDirectories(lookup, arch);
  for (const library of LIBRARIES) {
    const candidates = directories.flatMap((directory) =>
      lookup
        .list(directory)
        .filter((name) => library.file.test(name))
        .sort()
        .map((name) => `${directory}/${name}`),
    );
    const first = candidates[0];
    if (first !== undefined) paths.set(library.variant, first);
    else missing.push(`${library.variant}: ${library.name} not found (Debian package ${library.package})`);
  }
  return { paths, missing };
}

const COMPILERS = ['cc', 'gcc', 'clang'];

/** The first C compiler on the path, or a line that says what to install. */
export function findCompiler(lookup: Lookup = realLookup): { path: string } | { missing: string } {
  for (const name of COMPILERS) {
    const path = lookup.which(name);
    if (path !== undefined) return { path };
  }
  return {
    missing: `native allocators: no C compiler, none of ${COMPILERS.join(', ')} (Debian package gcc)`,
  };
}

/** malloc and free must stay calls: a compiler that knows them may leave a pair of them out. */
const FLAGS = ['-O2', '-pthread', '-fno-builtin-malloc', '-fno-builtin-free'];

const SOURCE = fileURLToPath(import.meta.resolve('#native/peer.c'));

export interface BuiltProgram {
  readonly program: string;
  /** Removes the temporary folder. */
  remove(): void;
}

/** Compiles the native program into a folder of its own; rejects with the compiler's first complaint. */
export async function buildNative(compiler: string, source = SOURCE): Promise<BuiltProgram> {
  const folder = mkdtempSync(join(tmpdir(), 'granary-peers-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const program = join(folder, 'peer');
  try {
    await promisify(execFile)(compiler, [...FLAGS, '-o', program, source, '-ldl'], { timeout: 60_000 });
    return { program, remove };
  } catch (e) {
    remove();
    throw new Error(`${compiler} did not compile ${source}: ${firstComplaint(e)}`);
  }
}

function firstComplaint(e: unknown): string {
  const { stderr, message } = e as { stderr?: string; message: string };
  const lines = (stderr ?? '').split('\n').filter((line) => line !== '');
  return lines.find((line) => line.includes('error')) ?? lines[0] ?? message;
}

/** Whether the dynamic linker took the library it was told to: a wrong one is ignored with a mere warning. */
export function holdsMalloc(announced: string, wanted: string): boolean {
  return realpathOr(announced) === realpathOr(wanted);
}

function realpathOr(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
