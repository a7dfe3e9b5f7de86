/** The worker of the tests with real threads: runs a named role and posts what it returns. */
import { parentPort, workerData } from 'node:worker_threads';
import type { LitmusTask } from './litmus/control.js';
import { CTOR_ROLES } from './litmus/ctor.js';
import { GROUP_ROLES } from './litmus/groups.js';
import { HARDENING_ROLES } from './litmus/hardening.js';
import { HEAP_ROLES } from './litmus/heap.js';
import { KILL_ROLES } from './litmus/kill.js';
import { LOCKDEP_ROLES } from './litmus/lockdep.js';
import { LOCK_ROLES } from './litmus/locks.js';
import { MAPLE_ROLES } from './litmus/maple.js';
import { MM_ROLES } from './litmus/mm.js';
import { NOLOCK_ROLES } from './litmus/nolock.js';
import { PERCPU_ROLES } from './litmus/percpu.js';
import { PRESSURE_ROLES } from './litmus/pressure.js';
import { RCU_ROLES } from './litmus/rcu.js';
import { SHARER_ROLES } from './litmus/sharers.js';
import { TYPESAFE_ROLES } from './litmus/typesafe.js';

const ROLES: Readonly<Record<string, (task: LitmusTask) => unknown>> = {
  ...CTOR_ROLES,
  ...GROUP_ROLES,
  ...LOCK_ROLES,
  ...LOCKDEP_ROLES,
  ...HARDENING_ROLES,
  ...HEAP_ROLES,
  ...KILL_ROLES,
  ...RCU_ROLES,
  ...SHARER_ROLES,
  ...MAPLE_ROLES,
  ...MM_ROLES,
  ...NOLOCK_ROLES,
  ...PRESSURE_ROLES,
  ...PERCPU_ROLES,
  ...TYPESAFE_ROLES,
};

async function play(task: LitmusTask): Promise<void> {
  const role = ROLES[task.role];
  if (role === undefined) throw new Error(`no role is named ${task.role}`);
  parentPort!.postMessage({ result: await role(task) });
}

// A thread without a role of its own is told one after the other.
const own = workerData as LitmusTask | undefined;
if (own) await play(own);
else parentPort!.on('message', play);
