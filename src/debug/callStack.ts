/** The caller's stack: where the program called the allocator, without the allocator's own frames. */

/** Frames that are kept. Kernel: TRACK_ADDRS_COUNT. */
const STACK_FRAMES_MAX = 16;
/** Frames of the allocator itself may come before them. */
const OWN_FRAMES_MAX = 16;
/** Stacks whose frames are remembered: to look for them costs more than to capture them. */
const KNOWN_MAX = 1000;
const known = new Map<string, string[]>();

/** The file that the whole core is built into; the lab and the commands are callers like any other. */
const CORE = import.meta.url;

const THIS_FILE = 'debug/callStack.ts';

/**
 * Whether a frame is the allocator's. Under --enable-source-maps frames are of source files: `root` is then the folder of
 * ours, as the frame of this file has it.
 */
function isOwn(frame: string, root: string | undefined): boolean {
  if (root === undefined) return frame.includes(CORE);
  return frame.includes(root) && !frame.includes(`${root}lab/`) && !frame.includes(`${root}cli/`);
}

/** `/home/me/granary/src/` of `at callStack (/home/me/granary/src/debug/callStack.ts:44:16)`. */
function mappedRoot([own = '']: readonly string[]): string | undefined {
  const end = own.indexOf(THIS_FILE);
  return end < 0 ? undefined : own.slice(own.lastIndexOf('(', end) + 1, end);
}

/** Frames of Node.js below the program say nothing. */
const isEngine = (frame: string): boolean => frame.includes('node:internal/');

/** The frames as the engine prints them, the innermost first. Empty where an engine has no stacks. */
export function callStack(): string[] {
  const limits = Error as { stackTraceLimit?: number }; // V8's alone
  const limit = limits.stackTraceLimit;
  limits.stackTraceLimit = STACK_FRAMES_MAX + OWN_FRAMES_MAX;
  const text = new Error().stack ?? '';
  if (limit !== undefined) limits.stackTraceLimit = limit;
  const before = known.get(text);
  if (before !== undefined) return before;
  const frames = framesOf(text);
  if (known.size === KNOWN_MAX) known.clear();
  known.set(text, frames);
  return frames;
}

function framesOf(text: string): string[] {
  const frames = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.includes(':') && !line.startsWith('Error'));
  const root = mappedRoot(frames);
  return frames.filter((frame) => !isOwn(frame, root) && !isEngine(frame)).slice(0, STACK_FRAMES_MAX);
}

/** The function of a frame, or its place where it has no name. Kernel: `%pS`. */
export function symbolOf(stack: readonly string[]): string {
  const first = stack[0];
  if (first === undefined) return '<not-available>';
  const frame = first.replace(/^at /, '').replace(/^async /, '');
  const name = /^(.*) \(.*\)$/.exec(frame);
  return name !== null ? name[1]! : frame;
}
