/** What there is to call, read from the objects themselves: nothing that is public may be without a rule. */
import { ARENA, BUCKETS, GROUP, GROUPS, SHEAF, SITE } from './arenaRules.js';
import { CACHE, CACHE_DEBUG, HANDLES } from './cacheRules.js';
import { EXPORTS } from './exportRules.js';
import type { Surface } from './rule.js';
import * as structures from './structureRules.js';
import type { World } from './world.js';

export const SURFACES: readonly Surface[] = [
  ARENA,
  CACHE,
  CACHE_DEBUG,
  HANDLES,
  SHEAF,
  BUCKETS,
  SITE,
  GROUPS,
  GROUP,
  EXPORTS,
  ...Object.values(structures),
];

/** `get x`, `set x` and methods, of an object and all its prototypes; of a namespace, its functions. */
export function namesOf(object: object): Set<string> {
  const names = new Set<string>();
  let at: object = object;
  for (; at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at) as object) {
    for (const [name, { value, get, set }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
      if (name === 'constructor') continue;
      if (typeof value === 'function') names.add(name);
      if (get !== undefined) names.add(`get ${name}`);
      if (set !== undefined) names.add(`set ${name}`);
    }
  }
  return names;
}

/** Names of the surface that no rule knows, and rules that know of nothing. */
export function gaps(world: World): string[] {
  const found: string[] = [];
  for (const { name, pick, rules, internal, elsewhere = {} } of SURFACES) {
    const object = pick(world);
    if (object === undefined) continue;
    const hidden = new Set(internal.split(' '));
    const names = namesOf(object);
    for (const each of names) {
      const bare = each.replace(/^[gs]et /, '');
      if (rules[each] === undefined && elsewhere[each] === undefined && !hidden.has(bare)) {
        found.push(`${name}: no rule for ${each}`);
      }
    }
    for (const each of [...Object.keys(rules), ...Object.keys(elsewhere)]) {
      if (!names.has(each)) found.push(`${name}: a rule for ${each}, which it has not`);
    }
  }
  return found;
}
