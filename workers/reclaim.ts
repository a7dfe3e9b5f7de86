/** A thread that reclaims memory when it gets short, until arena.stopReclaimWorkers(): the kernel's kswapd. */
import { parentPort, workerData } from 'node:worker_threads';
import { Arena, type ArenaHandle } from '../src/index.js';

const { arena: handle, cpu } = workerData as { arena: ArenaHandle; cpu?: number };
const arena = Arena.attach(handle);
arena.online(cpu === undefined ? {} : { cpu });
const report = arena.reclaimWorker().run();
arena.offline();
parentPort?.postMessage(report);
