/**
 * Stacks as text in the arena, each once, so that a thread can read who freed what on another. Nothing is ever taken out.
 *
 * A table of lists; an entry is written in full before the compare-exchange that puts it in front of its list. Threads
 * carve entries out of blocks of their own. Two that add the same stack at once may add it twice, which costs memory
 * alone. Kernel: lib/stackdepot.
 */
import type { ThisCpu } from '../cpu/index.js';
import { __GFP_NOWARN, GFP_NOWAIT, type PageAllocator } from '../page/index.js';
import { SlabDebug } from '../slab/index.js';
import { PAGE_SIZE, WORD_BYTES, type Words } from '../struct/index.js';
import { cmpxchg, loadAcquire } from '../sync/index.js';

/** Word offsets in an entry; the text follows. */
const ENTRY = { next: 0, hash: 1, bytes: 2, text: 3 } as const;
const TABLE_WORDS = PAGE_SIZE / WORD_BYTES;
const BLOCK_ORDER = 2;
const BLOCK_WORDS = (PAGE_SIZE << BLOCK_ORDER) / WORD_BYTES;
/** A longer one is cut. */
const TEXT_BYTES_MAX = PAGE_SIZE;

function hashOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash | 0;
}

export class StackDepot {
  private readonly m: Words;
  private readonly pages: PageAllocator;
  /** Word that holds the table. */
  private readonly root: number;
  private readonly known = new Map<string, number>();
  private top = 0;
  private left = 0;

  constructor(cpu: ThisCpu, pages: PageAllocator) {
    this.m = cpu.m;
    this.pages = pages;
    this.root = cpu.geometry.slabDebug + SlabDebug.depot;
  }

  /** The handle of a stack; 0 when it is not known and there is no memory, or `mayAllocate` is false. */
  save(frames: readonly string[], mayAllocate: boolean): number {
    const text = frames.join('\n');
    const known = this.known.get(text);
    if (known !== undefined) return known;
    if (text === '' || !mayAllocate) return 0;
    const table = this.table();
    if (table === 0) return 0;
    const bytes = new TextEncoder().encode(text).subarray(0, TEXT_BYTES_MAX);
    const handle = this.insert(table, bytes);
    if (handle !== 0) this.known.set(text, handle);
    return handle;
  }

  /** The frames of a handle; none for 0, or for a word that was overwritten. */
  read(handle: number): string[] {
    const { m } = this;
    if (!Number.isInteger(handle) || handle <= 0 || handle + ENTRY.text >= m.length) return [];
    const bytes = m[handle + ENTRY.bytes]!;
    const from = (handle + ENTRY.text) * WORD_BYTES;
    if (bytes <= 0 || bytes > TEXT_BYTES_MAX || from + bytes > m.byteLength) return [];
    // Some engines refuse to decode a shared view: copy first.
    const copy = new Uint8Array(m.buffer, from, bytes).slice();
    return hashOf(copy) === m[handle + ENTRY.hash] ? new TextDecoder().decode(copy).split('\n') : [];
  }

  private table(): number {
    const { m, root } = this;
    // Pairs with the compare-exchange below.
    const there = loadAcquire(m, root);
    if (there !== 0) return there;
    const made = this.block(0);
    if (made === 0) return 0;
    m.fill(0, made, made + TABLE_WORDS);
    const first = cmpxchg(m, root, 0, made);
    return first === 0 ? made : first; // another thread's came first; ours is lost, one page
  }

  private block(order: number): number {
    const page = this.pages.alloc(order, GFP_NOWAIT | __GFP_NOWARN);
    return page === 0 ? 0 : this.pages.address(page) / WORD_BYTES;
  }

  private insert(table: number, bytes: Uint8Array): number {
    const { m } = this;
    const hash = hashOf(bytes);
    const list = table + (hash & (TABLE_WORDS - 1));
    // Pairs with the compare-exchange below: an entry that is seen is whole.
    let first = loadAcquire(m, list);
    for (let entry = first; entry !== 0; entry = m[entry + ENTRY.next]!) {
      if (m[entry + ENTRY.hash] === hash && this.isSame(entry, bytes)) return entry;
    }
    const made = this.carve(ENTRY.text + Math.ceil(bytes.length / WORD_BYTES));
    if (made === 0) return 0;
    m[made + ENTRY.hash] = hash;
    m[made + ENTRY.bytes] = bytes.length;
    new Uint8Array(m.buffer, (made + ENTRY.text) * WORD_BYTES, bytes.length).set(bytes);
    for (;;) {
      m[made + ENTRY.next] = first;
      const seen = cmpxchg(m, list, first, made);
      if (seen === first) return made;
      first = seen;
    }
  }

  private isSame(entry: number, bytes: Uint8Array): boolean {
    const there = new Uint8Array(this.m.buffer, (entry + ENTRY.text) * WORD_BYTES, bytes.length);
    return this.m[entry + ENTRY.bytes] === bytes.length && bytes.every((byte, i) => there[i] === byte);
  }

  /** Words out of this thread's block; what is left of the old one when a new one is needed is lost. */
  private carve(words: number): number {
    if (words > this.left) {
      const block = this.block(BLOCK_ORDER);
      if (block === 0) return 0;
      this.top = block;
      this.left = BLOCK_WORDS;
    }
    const at = this.top;
    this.top += words;
    this.left -= words;
    return at;
  }
}
