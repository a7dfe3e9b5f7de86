/**
 * The reclaim worker, the kernel's kswapd: a thread of its own that sleeps until a zone goes below its low watermark,
 * and then reclaims until every zone has its high one. It never asks a running CPU for its sheaves.
 */
import { belowMark, Effort, reclaimStops, sleepUntilPressure, takeWork, Zone } from '../../page/index.js';
import type { Caches } from '../caches.js';

/** A wake can get lost with the thread that would have sent it. */
const BACKSTOP_MS = 1000;
/** After a reclaim in vain: others may free something meanwhile. */
const BACKOFF_MS = 100;

/** What a worker has done so far. */
export interface ReclaimWorkerReport {
  /** Times that it found a zone below low. */
  wakeUps: number;
  /** Pages that it gave back. */
  pages: number;
}

/** A thread that keeps memory free for the others: `arena.reclaimWorker()`. Kernel: `kswapd`. */
export class ReclaimWorker {
  private readonly caches: Caches;
  readonly report: ReclaimWorkerReport = { wakeUps: 0, pages: 0 };

  constructor(caches: Caches) {
    this.caches = caches;
  }

  /**
   * Blocks this thread until `arena.stopReclaimWorkers()` is called in any thread. Kernel: `kswapd`.
   * @example
   * // in a worker of its own
   * const arena = Arena.attach(workerData);
   * arena.online();
   * arena.reclaimWorker().run();
   * arena.offline();
   */
  run(): ReclaimWorkerReport {
    const { geometry, views, cpu } = this.caches;
    const stops = reclaimStops(views.m, geometry);
    let inVain = false;
    while (reclaimStops(views.m, geometry) === stops) {
      cpu.endTurn();
      cpu.lockdep.mightSleep('a reclaim worker');
      sleepUntilPressure(views.m, geometry, inVain ? BACKOFF_MS : BACKSTOP_MS, inVain);
      cpu.serveRequests();
      if (takeWork(views.m, geometry)) this.caches.background();
      if (!belowMark(views.m, geometry, Zone.wmarkLow)) inVain = false;
      else inVain = this.step() === 0;
    }
    return this.report;
  }

  /** One wake-up's work: reclaims until every zone is at high, or nothing is left. Returns pages. Kernel: `balance_pgdat`. */
  step(): number {
    const { geometry, views, pages, reclaim } = this.caches;
    const before = pages.freed;
    this.report.wakeUps++;
    for (const effort of [Effort.BARNS, Effort.IDLE]) {
      if (!belowMark(views.m, geometry, Zone.wmarkHigh)) break;
      reclaim.reclaim(effort);
    }
    const freed = pages.freed - before;
    this.report.pages += freed;
    return freed;
  }
}
