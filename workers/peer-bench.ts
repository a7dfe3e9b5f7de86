/**
 * One of the two threads of a JavaScript variant of bench/peers. It sleeps in its event loop between commands,
 * and measures its own time, so that neither the message nor the start of the other thread is in it.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { type Bench, openBench } from '../bench/peers/benches.js';
import {
  ARRIVED,
  type Command,
  type FromWorker,
  type TeamSetup,
  type ToWorker,
} from '../bench/peers/protocol.js';
import { fetchAdd, futexWait, loadAcquire } from '../src/sync/index.js';

const START_LINE_SPINS = 100_000;
const START_LINE_MS = 10_000;

const setup = workerData as TeamSetup;
const control = new Int32Array(setup.control);
const port = parentPort;
if (!port) throw new Error('peer-bench is a worker: start it through bench/peers/team.ts');

const say = (message: FromWorker): void => port.postMessage(message);

/** Returns when both threads are here. Spins first: the start of both is to lie within a microsecond. */
function startLine(): void {
  const mine = fetchAdd(control, ARRIVED, 1);
  const both = (mine | 1) + 1;
  const deadline = Date.now() + START_LINE_MS;
  for (let spins = 0; loadAcquire(control, ARRIVED) < both; spins++) {
    if (spins < START_LINE_SPINS) continue;
    futexWait(control, ARRIVED, mine + 1, 1);
    if (Date.now() > deadline) throw new Error(`the other thread did not arrive within ${START_LINE_MS} ms`);
  }
}

function measure(bench: Bench, command: Command): number {
  const work = bench.prepare(command);
  if (command.threads === 2) startLine();
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
}

const reason = (e: unknown): string => (e instanceof Error ? e.message : String(e));

try {
  const bench = await openBench(setup);
  port.on('message', (message: ToWorker) => {
    try {
      if ('run' in message) return say({ ns: measure(bench, message.run) });
      bench.close();
      port.close();
    } catch (e) {
      say({ failed: reason(e) });
    }
  });
  say({ ready: true });
} catch (e) {
  say({ failed: reason(e) });
}
