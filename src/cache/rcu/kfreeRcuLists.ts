/**
 * What the CPUs' kfree_rcu have gathered, in the arena: any CPU can let it begin to wait and can free it.
 *
 * | where            | holds                                    | moves on                                                |
 * |------------------|------------------------------------------|---------------------------------------------------------|
 * | `slab`, `large`  | a page of addresses with room, by channel | to `waiting` when it is full, or when somebody looks    |
 * | `waiting`        | pages, each with its grace period        | its addresses are freed when that is over               |
 * | `heads`          | objects linked through themselves        | to `waitingHeads` when somebody looks                   |
 * | `waitingHeads`   | such objects with one grace period       | freed when that is over                                 |
 * | `cached`         | empty pages, 5 at most                   | into use again, or away when memory is short            |
 *
 * All under the CPU's krcp lock, within which only zone->lock is taken; but for `heads`, which takes a compare-exchange,
 * so that a restricted context can push. A page notes the grace period that would have begun at its latest address: when
 * somebody looks after seconds, it is often over, and needs not be asked for.
 *
 * What a thread has in hand on its way into a list or out of one is on record, and who reaps the thread goes on with it:
 *
 *  K1  `hand` is set right after the object was marked as free, with no call in between, and cleared under the lock, when
 *      the object is in the page; `handNolock` and the hand of what is linked, right after the compare-exchange. `handHead`
 *      is set before `hand`: what it held belongs to an earlier object, which may be somebody's again.
 *  K2  Addresses that are taken out are in `batch` before the lock is given up. `to` moves on before those of one cache are
 *      freed, `from` when they are free. A thread that died may have freed any between; those behind are untouched.
 *
 * Who has taken addresses out frees them in the same read section. So whoever waits for a grace period after he found
 * the lists empty knows that they are free.
 */
import { __GFP_NOWARN, GFP_NOWAIT, type PageAllocator, virtToPage } from '../../page/index.js';
import {
  type GracePeriods,
  KFREE_RCU_BATCH,
  KfreeRcuCpu,
  type KfreeRcuCpuPtr,
  krcpOf,
} from '../../rcu/index.js';
import { type Geometry, PAGE_SIZE, WORD_BYTES, type Words } from '../../struct/index.js';
import { cmpxchg, exchange, LockClass, type LockPtr, type Locks, loadAcquire } from '../../sync/index.js';

/** A page of addresses: the next page (word index), how many, their grace period, and they. */
const NEXT = 0;
const COUNT = 1;
const GRACE_PERIOD = 2;
const FIRST = 3;
/** Kernel: KVFREE_BULK_MAX_ENTR. */
export const ADDRESSES_PER_PAGE = PAGE_SIZE / WORD_BYTES - FIRST;
/** Kernel: rcu_min_cached_objs. */
export const CACHED_PAGES_MAX = 5;
/** Kernel: rcu_delay_page_cache_fill_msec. */
const CACHE_BACKOFF_S = 5;

const { slab: SLAB, large: LARGE, waiting: WAITING, waitingTail: WAITING_TAIL } = KfreeRcuCpu;
const { heads: HEADS, waitingHeads: WAITING_HEADS, headsWaitFor: HEADS_WAIT_FOR } = KfreeRcuCpu;
const { hand: HAND, handNolock: HAND_NOLOCK } = KfreeRcuCpu;
const { from: FROM, to: TO, end: END, batch: BATCH } = KfreeRcuCpu;
const { cached: CACHED, nrCached: NR_CACHED, cacheAgainAt: CACHE_AGAIN_AT } = KfreeRcuCpu;

/** Kernel: FREE_N_CHANNELS. The numbers are fields of KfreeRcuCpu. */
export const Channel = { SLAB, LARGE } as const;
export type ChannelId = (typeof Channel)[keyof typeof Channel];

type Appended = 'no page' | 'gathers' | 'waits';

const seconds = (): number => (Date.now() / 1000) | 0;

/**
 * Visits what a chain of words leads to, `next` words behind each. The words may be in objects that somebody writes to
 * though they are free: it ends where the chain leaves the memory, and when it comes back to where it was, which is
 * visited twice then. (Brent's way to find a cycle: marks at distances that double.)
 */
function forEachLinked(m: Words, first: number, next: number, visit: (at: number) => void): void {
  let mark = first;
  let [steps, until] = [0, 1];
  for (let at = first; at > 0 && at + next < m.length; at = m[at + next]!) {
    visit(at);
    if (steps > 0 && at === mark) return;
    if (++steps !== until) continue;
    mark = at;
    until = 2 * until + 1;
  }
}

export class KfreeRcuLists {
  private readonly m: Words;
  private readonly geometry: Geometry;
  private readonly locks: Locks;
  private readonly pages: PageAllocator;
  private readonly gracePeriods: GracePeriods;

  constructor(m: Words, geometry: Geometry, locks: Locks, pages: PageAllocator, gracePeriods: GracePeriods) {
    this.m = m;
    this.geometry = geometry;
    this.locks = locks;
    this.pages = pages;
    this.gracePeriods = gracePeriods;
  }

  of(thread: number): KfreeRcuCpuPtr {
    return krcpOf(this.geometry, thread);
  }

  /**
   * Puts an address into the page of its channel; a page that is full with it begins to wait. It is in the hand of `from`
   * no more then.
   */
  append(krcp: KfreeRcuCpuPtr, channel: ChannelId, p: number, from = krcp): Appended {
    const { m } = this;
    return this.locked(krcp, () => {
      const page = m[krcp + channel]! || this.newPage(krcp);
      if (page === 0) return 'no page';
      const count = m[page + COUNT]!;
      m[page + FIRST + count] = p;
      m[page + COUNT] = count + 1;
      m[from + HAND] = 0; // K1
      m[page + GRACE_PERIOD] = this.gracePeriods.snapshot();
      const full = count + 1 === ADDRESSES_PER_PAGE;
      m[krcp + channel] = full ? 0 : page;
      if (full) this.wait(krcp, page);
      return full ? 'waits' : 'gathers';
    });
  }

  /** Links an object through `word`, a word of it, and clears `hand`. Takes no lock. Kernel: the list of rcu_heads. */
  pushHead(krcp: KfreeRcuCpuPtr, word: number, hand: number): void {
    const { m } = this;
    for (let head = loadAcquire(m, krcp + HEADS); ; ) {
      m[word] = head;
      // Pairs with the exchange in waitWithHeads: whoever takes the chain sees its links.
      const seen = cmpxchg(m, krcp + HEADS, head, word);
      if (seen === head) {
        m[hand] = 0; // K1
        return;
      }
      head = seen;
    }
  }

  /** What was gathered so far begins to wait, however little it is. Kernel: the monitor work. */
  startWaiting(krcp: KfreeRcuCpuPtr): void {
    const { m } = this;
    if (!this.gathers(krcp)) return;
    this.locked(krcp, () => {
      for (const channel of [SLAB, LARGE]) {
        const page = m[krcp + channel]!;
        m[krcp + channel] = 0;
        if (page !== 0) this.wait(krcp, page);
      }
      this.waitWithHeads(krcp);
    });
  }

  /** Those that wait already wait anew, with the others: it is memory that was short, and they are few. */
  private waitWithHeads(krcp: KfreeRcuCpuPtr): void {
    const { m } = this;
    const first = exchange(m, krcp + HEADS, 0); // pairs with pushHead
    if (first === 0) return;
    let last = first;
    for (let word = first; word !== 0; word = m[word]!) last = word;
    m[last] = m[krcp + WAITING_HEADS]!;
    m[krcp + HEADS_WAIT_FOR] = this.gracePeriods.request();
    m[krcp + WAITING_HEADS] = first;
  }

  /** data race, intended: what comes now has somebody who will look. */
  gathers(krcp: KfreeRcuCpuPtr): boolean {
    const { m } = this;
    return (m[krcp + SLAB]! | m[krcp + LARGE]! | m[krcp + HEADS]!) !== 0;
  }

  /** data race, intended: as in gathers(). */
  waits(krcp: KfreeRcuCpuPtr): boolean {
    return (this.m[krcp + WAITING]! | this.m[krcp + WAITING_HEADS]!) !== 0;
  }

  /**
   * Takes addresses whose grace period is over into the batch of the thread `mine`, which is empty; false when there are
   * none. The caller is in a read section. Those that were linked are words of objects (K2).
   */
  take(krcp: KfreeRcuCpuPtr, mine: KfreeRcuCpuPtr): boolean {
    const { m } = this;
    if (!this.waits(krcp) || m[mine + FROM] !== m[mine + END]) return false;
    return this.locked(krcp, () => {
      m[mine + END] = 0; // first: what the batch held before is not to be had again
      m[mine + FROM] = 0;
      m[mine + TO] = 0;
      m[mine + END] = this.takeFromPage(krcp, mine + BATCH) || this.takeHeads(krcp, mine + BATCH);
      return m[mine + END] !== 0;
    });
  }

  private takeFromPage(krcp: KfreeRcuCpuPtr, to: number): number {
    const { m } = this;
    const page = m[krcp + WAITING]!;
    if (page === 0 || !this.gracePeriods.poll(m[page + GRACE_PERIOD]!)) return 0;
    const count = m[page + COUNT]!;
    const n = Math.min(count, KFREE_RCU_BATCH);
    for (let i = 0; i < n; i++) m[to + i] = m[page + FIRST + count - 1 - i]!;
    m[page + COUNT] = count - n;
    if (count > n) return n;
    m[krcp + WAITING] = m[page + NEXT]!;
    if (m[krcp + WAITING] === 0) m[krcp + WAITING_TAIL] = 0;
    this.putPage(krcp, page);
    return n;
  }

  private takeHeads(krcp: KfreeRcuCpuPtr, to: number): number {
    const { m } = this;
    if (m[krcp + WAITING_HEADS] === 0 || !this.gracePeriods.poll(m[krcp + HEADS_WAIT_FOR]!)) return 0;
    let n = 0;
    for (let word = m[krcp + WAITING_HEADS]!; word !== 0 && n < KFREE_RCU_BATCH; n++) {
      m[to + n] = word * WORD_BYTES;
      word = m[word]!;
      m[krcp + WAITING_HEADS] = word;
    }
    return n;
  }

  /** Frees the pages that were kept for later, and keeps none for a while. Kernel: `drain_page_cache`. */
  dropCachedPages(krcp: KfreeRcuCpuPtr, backoffSeconds = CACHE_BACKOFF_S): void {
    const { m } = this;
    // data race, intended: a page that is put there now was in use a moment ago.
    if (m[krcp + CACHED] === 0 && !this.waits(krcp)) return;
    if (backoffSeconds > 0) m[krcp + CACHE_AGAIN_AT] = seconds() + backoffSeconds; // a hint
    this.locked(krcp, () => {
      for (let page = m[krcp + CACHED]!; page !== 0; page = m[krcp + CACHED]!) {
        m[krcp + CACHED] = m[page + NEXT]!;
        this.freePage(page);
      }
      m[krcp + NR_CACHED] = 0;
    });
  }

  cachedPages(krcp: KfreeRcuCpuPtr): number {
    return this.m[krcp + NR_CACHED]!;
  }

  /** Visits every address that the CPU's lists hold, and the words of linked objects; others are quiet. */
  forEach(krcp: KfreeRcuCpuPtr, visit: (p: number, isHead: boolean) => void): void {
    const { m } = this;
    for (const list of [SLAB, LARGE, WAITING]) {
      forEachLinked(m, m[krcp + list]!, NEXT, (page) => {
        const count = Math.min(m[page + COUNT]!, ADDRESSES_PER_PAGE);
        for (let i = 0; i < count; i++) visit(m[page + FIRST + i]!, false);
      });
    }
    for (const list of [HEADS, WAITING_HEADS]) {
      forEachLinked(m, m[krcp + list]!, 0, (word) => visit(word * WORD_BYTES, true));
    }
  }

  /** The same for what its thread has in hand. */
  forEachInHand(krcp: KfreeRcuCpuPtr, visit: (p: number, isHead: boolean) => void): void {
    const { m } = this;
    for (let i = m[krcp + FROM]!; i < m[krcp + END]!; i++) visit(m[krcp + BATCH + i]!, true);
    if (m[krcp + HAND] !== 0) visit(m[krcp + HAND]!, false);
    if (m[krcp + HAND_NOLOCK] !== 0) visit(m[krcp + HAND_NOLOCK]!, true);
  }

  private wait(krcp: KfreeRcuCpuPtr, page: number): void {
    const { m, gracePeriods } = this;
    if (!gracePeriods.poll(m[page + GRACE_PERIOD]!)) m[page + GRACE_PERIOD] = gracePeriods.request();
    m[page + NEXT] = 0;
    if (m[krcp + WAITING] === 0) m[krcp + WAITING] = page;
    else m[m[krcp + WAITING_TAIL]! + NEXT] = page;
    m[krcp + WAITING_TAIL] = page;
  }

  /** The lock is held: no reclaim. */
  private newPage(krcp: KfreeRcuCpuPtr): number {
    const { m, pages } = this;
    let page = m[krcp + CACHED]!;
    if (page !== 0) {
      m[krcp + CACHED] = m[page + NEXT]!;
      m[krcp + NR_CACHED] = m[krcp + NR_CACHED]! - 1;
    } else {
      const block = pages.alloc(0, GFP_NOWAIT | __GFP_NOWARN);
      if (block === 0) return 0;
      page = pages.address(block) / WORD_BYTES;
    }
    m[page + NEXT] = 0;
    m[page + COUNT] = 0;
    return page;
  }

  private putPage(krcp: KfreeRcuCpuPtr, page: number): void {
    const { m } = this;
    if (m[krcp + NR_CACHED]! >= CACHED_PAGES_MAX || seconds() < m[krcp + CACHE_AGAIN_AT]!) {
      this.freePage(page);
      return;
    }
    m[page + NEXT] = m[krcp + CACHED]!;
    m[krcp + CACHED] = page;
    m[krcp + NR_CACHED] = m[krcp + NR_CACHED]! + 1;
  }

  private freePage(page: number): void {
    this.pages.free(virtToPage(this.geometry, page * WORD_BYTES), 0);
  }

  private locked<T>(krcp: KfreeRcuCpuPtr, body: () => T): T {
    const lock = (krcp + KfreeRcuCpu.lock) as unknown as LockPtr;
    this.locks.lock(lock, LockClass.Krcp);
    try {
      return body();
    } finally {
      this.locks.unlock(lock, LockClass.Krcp);
    }
  }
}
