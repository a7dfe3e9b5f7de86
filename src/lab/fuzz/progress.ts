/** Where a fuzzer is, for a thread that watches it: three words that are stored plainly before each call. */
import { loadAcquire } from '../../sync/index.js';
import { SURFACES } from './surface.js';

const CALL = 0;
const ARENA = 1;
const STEP = 2;
const WORDS = 3;

/** What a fuzzer does between calls and in place of them. */
const OTHERS = [
  'starting',
  'making an arena',
  'the entrance',
  'looking for gaps',
  'the audit',
  'giving all back',
] as const;

/** Every name that can be called, in an order that all threads agree on. */
const NAMES: readonly string[] = [
  ...OTHERS,
  ...SURFACES.flatMap(({ name, rules }) => Object.keys(rules).map((rule) => `${name}.${rule}`)),
];
const NUMBERS = new Map(NAMES.map((name, i) => [name, i]));

export interface FuzzPlace {
  /** Calls that had begun, in all arenas. */
  call: number;
  arena: number;
  /** What it is doing: a function by surface and name, or something between calls. */
  step: string;
}

export class FuzzProgress {
  readonly buffer: SharedArrayBuffer;
  private readonly m: Int32Array<SharedArrayBuffer>;

  constructor(buffer = new SharedArrayBuffer(WORDS * 4)) {
    this.buffer = buffer;
    this.m = new Int32Array(buffer);
  }

  enterArena(arena: number): void {
    this.m[ARENA] = arena;
  }

  /** The next call; what it is will be known when it has been drawn. */
  nextCall(): void {
    this.m[CALL]!++;
  }

  /** Whether its thread has come to the fuzzer. */
  get hasBegun(): boolean {
    return this.read().step !== OTHERS[0];
  }

  note(step: string): void {
    this.m[STEP] = NUMBERS.get(step)!;
  }

  /** The three words may be of different moments while the fuzzer goes on. */
  read(): FuzzPlace {
    // Pairs with nothing: a fuzzer that hangs has stored them long ago.
    return {
      call: loadAcquire(this.m, CALL),
      arena: loadAcquire(this.m, ARENA),
      step: NAMES[loadAcquire(this.m, STEP)]!,
    };
  }
}
