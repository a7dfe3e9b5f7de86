/** What somebody meant who wrote a name wrongly. */

/** How often one letter, or two neighbours, have to be changed, put in, left out or swapped to make `b` of `a`. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const above = rows[i - 1]!;
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = above[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const before = swapped ? rows[i - 2]![j - 2]! + 1 : changed;
      row.push(Math.min(before, changed, above[j]! + 1, row[j - 1]! + 1));
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** Beyond this no name is meant, and the comparison would take long. */
const NAME_CHARS_MAX = 40;
/** A shorter beginning is one of too many names. */
const PREFIX_CHARS_MIN = 3;

/**
 * The one of `names` that `name` comes close to: but for case, for two slips (one, if it is short), or for its end.
 * Undefined when none is close.
 */
export function nearestName(name: string, names: readonly string[]): string | undefined {
  if (name.length > NAME_CHARS_MAX) return undefined;
  const wanted = name.toLowerCase();
  const most = wanted.length < 6 ? 1 : 2;
  let nearest: string | undefined;
  let least = most + 1;
  for (const each of names) {
    const distance = editDistance(wanted, each.toLowerCase());
    if (distance >= least) continue;
    nearest = each;
    least = distance;
  }
  if (nearest !== undefined || wanted.length < PREFIX_CHARS_MIN) return nearest;
  return names.find((each) => {
    const known = each.toLowerCase();
    return known.startsWith(wanted) || wanted.startsWith(known);
  });
}
