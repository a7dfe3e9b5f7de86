/** The JavaScript variants: two workers each, which only ever run that variant. */
import { Worker } from 'node:worker_threads';
import { Arena, type Finding, SLAB_NO_MERGE } from '../../src/index.js';
import { type Peer, withinLimit } from './peer.js';
import type { Ours, Row } from './plan.js';
import {
  CONTROL_BYTES,
  type Command,
  cacheName,
  type FromWorker,
  type TeamKind,
  type TeamSetup,
  type ToWorker,
} from './protocol.js';
import { RING_BYTES } from './ring.js';

const WORKER = new URL(import.meta.resolve('#workers/peer-bench.js'));
const ARENA_BYTES = 64 << 20;
/** Two workers and the main thread. */
const ARENA_CPUS = 4;

/** One worker and the promise of its next message. */
class Member {
  readonly worker: Worker;
  #settle: ((message: FromWorker) => void) | undefined;
  #gone: string | undefined;

  constructor(setup: TeamSetup) {
    this.worker = new Worker(WORKER, { workerData: setup, name: `peers ${setup.kind} ${setup.thread}` });
    this.worker.on('message', (message: FromWorker) => this.#arrived(message));
    this.worker.on('error', (e) => this.#left(e.message));
    this.worker.on('exit', () => this.#left('its worker has ended'));
  }

  #arrived(message: FromWorker): void {
    const settle = this.#settle;
    this.#settle = undefined;
    settle?.(message);
  }

  #left(why: string): void {
    this.#gone ??= why;
    this.#arrived({ failed: this.#gone });
  }

  async next(): Promise<FromWorker> {
    if (this.#gone !== undefined) return { failed: this.#gone };
    return await new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  /** Sends and waits for the answer's time. */
  async run(command: Command): Promise<number> {
    const answer = this.next();
    this.worker.postMessage({ run: command } satisfies ToWorker);
    const message = await answer;
    if ('ns' in message) return message.ns;
    throw new Error('failed' in message ? message.failed : 'it answered out of turn');
  }

  /** Lets the worker hand its CPU slot back before it ends. */
  async stop(): Promise<void> {
    if (this.#gone !== undefined) return;
    const ended = new Promise<void>((resolve) => this.worker.once('exit', () => resolve()));
    this.worker.postMessage({ stop: true } satisfies ToWorker);
    await withinLimit(ended, 'the end of a worker', 2_000).catch(() => this.worker.terminate());
  }
}

export class Team implements Peer {
  readonly variant: TeamKind;
  readonly #members: readonly Member[];
  readonly #arena: Arena | undefined;
  /** The seat of the next command for one thread. */
  #next = 0;
  spoilt = false;

  private constructor(kind: TeamKind, members: Member[], arena: Arena | undefined) {
    this.variant = kind;
    this.#members = members;
    this.#arena = arena;
  }

  /** Starts both workers; rejects with the reason when the variant cannot be used here. */
  static async start(kind: TeamKind, rows: readonly Row[]): Promise<Team> {
    const arena = isOurs(kind) ? openArena(kind, rows) : undefined;
    const shared = {
      kind,
      control: new SharedArrayBuffer(CONTROL_BYTES),
      ring: new SharedArrayBuffer(RING_BYTES),
    };
    const members = ([0, 1] as const).map(
      (thread) => new Member({ ...shared, thread, ...(arena ? { handle: arena.handle } : {}) }),
    );
    const team = new Team(kind, members, arena);
    const hellos = await withinLimit(
      Promise.all(members.map((m) => m.next())),
      `the start of ${kind}`,
      30_000,
    );
    for (const hello of hellos) {
      if ('ready' in hello) continue;
      team.spoilt = true;
      await team.close();
      throw new Error('failed' in hello ? hello.failed : 'it answered out of turn');
    }
    return team;
  }

  async run(command: Command): Promise<number> {
    const runners = command.threads === 1 ? [this.#members[this.#next]!] : this.#members;
    // Each worker compiles the loop for itself, one luckier than the other: one thread is either, two are both.
    if (command.threads === 1) this.#next = 1 - this.#next;
    try {
      const all = Promise.all(runners.map((m) => m.run(command)));
      return Math.max(...(await withinLimit(all, `${command.workload} on ${this.variant}`)));
    } catch (e) {
      this.spoilt = true;
      throw e;
    }
  }

  async close(): Promise<string | undefined> {
    if (this.spoilt) {
      await Promise.all(this.#members.map((m) => m.worker.terminate()));
      return undefined;
    }
    await Promise.all(this.#members.map((m) => m.stop()));
    const findings = this.#arena ? findingsOf(this.#arena) : [];
    if (findings.length === 0) return undefined;
    return `${this.variant}: the arena has ${findings.length} findings, the first: ${JSON.stringify(findings[0])}`;
  }

  pids(): number[] {
    return [];
  }
}

const teamKey = (row: Pick<Row, 'workload' | 'size'>): string => `${row.workload}/${row.size}`;

/**
 * A team per workload and size, as the native peers have a process for each row: nobody inherits another's free
 * lists, nor what V8 learned from another's loops.
 */
export class RowTeams implements Peer {
  readonly variant: Ours;
  readonly #teams: ReadonlyMap<string, Team>;

  private constructor(kind: Ours, teams: ReadonlyMap<string, Team>) {
    this.variant = kind;
    this.#teams = teams;
  }

  static async start(kind: Ours, rows: readonly Row[]): Promise<RowTeams> {
    const teams = new Map<string, Team>();
    for (const row of rows) {
      const key = teamKey(row);
      if (!teams.has(key)) teams.set(key, await Team.start(kind, [row]));
    }
    return new RowTeams(kind, teams);
  }

  get spoilt(): boolean {
    return [...this.#teams.values()].every((team) => team.spoilt);
  }

  async run(command: Command): Promise<number> {
    const team = this.#teams.get(teamKey(command as Row));
    if (team === undefined) throw new Error(`${this.variant} has no team for ${teamKey(command as Row)}`);
    return await team.run(command);
  }

  async close(): Promise<string | undefined> {
    const endings = await Promise.all([...this.#teams.values()].map((team) => team.close()));
    return endings.find((wrong) => wrong !== undefined);
  }

  pids(): number[] {
    return [];
  }
}

export const isOurs = (kind: TeamKind): kind is Ours => kind.startsWith('granary');

/** What is wrong with an arena whose workers have gone. */
function findingsOf(arena: Arena): Finding[] {
  arena.online();
  const findings = arena.validate();
  arena.offline();
  return findings;
}

/** An arena with one cache per workload and size, made before a worker looks for them. */
function openArena(kind: Ours, rows: readonly Row[]): Arena {
  const check = kind === 'granary-none' ? 'none' : 'free';
  const arena = Arena.create({ bytes: ARENA_BYTES, cpus: ARENA_CPUS, check });
  const names = new Set<string>();
  arena.online();
  for (const { workload, size } of rows) {
    const name = cacheName(workload, size);
    // Caches of equal size would become one otherwise, and with it the rows' free lists.
    if (!names.has(name)) arena.createCache(name, { size, flags: SLAB_NO_MERGE });
    names.add(name);
  }
  arena.offline();
  return arena;
}
