/** The native variants: one process of bench/native/peer.c for each row, blocked in read between commands. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import { holdsMalloc } from './build.js';
import { type Peer, withinLimit } from './peer.js';
import { freeOrder, type Native, orderCheckSum } from './plan.js';
import type { Command } from './protocol.js';

/** What the program says of itself at its start. */
export interface Greeting {
  readonly library: string;
  readonly libc: string;
  readonly orderCheckSum: number;
}

export function parseGreeting(line: string): Greeting {
  const found = /^ready (\S+) (\S+) (\d+)$/.exec(line);
  if (!found) throw new Error(`a peer must start with "ready LIBRARY LIBC CHECKSUM", it said "${line}"`);
  return { library: found[1]!, libc: found[2]!, orderCheckSum: Number(found[3]) };
}

/** One process; speaks in lines. */
class Child {
  readonly process: ChildProcessWithoutNullStreams;
  readonly #lines: Interface;
  #settle: ((line: string) => void) | undefined;
  #reject: ((e: Error) => void) | undefined;
  #complaint = '';
  #gone: Error | undefined;

  constructor(program: string, preload: string | undefined) {
    // No more than this: MALLOC_CONF, GLIBC_TUNABLES and their like would set the allocators differently.
    const env = { PATH: process.env.PATH, ...(preload === undefined ? {} : { LD_PRELOAD: preload }) };
    this.process = spawn(program, [], { env, stdio: ['pipe', 'pipe', 'pipe'] });
    this.#lines = createInterface({ input: this.process.stdout });
    this.#lines.on('line', (line) => this.#settle?.(line));
    this.process.stderr.on('data', (chunk: Buffer) => {
      this.#complaint += chunk.toString();
    });
    this.process.stdin.on('error', () => {});
    this.process.on('error', (e) => this.#left(e));
    this.process.on('close', (code, signal) => this.#left(new Error(this.#epitaph(code, signal))));
  }

  #epitaph(code: number | null, signal: string | null): string {
    const how = signal === null ? `exit status ${code}` : `signal ${signal}`;
    return `its process ended with ${how}${this.#complaint === '' ? '' : `: ${this.#complaint.trim()}`}`;
  }

  #left(e: Error): void {
    this.#gone ??= e;
    this.#reject?.(this.#gone);
  }

  async line(): Promise<string> {
    if (this.#gone) throw this.#gone;
    return await new Promise((resolve, reject) => {
      this.#settle = resolve;
      this.#reject = reject;
    });
  }

  async ask(text: string): Promise<string> {
    const answer = this.line();
    this.process.stdin.write(`${text}\n`);
    return await answer;
  }

  /** End of input ends the program. */
  async end(): Promise<void> {
    if (this.#gone) return;
    const ended = new Promise<void>((resolve) => this.process.once('close', () => resolve()));
    this.process.stdin.end();
    await withinLimit(ended, 'the end of a peer', 2_000).catch(() => this.process.kill('SIGKILL'));
  }
}

export class NativePeer implements Peer {
  readonly variant: Native;
  /** Every row has a process of its own. */
  readonly spoilt = false;
  readonly #program: string;
  readonly #preload: string | undefined;
  readonly #children = new Map<string, Child>();

  constructor(variant: Native, program: string, preload?: string) {
    this.variant = variant;
    this.#program = program;
    this.#preload = preload;
  }

  /** Starts the program once to see that it runs over the library that it was given. */
  async greet(): Promise<Greeting> {
    const child = new Child(this.#program, this.#preload);
    try {
      return await this.#accept(child);
    } finally {
      await child.end();
    }
  }

  async #accept(child: Child): Promise<Greeting> {
    const line = await withinLimit(child.line(), `the start of ${this.variant}`, 10_000);
    const greeting = parseGreeting(line);
    if (this.#preload !== undefined && !holdsMalloc(greeting.library, this.#preload)) {
      throw new Error(`${this.#preload} was not preloaded: malloc is in ${greeting.library}`);
    }
    if (greeting.orderCheckSum !== orderCheckSum(freeOrder())) {
      throw new Error('the native program frees in another order than the JavaScript loops');
    }
    return greeting;
  }

  /** A heap of its own for every row: no row inherits another's free lists. */
  async #childFor(command: Command): Promise<Child> {
    const key = `${command.workload}/${command.size}/${command.threads}`;
    let child = this.#children.get(key);
    if (!child) {
      child = new Child(this.#program, this.#preload);
      this.#children.set(key, child);
      await this.#accept(child);
    }
    return child;
  }

  async run(command: Command): Promise<number> {
    const { workload, size, threads, operations } = command;
    const child = await this.#childFor(command);
    const asked = child.ask(`${workload} ${size} ${threads} ${operations}`);
    const answer = await withinLimit(asked, `${workload} on ${this.variant}`);
    const ns = Number(answer);
    if (!(ns > 0)) throw new Error(`expected nanoseconds from the native program, it said "${answer}"`);
    return ns;
  }

  async close(): Promise<undefined> {
    await Promise.all([...this.#children.values()].map((child) => child.end()));
  }

  pids(): number[] {
    return [...this.#children.values()].flatMap((child) => child.process.pid ?? []);
  }
}
