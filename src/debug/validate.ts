/** The whole arena against its invariants. Any CPU may call it while the others are quiet; it changes nothing. */
import {
  type Caches,
  forEachSlab,
  type KmemCache,
  liveSlots,
  Registry,
  RegistrySlot,
  registrySlot,
} from '../cache/index.js';
import { ThreadRecord, ThreadState, threadName, threadRecordOf } from '../cpu/index.js';
import { Page, type PagePtr, zoneLock, zoneOf } from '../page/index.js';
import { LockRecord } from '../sync/index.js';
import { type Finding, Findings } from './finding.js';
import { validateCache } from './validateCache.js';
import { validateCallbacks } from './validateCallbacks.js';
import { validateGuards } from './validateGuards.js';
import { validatePages } from './validatePages.js';
import { validatePercpu } from './validatePercpu.js';

export function validateArena(caches: Caches): Finding[] {
  const findings = new Findings();
  validatePages(caches, findings);
  const slabs = slabsByCache(caches);
  for (const cache of caches.all()) {
    validateCache(caches, cache, slabs.get(cache.desc.ptr) ?? [], caches.pages, findings);
  }
  validateOwners(caches, findings);
  validateCallbacks(caches, findings);
  validateGuards(caches, findings);
  validateCpus(caches, findings);
  validatePercpu(caches, findings);
  return findings.list;
}

/** One cache. Kernel: `validate_slab_cache`. */
export function validateSlabCache(caches: Caches, cache: KmemCache): Finding[] {
  const findings = new Findings();
  validateCache(caches, cache, slabsByCache(caches).get(cache.desc.ptr) ?? [], caches.pages, findings);
  return findings.list;
}

function slabsByCache(caches: Caches): Map<number, PagePtr[]> {
  const { m } = caches.views;
  const slabs = new Map<number, PagePtr[]>();
  forEachSlab(m, caches.geometry, (page) => {
    const owner = m[page + Page.cache]!;
    const known = slabs.get(owner);
    if (known === undefined) slabs.set(owner, [page]);
    else known.push(page);
  });
  return slabs;
}

/** Every slab belongs to a cache that is live, or was destroyed with objects left. */
function validateOwners(caches: Caches, findings: Findings): void {
  const { geometry, views } = caches;
  const { m } = views;
  const owners = new Set<number>();
  for (const { ptr } of liveSlots(m, geometry)) owners.add(ptr);
  for (let slot = 0; slot < geometry.maxCaches; slot++) {
    const at = registrySlot(geometry, slot);
    if (m[at + RegistrySlot.serial]! < 0) owners.add(m[at + RegistrySlot.cache]!);
  }
  forEachSlab(m, geometry, (page) => {
    const owner = m[page + Page.cache]!;
    findings.expect(
      owners.has(owner),
      'I17',
      'registry',
      () => `a slab at word ${page} has no cache (${owner})`,
    );
  });
}

/** Nobody is in the middle of anything, the caller included. */
function validateCpus(caches: Caches, findings: Findings): void {
  const { geometry, views, cpu } = caches;
  const { m } = views;
  for (let thread = 0; thread < geometry.threads; thread++) {
    const record = threadRecordOf(geometry, thread);
    if (m[record + ThreadRecord.state] !== ThreadState.ONLINE) continue;
    const held = m[record + ThreadRecord.locks + LockRecord.nrHeld];
    findings.expect(held === 0, 'I20', threadName(geometry, thread), () => `holds ${held} locks`);
  }
  const mutex = geometry.registry + Registry.slabMutex;
  findings.expect(m[mutex] === 0, 'I20', 'registry', () => 'slab_mutex is held');
  for (let node = 0; node < geometry.nodes; node++) {
    const lock = zoneLock(zoneOf(geometry, node));
    findings.expect(m[lock] === 0, 'I20', `zone ${node}`, () => 'zone->lock is held');
  }
  findings.expect(cpu.sheafAllocDepth === 0, 'I21', `CPU ${cpu.id}`, () => `depth ${cpu.sheafAllocDepth}`);
}
