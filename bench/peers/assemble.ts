/** Starts whoever can take part here, and says in one line each why somebody cannot. */
import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { type BuiltProgram, buildNative, findCompiler, findLibraries } from './build.js';
import { NativePeer } from './native.js';
import type { Peer } from './peer.js';
import { NATIVES, OURS, type Row, SCRIPTED, takesPart } from './plan.js';
import { isOurs, RowTeams, Team } from './team.js';

export interface Assembly {
  readonly peers: Peer[];
  readonly probe: Peer | undefined;
  /** Who is missing, and why. */
  readonly absent: string[];
  /** What the native variants run on. */
  readonly libraries: string[];
  /** Ends all; resolves with what was found wrong afterwards. */
  close(): Promise<string[]>;
  /** Only what outlives the process: for the way out by a signal. */
  removeFiles(): void;
}

const message = (e: unknown): string => (e instanceof Error ? e.message : String(e));

/** The participants that a set of rows needs. */
export async function assemble(rows: readonly Row[]): Promise<Assembly> {
  const peers: Peer[] = [];
  const absent: string[] = [];
  const libraries: string[] = [];
  for (const kind of [...OURS, ...SCRIPTED] as const) {
    const own = rows.filter((row) => takesPart(kind, row));
    if (own.length === 0) continue;
    const started: Promise<Peer> = isOurs(kind) ? RowTeams.start(kind, own) : Team.start(kind, own);
    await started.then(
      (team) => peers.push(team),
      (e) => absent.push(`${kind}: ${message(e)}`),
    );
  }
  const built = await addNatives(peers, libraries, absent);
  const probe = await Team.start('probe', []).catch(() => undefined);
  return {
    peers,
    probe,
    absent,
    libraries,
    removeFiles: () => built?.remove(),
    async close() {
      const endings = await Promise.all([...peers, ...(probe ? [probe] : [])].map((peer) => peer.close()));
      built?.remove();
      return endings.filter((wrong) => wrong !== undefined);
    },
  };
}

async function addNatives(
  peers: Peer[],
  libraries: string[],
  absent: string[],
): Promise<BuiltProgram | undefined> {
  const built = await compile(absent);
  if (!built) return undefined;
  const found = findLibraries();
  absent.push(...found.missing);
  for (const native of NATIVES) {
    const preload = found.paths.get(native);
    if (native !== 'glibc' && preload === undefined) continue;
    const peer = new NativePeer(native, built.program, preload);
    try {
      const greeting = await peer.greet();
      libraries.push(
        native === 'glibc' ? `glibc ${greeting.libc}` : basename(realpathSync(greeting.library)),
      );
      peers.push(peer);
    } catch (e) {
      absent.push(`${native}: ${message(e)}`);
    }
  }
  return built;
}

async function compile(absent: string[]): Promise<BuiltProgram | undefined> {
  if (process.platform !== 'linux') {
    absent.push(`native allocators: they are preloaded the way Linux does it, this is ${process.platform}`);
    return undefined;
  }
  const compiler = findCompiler();
  if ('missing' in compiler) {
    absent.push(compiler.missing);
    return undefined;
  }
  try {
    return await buildNative(compiler.path);
  } catch (e) {
    absent.push(`native allocators: ${message(e)}`);
    return undefined;
  }
}
