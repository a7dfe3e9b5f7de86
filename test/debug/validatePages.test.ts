/** Planted corruption of pages, free blocks and their counts. */
import { describe, it } from 'vitest';
import { Page, type PagePtr, PG_BUDDY, pfnToPage, virtToPage, Zone, zoneOf } from '#src/page/index.js';
import { plant, type Scene } from './support.js';

describe('pages', () => {
  const freePage = ({ arena, m }: Scene): { page: PagePtr; order: number } => {
    const zone = zoneOf(arena.geometry, 0);
    for (let order = 0; order < 11; order++) {
      const page = m[zone + Zone.freeArea + order] as PagePtr;
      if (page !== 0) return { page, order };
    }
    throw new Error('no page is free');
  };
  const HEX = 'page 0x[0-9a-f]+';

  it.each<[string, RegExp, (scene: Scene) => void]>([
    [
      'a count of free pages',
      /zone 0: \d+ pages are free, the count says \d+/,
      ({ arena, m }) => {
        const at = zoneOf(arena.geometry, 0) + Zone.nrFree;
        m[at] = m[at]! + 1;
      },
    ],
    [
      'a count of free blocks',
      /free area 3 has \d+ blocks, its count says \d+/,
      ({ arena, m }) => {
        const at = zoneOf(arena.geometry, 0) + Zone.nrFreeArea + 3;
        m[at] = m[at]! + 1;
      },
    ],
    [
      'a free block without its mark',
      new RegExp(`${HEX} on free area \\d+ has flags 0x`),
      (scene) => {
        const { page } = freePage(scene);
        scene.m[page + Page.flags] = scene.m[page + Page.flags]! & ~PG_BUDDY;
      },
    ],
    [
      'a free block of the wrong order',
      new RegExp(`${HEX} on free area \\d+ has flags 0x`),
      (scene) => {
        const { page } = freePage(scene);
        scene.m[page + Page.flags] = scene.m[page + Page.flags]! ^ 0x1000;
      },
    ],
    [
      'a wrong back link',
      new RegExp(`${HEX} has a wrong back link`),
      (scene) => {
        scene.m[freePage(scene).page + Page.prev] = 12;
      },
    ],
    [
      'a list that is a circle',
      new RegExp(`${HEX} is on two free lists, or its list is a cycle`),
      (scene) => {
        const { page } = freePage(scene);
        scene.m[page + Page.next] = page;
      },
    ],
    [
      'a list that leads out of the zone',
      /free area \d+ leads out of the zone/,
      (scene) => {
        scene.m[freePage(scene).page + Page.next] = 8;
      },
    ],
    [
      'a block marked free that is on no list',
      new RegExp(`${HEX} is marked free but on no list`),
      (scene) => {
        const { page, order } = freePage(scene);
        const zone = zoneOf(scene.arena.geometry, 0);
        scene.m[zone + Zone.freeArea + order] = scene.m[page + Page.next]!;
        if (scene.m[page + Page.next] !== 0) scene.m[scene.m[page + Page.next]! + Page.prev] = 0;
        scene.m[zone + Zone.nrFreeArea + order] = scene.m[zone + Zone.nrFreeArea + order]! - 1;
      },
    ],
    [
      'a page that is nothing',
      new RegExp(`${HEX} is neither free nor allocated`),
      ({ arena, m }) => {
        m[virtToPage(arena.geometry, arena.allocPages(0)) + Page.flags] = 0;
      },
    ],
    [
      'a tail that names another head',
      new RegExp(`${HEX} is no tail of the block at ${HEX}`),
      ({ arena, m }) => {
        m[virtToPage(arena.geometry, arena.allocPages(1) + 4096) + Page.head] = pfnToPage(arena.geometry, 5);
      },
    ],
  ])('%s', (_, what, corrupt) => plant(['PAGES'], what, corrupt));
});
