/** What the fuzzer knows of a function: arguments that are good, and what must be so when it has accepted a call. */
import type { World } from './world.js';

export type Arg = (world: World) => unknown;

export interface Call {
  readonly world: World;
  /** What the method was called on. */
  readonly on: object;
  readonly args: unknown[];
  readonly result: unknown;
}

export interface Rule {
  readonly args: readonly Arg[];
  /** The call returned. */
  readonly done?: (call: Call) => void;
  /** What may not be drawn at random in place of argument `i`, since the kernel's function takes it at its word. */
  readonly trusted?: readonly number[];
  /** Its own arguments may be a handle of another arena, for want of a good one. */
  readonly forges?: boolean;
  /** Runs in place of one call, for functions that come in pairs. */
  readonly run?: (world: World, on: never) => void;
}

export type Rules = Readonly<Record<string, Rule>>;

/** A kind of object of the public surface. */
export interface Surface {
  readonly name: string;
  /** Such an object, or undefined while there is none. */
  readonly pick: (world: World) => object | undefined;
  /** How often it is drawn. */
  readonly weight: number;
  readonly rules: Rules;
  /** Names that are not public: hidden by TypeScript, or marked as internal. And public ones that no call can try, with the reason. */
  readonly internal: string;
  readonly elsewhere?: Readonly<Record<string, string>>;
}

export const call = (args: readonly Arg[] = [], done?: Rule['done'], trusted?: readonly number[]): Rule => ({
  args,
  ...(done === undefined ? {} : { done }),
  ...(trusted === undefined ? {} : { trusted }),
});

export const pair = <T>(run: (world: World, on: T) => void): Rule => ({
  args: [],
  run: run as unknown as (world: World, on: never) => void,
});

/** A getter whose value is of that type. */
export const getter = (type: string): Rule =>
  call([], ({ world, result }) => {
    const is: string = typeof result;
    world.expect(is === type, `a getter gave a value of type ${is}, not ${type}`);
  });
