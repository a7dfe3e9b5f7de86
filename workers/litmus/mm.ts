/**
 * Page faults while another thread maps, unmaps and protects. A fault pins an area and looks at it again and again: while
 * it is pinned it is of this space, holds the address, and does not change. Bugs can be planted, to see that they are
 * found.
 */
import { Arena, type Mm, VM_READ, VM_WRITE } from '../../src/index.js';
import { VmArea } from '../../src/mm/index.js';
import { Control, type LitmusTask, number, random } from './control.js';

const PAGE = 4096;
const BASE = 0x100000;
const PAGES = 64;
const LOOKS = 30;
/** Not under test, but wide: what stays mapped. */
export const FIXED = 0x400000;

export type MmPlant = '' | 'writers do not wait' | 'no second look';

export interface MmReport {
  pinned: number;
  missed: number;
  changes: number;
  errors: string[];
}

function join(task: LitmusTask): { arena: Arena; mm: Mm; control: Control; roll: (n: number) => number } {
  const arena = Arena.attach(task.handle!);
  arena.online({ cpu: number(task, 'cpu') });
  const mm = arena.mms.open(number(task, 'mm'));
  return { arena, mm, control: new Control(task.control), roll: random(number(task, 'seed')) };
}

async function change(task: LitmusTask): Promise<MmReport> {
  const { arena, mm, control, roll } = join(task);
  const report: MmReport = { pinned: 0, missed: 0, changes: 0, errors: [] };
  if (task.args.plant === 'writers do not wait') {
    const { areas } = mm as unknown as { areas: { lockArea(vma: number): void; free(vma: number): void } };
    areas.lockArea = () => {};
    areas.free = (vma) => {
      arena.i32[vma + VmArea.refcnt] = 0;
      arena.mms.vmas.free(vma * 4);
    };
  }
  control.arrive();
  const deadline = performance.now() + number(task, 'ms');
  while (report.changes < number(task, 'changes') && performance.now() < deadline && !control.stopped) {
    const start = BASE + roll(PAGES) * PAGE;
    const bytes = (1 + roll(8)) * PAGE;
    const flags = roll(2) === 0 ? VM_READ : VM_READ | VM_WRITE;
    switch (roll(4)) {
      case 0:
        mm.unmap(start, bytes);
        break;
      case 1:
        mm.protect(start, bytes, flags);
        break;
      default:
        mm.map(bytes, { at: start, flags });
    }
    report.changes++;
    if (report.changes % 32 === 0) arena.rcu.quiescent();
    if (report.changes % 1024 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  control.stop();
  report.errors = mm.validate().filter((finding) => !finding.includes('references'));
  arena.offline();
  return report;
}

async function fault(task: LitmusTask): Promise<MmReport> {
  const { arena, mm, control, roll } = join(task);
  const report: MmReport = { pinned: 0, missed: 0, changes: 0, errors: [] };
  const m = arena.i32;
  if (task.args.plant === 'no second look') {
    // Whatever lies where the tree had an area is taken for it.
    mm.startFault = (address) => {
      const p = mm.areasTree.load(address);
      for (let i = 0; i < 300; i++) Math.random();
      return p;
    };
    mm.endFault = () => {};
  }
  control.arrive();
  for (let turn = 0; !control.stopped && report.errors.length === 0; turn++) {
    for (let i = 0; i < 50; i++) {
      const address = roll(8) === 0 ? FIXED + 5 : BASE + roll(PAGES * PAGE);
      const p = mm.startFault(address);
      if (p === 0) {
        report.missed++;
        if (address === FIXED + 5 && !mm.faultUnderMmapLock(address))
          report.errors.push('FIXED is not mapped');
        continue;
      }
      report.pinned++;
      look(m, p >> 2, mm.address >> 2, address, report.errors);
      mm.endFault(p);
    }
    arena.endTurn();
    if (turn % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  if (report.errors.length > 0) control.stop();
  arena.offline();
  return report;
}

function look(m: Int32Array, vma: number, mm: number, address: number, errors: string[]): void {
  const before = Array.from(m.subarray(vma, vma + VmArea.refcnt));
  const [start, end, owner] = before;
  if (owner !== mm || address < start! || address >= end!) {
    errors.push(`${address} is not in [${start}, ${end}) of ${owner}`);
  }
  for (let i = 0; i < LOOKS; i++) {
    for (let field = 0; field < before.length; field++) {
      if (m[vma + field] === before[field]) continue;
      errors.push(`word ${field} of a pinned area was ${before[field]} and is ${m[vma + field]}`);
      return;
    }
  }
}

export const MM_ROLES = { 'mm-change': change, 'mm-fault': fault };
