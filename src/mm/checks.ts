/** What callers say of ranges and flags, checked. */
import { optionError, requireInteger } from '../struct/index.js';
import { AREA_PAGE, MMAP_MIN, TASK_SIZE } from './layout.js';

export function pagesOf(name: string, bytes: number): number {
  requireInteger(name, bytes, 1, TASK_SIZE);
  return Math.ceil(bytes / AREA_PAGE) * AREA_PAGE;
}

export function checkFlags(flags: number): void {
  requireInteger('flags', flags, 0, 0x7fffffff);
}

export function checkRange(start: number, size: number): void {
  requireInteger('start', start, MMAP_MIN, TASK_SIZE - size);
  if (start % AREA_PAGE !== 0) throw optionError('start', start, `a multiple of ${AREA_PAGE}`);
}
