/** The memory groups of an arena, as one thread sees them. */
import { GFP_KERNEL } from '../../page/index.js';
import {
  describe,
  INSPECT,
  OutOfMemoryError,
  optionError,
  requireInteger,
  requireKnown,
  requireObject,
  sizeText,
  WORD_BYTES,
} from '../../struct/index.js';
import { loadAcquire } from '../../sync/index.js';
import type { Caches } from '../caches.js';
import { Registry } from '../registry.js';
import { GROUP_NAME_BYTES, type GroupPtr, MemoryGroupStruct, NO_LIMIT, workersOf } from './memoryGroup.js';

const G = MemoryGroupStruct;

/** What `arena.groups.create` takes. */
export interface GroupOptions {
  /** Most bytes of objects that it may have, 0 to 2^31 - 1; without, only the groups above limit it. */
  limit?: number;
  /** The group that it is part of. */
  parent?: MemoryGroup;
}

const KNOWN = Object.keys({ limit: true, parent: true } satisfies Record<keyof GroupOptions, true>);

/** Figures of a group. */
export interface GroupInfo {
  name: string;
  parent: string | null;
  /** Bytes; null without a limit. */
  limit: number | null;
  /** Bytes of its objects and of those of the groups below it, and what threads have in stock. */
  usage: number;
  peak: number;
  /** Charges that the limit refused, and forced ones that exceeded it. */
  failures: number;
  forced: number;
}

/** A limit on memory and what is used of it; from {@link MemoryGroups}. */
export class MemoryGroup {
  /** @internal */
  readonly ptr: GroupPtr;
  readonly name: string;
  private readonly caches: Caches;

  constructor(caches: Caches, ptr: GroupPtr) {
    this.caches = caches;
    this.ptr = ptr;
    const { m, u8 } = caches.views;
    const at = (ptr + G.name) * WORD_BYTES;
    this.name = new TextDecoder().decode(u8.slice(at, at + m[ptr + G.nameBytes]!));
  }

  /** One line for console.log. */
  [INSPECT](): string {
    const limit = this.limit === NO_LIMIT ? 'any' : `at most ${sizeText(this.limit)}`;
    return `MemoryGroup ${JSON.stringify(this.name)} { ${sizeText(this.usage)} of ${limit} }`;
  }

  /** Whether it lies in the arena of these caches. @internal */
  isOf(caches: Caches): boolean {
    return this.caches?.views.m.buffer === caches.views.m.buffer;
  }

  /** Bytes in objects, and in stock of threads that are in the middle of a turn. */
  get usage(): number {
    return loadAcquire(this.caches.views.m, this.ptr + G.usage);
  }

  /** Most bytes; lowering it below the usage refuses what comes and takes nothing away. */
  get limit(): number {
    return this.caches.views.m[this.ptr + G.limit]!;
  }
  set limit(bytes: number) {
    this.caches.views.m[this.ptr + G.limit] = requireInteger('limit', bytes, 0, NO_LIMIT);
  }

  get info(): GroupInfo {
    const { m } = this.caches.views;
    const parent = m[this.ptr + G.parent] as GroupPtr;
    return {
      name: this.name,
      parent: parent === 0 ? null : new MemoryGroup(this.caches, parent).name,
      limit: this.limit === NO_LIMIT ? null : this.limit,
      usage: this.usage,
      peak: m[this.ptr + G.peak]!,
      failures: m[this.ptr + G.failures]!,
      forced: m[this.ptr + G.forced]!,
    };
  }
}

/** The memory groups of an arena, for one thread: `arena.groups`. Kernel: memory cgroups. */
export class MemoryGroups {
  private readonly caches: Caches;

  constructor(caches: Caches) {
    this.caches = caches;
  }

  /**
   * Makes a group. Throws RangeError or TypeError that name the option, OutOfMemoryError when there is no memory for it.
   * @example
   * const group = arena.groups.create('worker-1', { limit: 16 << 20 });
   * arena.groups.workFor(group); // what this thread allocates from caches with SLAB_ACCOUNT counts there
   */
  create(name: string, options: GroupOptions = {}): MemoryGroup {
    requireObject('options', options);
    requireKnown('options', options, KNOWN);
    const { limit = NO_LIMIT, parent } = options;
    const bytes = this.checkName(name);
    requireInteger('limit', limit, 0, NO_LIMIT);
    if (parent !== undefined) this.checkGroup('parent', parent);
    const { caches } = this;
    return caches.withSlabMutex(() => {
      if (parent !== undefined) this.checkLive('parent', parent);
      if (this.find(name) !== undefined)
        throw new RangeError(`name is ${describe(name)}; a group of that name exists`);
      const p = caches.kmallocs.allocOwn(G.SIZEOF * WORD_BYTES, GFP_KERNEL);
      if (p === 0) throw new OutOfMemoryError(`no memory for the group ${name}`);
      const { m, u8 } = caches.views;
      const ptr = (p / WORD_BYTES) as GroupPtr;
      m.fill(0, ptr, ptr + G.SIZEOF);
      m[ptr + G.limit] = limit;
      m[ptr + G.parent] = parent?.ptr ?? 0;
      m[ptr + G.nameBytes] = bytes.length;
      u8.set(bytes, (ptr + G.name) * WORD_BYTES);
      m[ptr + G.next] = m[this.head]!;
      m[this.head] = ptr;
      return new MemoryGroup(caches, ptr);
    });
  }

  /** The group of that name, which any thread made. Throws RangeError with the names there are. */
  open(name: string): MemoryGroup {
    return this.caches.withSlabMutex(() => {
      const found = this.find(name);
      if (found !== undefined) return found;
      const names = [...this.walk()].map((group) => group.name).join(', ');
      throw new RangeError(`no group is named ${describe(name)}; there are ${names || 'none'}`);
    });
  }

  /** From now on this thread's allocations from caches with SLAB_ACCOUNT count for `group`; null for nobody. */
  workFor(group: MemoryGroup | null): void {
    const { caches } = this;
    const { accounting } = caches;
    if (group === null) return accounting.workFor(0 as GroupPtr);
    // slab_mutex keeps it from being ended between the look and the store.
    caches.withSlabMutex(() => {
      this.checkLive('group', group);
      accounting.workFor(group.ptr);
    });
  }

  /** Ends a group. Throws RangeError while threads work for it, groups are below it, or objects are charged to it. */
  destroy(group: MemoryGroup): void {
    const { caches } = this;
    this.checkGroup('group', group);
    caches.withSlabMutex(() => {
      const { m } = caches.views;
      this.checkLive('group', group);
      const [users, usage] = [this.usersOf(group.ptr), group.usage];
      if (users !== 0 || usage !== 0) {
        throw new RangeError(
          `group ${group.name} has ${users} threads and groups, and ${usage} bytes; it must have none`,
        );
      }
      let at = this.head;
      while (m[at] !== group.ptr) at = m[at]! + G.next;
      m[at] = m[group.ptr + G.next]!;
      caches.kmallocs.free(group.ptr * WORD_BYTES);
    });
  }

  /** All groups, the latest first. */
  list(): GroupInfo[] {
    return this.caches.withSlabMutex(() => [...this.walk()].map((group) => group.info));
  }

  private get head(): number {
    return this.caches.geometry.registry + Registry.groups;
  }

  private *walk(): Generator<MemoryGroup> {
    const { m } = this.caches.views;
    for (let ptr = m[this.head] as GroupPtr; ptr !== 0; ptr = m[ptr + G.next] as GroupPtr) {
      yield new MemoryGroup(this.caches, ptr);
    }
  }

  private find(name: string): MemoryGroup | undefined {
    for (const group of this.walk()) if (group.name === name) return group;
    return undefined;
  }

  /** Threads that work for a group, and groups below it. slab_mutex held. */
  private usersOf(ptr: GroupPtr): number {
    const { geometry, views } = this.caches;
    let users = workersOf(views.m, geometry, ptr);
    for (const group of this.walk()) if (views.m[group.ptr + G.parent] === ptr) users++;
    return users;
  }

  /** Throws unless it is a group of this arena. */
  private checkGroup(what: string, group: unknown): void {
    if (!(group instanceof MemoryGroup)) {
      throw new TypeError(`${what} is ${describe(group)}; it must be a group`);
    }
    if (!group.isOf(this.caches)) throw new TypeError(`${what} ${group.name} is a group of another arena`);
  }

  /** Throws unless it is one that has not been ended. slab_mutex held. */
  private checkLive(what: string, group: MemoryGroup): void {
    this.checkGroup(what, group);
    for (const { ptr } of this.walk()) if (ptr === group.ptr) return;
    throw new RangeError(`${what} ${group.name} has been ended already`);
  }

  private checkName(name: unknown): Uint8Array {
    if (typeof name !== 'string') throw new TypeError(`name is ${describe(name)}; it must be a string`);
    const bytes = new TextEncoder().encode(name);
    if (bytes.length > 0 && bytes.length <= GROUP_NAME_BYTES) return bytes;
    throw optionError('name', name, `1 to ${GROUP_NAME_BYTES} bytes long`);
  }
}
