/** The first life of an arena: zones, then caches, on CPU 0, which is free again afterwards. */
import { bootstrap, Caches, type HotCode, makeStaticCaches, type StaticCache } from './cache/index.js';
import { ThisCpu, type Views } from './cpu/index.js';
import { connectSlabDebug, type SlabReports } from './debug/index.js';
import { initZone, setWatermarks, Zone, zoneOf } from './page/index.js';
import { initGracePeriods } from './rcu/index.js';
import { initFreelistRandomization } from './slab/index.js';
import type { Geometry } from './struct/index.js';

export function bootArena(
  views: Views,
  geometry: Geometry,
  code: HotCode,
  reports: SlabReports,
  definitions: readonly StaticCache[],
): void {
  const { m } = views;
  const pages = geometry.endPfn - geometry.firstPfn;
  for (let node = 0; node < geometry.nodes; node++) {
    const zone = zoneOf(geometry, node);
    m[zone + Zone.node] = node;
    m[zone + Zone.startPfn] = geometry.firstPfn + Math.floor((pages * node) / geometry.nodes);
    m[zone + Zone.endPfn] = geometry.firstPfn + Math.floor((pages * (node + 1)) / geometry.nodes);
    initZone(m, geometry, zone);
  }
  initGracePeriods(m, geometry);
  const caches = new Caches(new ThisCpu(views, geometry, { cpu: 0 }, 0), code);
  connectSlabDebug(caches, reports);
  bootstrap(caches);
  initFreelistRandomization(caches.slabs);
  caches.guards.make();
  makeStaticCaches(caches, definitions);
  caches.leaveCpu();
  caches.cpu.goOffline();
  setWatermarks(m, geometry);
}
