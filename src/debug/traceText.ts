/** The text of /sys/kernel/debug/slab/NAME/alloc_traces and free_traces. */
import type { TraceGroup } from '../cache/index.js';
import { requireRows } from '../struct/index.js';
import { symbolOf } from './callStack.js';

const range = (min: number, max: number): string => (min === max ? `${min}` : `${min}-${max}`);

/** Ages in milliseconds, where the kernel counts jiffies. */
export function formatTraces(groups: readonly TraceGroup[]): string {
  requireRows('groups', groups);
  if (groups.length === 0) return 'No data\n';
  return groups.map(formatGroup).join('');
}

function formatGroup({ count, stack, waste, age, tids, cpus, nodes }: TraceGroup): string {
  const lines = [`${String(count).padStart(7)} ${symbolOf(stack)}`];
  if (waste !== undefined && waste > 0) lines[0] += ` waste=${count * waste}/${waste}`;
  if (cpus.length > 0) {
    const [min, average, max] = [age.min, age.average, age.max].map(Math.round);
    lines[0] += ` age=${min === max ? min : `${min}/${average}/${max}`}`;
    lines[0] += ` pid=${range(tids.min, tids.max)} cpus=${cpus.join(',')}`;
  }
  lines[0] += ` nodes=${nodes.join(',')}`;
  return `${[...lines, ...stack.map((frame) => `        ${frame}`)].join('\n')}\n\n`;
}
