/** This CPU in an arena that was made with lockdep: tells it of operations, which is what constructors are held against. */
import type { Geometry } from '../struct/index.js';
import { type CacheOperation, Intent, type Lockdep } from '../sync/index.js';
import { ThisCpu, type Views } from './thisCpu.js';
import type { WantedSlot } from './threadSlot.js';

const { ALLOC, BULK_ALLOC, PREFILL, REFILL, FREE, BULK_FREE, BULK_PUSH, RETURN } = Intent;

/** Intents by kind. Those of making and ending caches, and of percpu memory, are neither. */
const OPERATIONS: ReadonlyMap<number, CacheOperation> = new Map<number, CacheOperation>([
  ...[ALLOC, BULK_ALLOC, PREFILL, REFILL].map((op) => [op, 'alloc'] as const),
  ...[FREE, BULK_FREE, BULK_PUSH, RETURN].map((op) => [op, 'free'] as const),
]);

export class LockdepCpu extends ThisCpu {
  private readonly checker: Lockdep;

  constructor(views: Views, geometry: Geometry, wanted: WantedSlot, tid: number) {
    super(views, geometry, wanted, tid);
    this.checker = this.lockdep as Lockdep;
    this.checker.beforeCallback = () => this.releaseIdle();
  }

  /** Restricted contexts, which wait for nothing, enter by another way and may do so in a destructor, too. */
  override enter(op: number, slot: number): void {
    const operation = OPERATIONS.get(op);
    if (operation !== undefined) this.checker.noteOperation(operation, slot);
    super.enter(op, slot);
  }

  /** So that a callback misses the fast paths, which nobody sees. */
  private releaseIdle(): void {
    for (const holder of this.holders) holder.releaseIfIdle?.();
  }
}
