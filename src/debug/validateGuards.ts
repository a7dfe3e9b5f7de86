/** The pool of guarded objects: nobody is working on a slot, and each object is allocated or not as its slot says. */
import type { Caches } from '../cache/index.js';
import { hexAddress } from '../struct/index.js';
import type { Findings } from './finding.js';

export function validateGuards({ guards, views }: Caches, findings: Findings): void {
  guards.forEach((object, state) => {
    const hex = hexAddress(object);
    findings.expect(state !== 'busy', 'I20', 'guards', () => `somebody is working on ${hex}`);
    const marked = object !== 0 && views.shadow[object >> 3] !== 0;
    findings.expect(state === 'busy' || marked === (state === 'live'), 'I10', 'guards', () => {
      return `${hex} is ${state}, and marked as ${marked ? 'allocated' : 'free'}`;
    });
  });
}
