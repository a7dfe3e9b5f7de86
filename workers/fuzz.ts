/** The thread of the fuzzer: makes its calls, and says before each which it is. */
import { parentPort, workerData } from 'node:worker_threads';
import { fuzz } from '../src/lab/fuzz/fuzz.js';
import { FuzzProgress } from '../src/lab/fuzz/progress.js';
import type { FuzzTask } from '../src/lab/fuzz/watched.js';

const { calls, seed, progress } = workerData as FuzzTask;
parentPort!.postMessage(fuzz(calls, seed, new FuzzProgress(progress)));
