/** The nodes of a tree that nobody can reach any more. Kernel: `mt_destroy_walk`. */
import type { KmemCache } from '../cache/index.js';
import { addressOf, endOf, isLeaf, nodeOf, PARENT, slotAt } from './node.js';

const BATCH = 64;

/** Frees all nodes from `root` down; after a grace period if there may be readers, else the leaves in bulk. */
export function freeNodes(m: Int32Array, nodes: KmemCache, root: number, rcu: boolean): void {
  const batch = new Int32Array(BATCH);
  let n = 0;
  const free = (enode: number): void => {
    const address = addressOf(enode);
    m[nodeOf(enode) + PARENT] = address; // dead
    if (rcu) nodes.freeRcu(address);
    else if (!isLeaf(enode)) nodes.free(address);
    else {
      batch[n++] = address;
      if (n === BATCH) flush();
    }
  };
  const flush = (): void => {
    if (n > 0) nodes.freeBulk(batch, n);
    n = 0;
  };
  const visit = (enode: number): void => {
    if (!isLeaf(enode)) {
      const end = endOf(m, enode);
      for (let i = 0; i <= end; i++) visit(slotAt(m, enode, i));
    }
    free(enode);
  };
  visit(root);
  flush();
}
