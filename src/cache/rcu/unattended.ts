/** The library's own work after a grace period: nobody called it, so nobody is there to be told what went wrong. */
import type { SlabAllocator } from '../../slab/index.js';
import { LockError } from '../../struct/index.js';

/** `work`, which goes on record where it needs a lock whose owner died: who wants the same lock is told by a throw. */
export function unattended(records: SlabAllocator['callbacks'], of: string, work: () => void): () => void {
  return () => {
    try {
      work();
    } catch (error) {
      if (!(error instanceof LockError)) throw error;
      records.note(of, `not freed after its grace period: ${error.message}`, error);
    }
  };
}
