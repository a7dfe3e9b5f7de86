/** Where in the program something happened: the functions on the stack, without those of this layer. */

const FRAMES_SEEN = 12;
const FRAMES_SHOWN = 5;
/** The file that this layer is built into: a lock is taken by who calls it. */
const OWN_FILE = import.meta.url;
const THIS_SOURCE = 'sync/place.ts';
const FRAME = /^\s*at (?:(.*?) \()?(?:.*?[/\\])?([^/\\]+[/\\][^/\\]+?:\d+:\d+)\)?$/;

/** A stack that is put into words only when somebody asks. */
export class Place {
  private readonly error: Error;

  constructor() {
    const limited = Error as ErrorConstructor & { stackTraceLimit?: number };
    const before = limited.stackTraceLimit;
    limited.stackTraceLimit = FRAMES_SEEN;
    this.error = new Error('lockdep');
    if (before !== undefined) limited.stackTraceLimit = before;
  }

  /** The innermost function outside of this layer. */
  get caller(): string {
    return this.frames(1)[0] ?? 'an unknown place';
  }

  /** `function (folder/file.js:line:column) < caller (...)`, the innermost first. */
  get text(): string {
    return this.frames(FRAMES_SHOWN).join(' < ') || 'an unknown place';
  }

  private frames(most: number): string[] {
    const lines = (this.error.stack ?? '').split('\n').filter((line) => FRAME.test(line));
    const own = ownPlaces(lines);
    return lines
      .filter((line) => !own.some((place) => line.includes(place)))
      .slice(0, most)
      .map(frameText);
  }
}

/**
 * What the frames of this layer have in them. Under --enable-source-maps they are of source files, in the folder that the
 * first frame names, which is that of the constructor above.
 */
function ownPlaces([first = '']: readonly string[]): string[] {
  const end = first.indexOf(THIS_SOURCE);
  if (end < 0) return [OWN_FILE];
  const root = first.slice(first.lastIndexOf('(', end) + 1, end);
  return [`${root}sync/`, `${root}struct/`];
}

function frameText(line: string): string {
  const [, name = 'top level', where] = FRAME.exec(line)!;
  return `${name} (${where})`;
}
