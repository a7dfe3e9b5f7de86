/** Where in the program something happened: the functions on the stack, without those of this layer. */

const FRAMES_SEEN = 12;
const FRAMES_SHOWN = 5;
/** In a build and in the source: a lock is taken by who calls this layer. */
const OWN_FOLDER = /[/\\]src[/\\]sync[/\\](?!index)/;
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

  /** `function (folder/file.js:line:column) < caller (...)`, the innermost first. */
  get text(): string {
    const lines = (this.error.stack ?? '').split('\n').filter((line) => FRAME.test(line));
    const outside = lines.filter((line) => !OWN_FOLDER.test(line));
    return outside.slice(0, FRAMES_SHOWN).map(frameText).join(' < ') || 'an unknown place';
  }
}

function frameText(line: string): string {
  const [, name = 'top level', where] = FRAME.exec(line)!;
  return `${name} (${where})`;
}
