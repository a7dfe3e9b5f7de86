// A hash table that threads share: lookups take no lock, not even while it grows. One thread inserts, replaces and
// removes under the table's lock; what it takes out is freed when no lookup can see it any more.
import { once } from 'node:events';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { Arena } from 'granary';

// Words of the table, of a bucket array (its size first, so that both are found together), and of a node.
const BUCKETS = 0;
const COUNT = 1;
const LOCK = 2;
const NEXT = 0;
const KEY = 1;
const VALUE = 2;

class HashTable {
  constructor(arena, address) {
    this.arena = arena;
    this.m = arena.i32;
    this.rcu = arena.rcu;
    this.nodes = arena.openCache('hash-node');
    this.table = address >> 2;
  }

  static create(arena) {
    arena.createCache('hash-node', { size: 12 });
    const address = arena.kzalloc(12);
    const table = new HashTable(arena, address);
    arena.rcu.assignPointer(table.table + BUCKETS, table.makeBuckets(8));
    return address;
  }

  /** Lock-free. Copies what it returns: the node may be freed once the read section is over. */
  get(key) {
    const { rcu, m } = this;
    rcu.readLock();
    const buckets = rcu.dereference(this.table + BUCKETS) >> 2;
    let node = rcu.dereference(this.bucketOf(buckets, key)) >> 2;
    while (node !== 0 && m[node + KEY] !== key) node = rcu.dereference(node + NEXT) >> 2;
    const value = node === 0 ? undefined : m[node + VALUE];
    rcu.readUnlock();
    return value;
  }

  /** Inserts or replaces. A node is never changed once it is published: a replacement is a new node. */
  set(key, value) {
    this.locked(() => {
      const link = this.find(key);
      const old = this.m[link] >> 2;
      this.publish(link, old === 0 ? 0 : this.m[old + NEXT], key, value);
      if (old !== 0) return this.freeLater(old);
      const count = ++this.m[this.table + COUNT];
      const buckets = this.m[this.table + BUCKETS] >> 2;
      if (count > 2 * this.m[buckets]) this.resize(2 * this.m[buckets]);
    });
  }

  delete(key) {
    return this.locked(() => {
      const link = this.find(key);
      const node = this.m[link] >> 2;
      if (node === 0) return false;
      this.rcu.assignPointer(link, this.m[node + NEXT]);
      this.m[this.table + COUNT]--;
      this.freeLater(node);
      return true;
    });
  }

  /** Readers walk the old array and its nodes to the end; the new array has nodes of its own. */
  resize(size) {
    const old = this.m[this.table + BUCKETS] >> 2;
    const fresh = this.makeBuckets(size) >> 2;
    for (let i = 1; i <= this.m[old]; i++) {
      for (let node = this.m[old + i] >> 2; node !== 0; node = this.m[node + NEXT] >> 2) {
        const link = this.bucketOf(fresh, this.m[node + KEY]);
        this.publish(link, this.m[link], this.m[node + KEY], this.m[node + VALUE]);
        this.freeLater(node);
      }
    }
    this.rcu.assignPointer(this.table + BUCKETS, fresh << 2);
    this.rcu.call(() => this.arena.kfree(old << 2));
  }

  makeBuckets(size) {
    const address = this.arena.kzalloc((size + 1) * 4);
    if (address === 0) throw new Error('out of memory');
    this.m[address >> 2] = size;
    return address;
  }

  publish(link, next, key, value) {
    const address = this.nodes.alloc();
    if (address === 0) throw new Error('out of memory');
    const node = address >> 2;
    this.m[node + NEXT] = next;
    this.m[node + KEY] = key;
    this.m[node + VALUE] = value;
    this.rcu.assignPointer(link, address); // whoever finds the node finds what is in it
  }

  freeLater(node) {
    this.rcu.call(() => this.nodes.free(node << 2));
  }

  bucketOf(buckets, key) {
    return buckets + 1 + ((Math.imul(key, 0x9e3779b1) >>> 8) & (this.m[buckets] - 1));
  }

  /** The word that points to the node of a key, or the 0 at the end of its chain; lock held. */
  find(key) {
    let link = this.bucketOf(this.m[this.table + BUCKETS] >> 2, key);
    while (this.m[link] !== 0 && this.m[(this.m[link] >> 2) + KEY] !== key) link = (this.m[link] >> 2) + NEXT;
    return link;
  }

  /** Writers take turns. */
  locked(body) {
    const lock = this.table + LOCK;
    while (Atomics.compareExchange(this.m, lock, 0, 1) !== 0) Atomics.wait(this.m, lock, 1, 1);
    try {
      return body();
    } finally {
      Atomics.store(this.m, lock, 0);
      Atomics.notify(this.m, lock, 1);
    }
  }
}

const KEYS = 3000;

if (isMainThread) {
  const arena = Arena.create({ bytes: 64 << 20, cpus: 4 });
  arena.online();
  const address = HashTable.create(arena);
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const data = { workerData: { handle: arena.handle, address, stop } };
  const readers = [1, 2].map(() => new Worker(new URL(import.meta.url), data));
  const answers = Promise.all(readers.map(async (reader) => (await once(reader, 'message'))[0]));
  const gone = Promise.all(readers.map((reader) => once(reader, 'exit')));

  const table = new HashTable(arena, address);
  for (let round = 0; round < 20; round++) {
    for (let key = 1; key <= KEYS; key++) table.set(key, key * 1000 + round);
    for (let key = 1; key <= KEYS; key += 3) table.delete(key);
    await new Promise((resolve) => setImmediate(resolve)); // the end of a turn: callbacks that are due run
  }
  Atomics.store(stop, 0, 1);
  const wrong = (await answers).reduce((sum, { wrong }) => sum + wrong, 0);
  await gone;

  arena.rcu.barrier(); // all that was taken out is freed: destroy() finds the live nodes and no others
  const live = arena.i32[(address >> 2) + COUNT];
  const findings = arena.validate().length;
  const { leaked } = arena.openCache('hash-node').destroy();
  console.log(`${live} keys, ${leaked} nodes, ${wrong} wrong answers, ${findings} findings`);
} else {
  const { handle, address, stop } = workerData;
  const arena = Arena.attach(handle);
  arena.online();
  const table = new HashTable(arena, address);
  const { parentPort } = await import('node:worker_threads');
  let wrong = 0;
  for (let i = 0; Atomics.load(stop, 0) === 0; i++) {
    const key = 1 + (i % KEYS);
    const value = table.get(key);
    if (value !== undefined && Math.floor(value / 1000) !== key) wrong++;
    if (i % 1000 === 0) arena.rcu.quiescent(); // one long turn: say now and then that nothing is being read
  }
  arena.offline();
  parentPort.postMessage({ wrong });
}
