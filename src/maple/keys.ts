/** What a key and a range of keys may be. */
import { requireInteger } from '../struct/index.js';
import { MAPLE_MAX } from './node.js';

export function checkKey(name: string, key: number): number {
  return requireInteger(name, key, 0, MAPLE_MAX);
}

export function checkRange(first: number, last: number): void {
  checkKey('first', first);
  requireInteger('last', last, first, MAPLE_MAX);
}
