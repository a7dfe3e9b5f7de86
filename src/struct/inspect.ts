/**
 * What `console.log` of Node.js prints of an object that says so itself: an arena seen field by field is pages of words.
 * Browsers do not ask, and nothing needs importing for it.
 */
export const INSPECT: unique symbol = Symbol.for('nodejs.util.inspect.custom') as never;

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB'];

/** `64 MiB`, `100 bytes`, `1.5 KiB`. */
export function sizeText(bytes: number): string {
  const power = bytes < 1024 ? 0 : Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 1024 ** power).toFixed(1))} ${UNITS[power]}`;
}

/** `1 CPU`, `4 CPUs`. */
export const countText = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;
