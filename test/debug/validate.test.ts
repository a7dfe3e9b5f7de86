/** validate() finds what is planted: for each invariant a word is corrupted, and a finding with its number expected. */

import { describe, expect, it } from 'vitest';
import { Registry } from '#src/cache/index.js';
import { Pcs, pcsOf, ThreadRecord, threadRecordOf } from '#src/cpu/index.js';
import { INVARIANTS, type Invariant } from '#src/debug/index.js';
import type { Arena, Finding } from '#src/index.js';
import { Page, type PagePtr, PG_PARTIAL, virtToPage, Zone, zoneOf } from '#src/page/index.js';
import { Barn, SHEAF_OBJECTS, Sheaf } from '#src/sheaf/index.js';
import { addPartialTail, KmemCacheNode, packSlabWord, removePartial } from '#src/slab/index.js';
import { LockRecord, ownerWord } from '#src/sync/index.js';
import { allocMany, barnAt, partialList, sheavesOf } from '../cache/support/arena.js';
import { slabAlloc, slabFree } from '../slab/support.js';
import { plant, type Scene, setup } from './support.js';

const sheafWord = (at: number, i: number): number => at + SHEAF_OBJECTS + i;

describe('I1', () => {
  it('a CPU without a main sheaf', () => {
    plant(['I1', 'I10'], /c: CPU 0 has no main sheaf/, ({ m, pcs }) => {
      m[pcs + Pcs.main] = 0;
    });
  });

  it('so too for a CPU that has no thread', () => {
    plant(['I1'], /c: CPU 1 has no main sheaf/, ({ arena, cache, m }) => {
      m[pcsOf(arena.geometry, 1, cache.desc.slot) + Pcs.main] = 0;
    });
  });
});

describe('I2', () => {
  it('a sheaf of more objects than it holds', () => {
    plant(['I2', 'I10'], /c: main of CPU 1: size 29/, ({ arena, m, cache }) => {
      const { at } = sheavesOf(arena, cache, 1).main;
      m[at + Sheaf.size] = 29;
      for (let i = 0; i < 28; i++) m[sheafWord(at, i)] = allocMany(cache, 1)[0]!;
      arena.endTurn();
    });
  });

  it('a count of operations in a sheaf whose lock is free', () => {
    plant(['I2'], /main of CPU 0: 3 operations not yet counted/, ({ arena, m, cache }) => {
      const { at } = sheavesOf(arena, cache).main;
      m[at + Sheaf.size] = m[at + Sheaf.size]! | (3 << 16);
    });
  });
});

describe('I3', () => {
  it('one sheaf as main and spare', () => {
    plant(['I3', 'I10'], /sheaf \d+ is spare of CPU 0 and main of CPU 0/, ({ m, pcs }) => {
      m[pcs + Pcs.spare] = m[pcs + Pcs.main]!;
    });
  });

  it("a sheaf of another cache's", () => {
    plant(['I3'], /main of CPU 1: foreign sheaf/, ({ arena, m, cache }) => {
      m[sheavesOf(arena, cache, 1).main.at + Sheaf.cache] = arena.openCache('kmalloc-64').desc.ptr;
    });
  });

  it('a list of the barn that is a circle', () => {
    plant(
      ['I3', 'I5'],
      /sheaf \d+ is full in the barn of node 0 and full in the barn of node 0/,
      ({ arena, m, cache }) => {
        const { full } = barnAt(arena, cache);
        m[full.at(-1)!.at + Sheaf.link] = full[0]!.at;
      },
    );
  });
});

describe('I4', () => {
  it('an empty sheaf among the full ones', () => {
    plant(['I4', 'I10'], /full in the barn of node 0: empty/, ({ arena, m, cache }) => {
      m[barnAt(arena, cache).full[0]!.at + Sheaf.size] = 0;
    });
  });

  it('objects in a sheaf among the empty ones', () => {
    plant(['I4', 'I10'], /empty in the barn of node 0: size 1/, ({ arena, m, cache, barn, held }) => {
      allocMany(cache, 28 * 4);
      arena.endTurn();
      expect(barnAt(arena, cache).empty.length).toBeGreaterThan(0);
      const at = m[barn + Barn.empty]!;
      m[at + Sheaf.size] = 1;
      m[sheafWord(at, 0)] = held[0]!;
    });
  });
});

describe('I5', () => {
  it.each([
    ['full', Barn.nrFull],
    ['empty', Barn.nrEmpty],
  ])('a count of %s sheaves that is not their number', (name, field) => {
    plant(['I5'], new RegExp(`node 0: \\d+ ${name}, count`), ({ m, barn }) => {
      m[barn + field] = m[barn + field]! + 1;
    });
  });
});

describe('I6', () => {
  it('many more full sheaves than 10', () => {
    plant(['I6'], /c: node 0: 13 full sheaves/, ({ arena, m, cache, barn }) => {
      const more = 13 - barnAt(arena, cache).full.length;
      for (let i = 0; i < more; i++) {
        const sheaf = arena.kmalloc(128) >> 2;
        const [p] = slabAlloc(arena, cache);
        arena.u8[arena.geometry.shadow + (p! >> 3)] = 0;
        m.set([m[barn + Barn.full]!, cache.desc.ptr, 1, 0, p!], sheaf);
        m[barn + Barn.full] = sheaf;
        m[barn + Barn.nrFull] = m[barn + Barn.nrFull]! + 1;
      }
      arena.endTurn();
    });
  });
});

describe('I7', () => {
  const slabFlags = ({ arena, cache }: Scene) => partialList(arena, cache)[0]!.page + Page.flags;

  it('a listed slab without its mark', () => {
    plant(['I7', 'I22'], /not marked but on the partial list/, (scene) => {
      scene.m[slabFlags(scene)] = scene.m[slabFlags(scene)]! & ~PG_PARTIAL;
    });
  });

  it('a marked slab that is not listed', () => {
    plant(['I7', 'I8'], /marked but not on the partial list/, ({ arena, m, held }) => {
      const page = virtToPage(arena.geometry, held[40]!);
      m[page + Page.flags] = m[page + Page.flags]! | PG_PARTIAL;
    });
  });

  it('a wrong back link, a wrong tail, a circle, a foreign page', () => {
    const pages = ({ arena, cache }: Scene) => partialList(arena, cache).map(({ page }) => page);
    plant(['I7'], /wrong back link/, (scene) => {
      const [first, second] = pages(scene) as [PagePtr, PagePtr];
      expect(second).not.toBe(first);
      scene.m[second + Page.prev] = 0;
    });
    plant(['I7'], /the list does not end at its tail/, (scene) => {
      scene.m[scene.n + KmemCacheNode.tail] = pages(scene)[0]!;
    });
    plant(['I7'], /the partial list has a cycle or a page of another owner/, (scene) => {
      scene.m[pages(scene).at(-1)! + Page.next] = pages(scene)[0]!;
    });
    plant(['I7'], /the partial list has a cycle or a page of another owner/, (scene) => {
      scene.m[pages(scene).at(-1)! + Page.next] = virtToPage(scene.arena.geometry, scene.cache.desc.ptr * 4);
    });
  });
});

describe('I8 and I22', () => {
  it('a slab on the list with nothing free', () => {
    plant(['I8'], /on the partial list with an empty freelist/, ({ arena, m, n, held }) => {
      addPartialTail(m as never, n as never, virtToPage(arena.geometry, held[40]!));
    });
  });

  it('free objects in a slab on no list', () => {
    plant(['I22'], /\d+ free, on no list/, ({ arena, m, n, cache }) => {
      removePartial(m as never, n as never, partialList(arena, cache)[0]!.page);
    });
  });
});

describe('I9', () => {
  it('a wrong count of objects in use', () => {
    plant(['I9'], /inuse is \d+, but \d+ of 16 objects are on the freelist/, ({ arena, m, cache }) => {
      const { page, freelist, inuse } = partialList(arena, cache)[0]!;
      m[page + Page.slabWord] = packSlabWord(freelist, inuse - 1);
    });
  });

  it('a freelist that is a circle, or leads out of the slab', () => {
    for (const next of ['itself', 17, 32_767] as const) {
      plant(['I9', 'I10'], /the freelist is a cycle or leads out of the slab/, ({ arena, m, cache }) => {
        const slab = partialList(arena, cache).find(({ objects, inuse }) => objects - inuse >= 2)!;
        const head = slab.address + (slab.freelist - 1) * cache.size;
        m[(head + cache.desc.offset) >> 2] = next === 'itself' ? slab.freelist : next;
      });
    }
  });
});

/** Some thousand times what it takes, and less than a loop over 2^31 objects does. */
const BOUNDED_MS = 8_000;

describe("a slab's number of objects", () => {
  it.each([0x7fffffff, -1, 17, 0])(
    'that is corrupted to %i is reported, and nothing loops for long',
    (said) => {
      plant(
        ['I9', 'I11'],
        new RegExp(`it is said to have ${said} objects, with room for 16`),
        ({ arena, m, cache }) => {
          m[partialList(arena, cache)[0]!.page + Page.objects] = said;
        },
      );
    },
    BOUNDED_MS,
  );

  it('does not make the leak report of a destroyed cache endless', () => {
    const { arena, m, cache, held } = setup();
    m[virtToPage(arena.geometry, held[40]!) + Page.objects] = 0x7fffffff;
    const { objects } = cache.destroy();
    expect(objects.length).toBeGreaterThanOrEqual(held.length);
    expect(objects.length).toBeLessThan(held.length + 200);
  });
});

describe('I10', () => {
  it('an object that is neither allocated nor free anywhere', () => {
    plant(
      ['I10'],
      /c: 0x[0-9a-f]+ is neither allocated nor free anywhere: lost/,
      ({ arena, held, shadowOf }) => {
        arena.u8[shadowOf(held[5]!)] = 0;
      },
    );
  });

  it('an object that is allocated, and in a sheaf', () => {
    plant(['I10'], /is allocated and in main of CPU 0/, ({ arena, cache, shadowOf }) => {
      arena.u8[shadowOf(sheavesOf(arena, cache).main.objects[0]!)] = cache.desc.tag;
    });
  });

  it('an object that is allocated, and on a freelist', () => {
    plant(['I10'], /is allocated and in the freelist of c, slab/, ({ arena, cache, shadowOf }) => {
      const { address, freelist } = partialList(arena, cache)[0]!;
      arena.u8[shadowOf(address + (freelist - 1) * cache.size)] = cache.desc.tag;
    });
  });

  it('an object that fell out of its sheaf', () => {
    plant(['I10'], /lost/, ({ arena, m, cache }) => {
      const { at, size } = sheavesOf(arena, cache).main;
      m[at + Sheaf.size] = size - 1;
    });
  });

  it('is not looked for without allocated-state', () => {
    plant(
      [],
      /^$/,
      ({ arena, m, cache }) => {
        const { at, size } = sheavesOf(arena, cache).main;
        m[at + Sheaf.size] = size - 1;
      },
      'none',
    );
  });
});

describe('I11', () => {
  it.each([
    ['nr_partial', KmemCacheNode.nrPartial],
    ['nr_slabs', KmemCacheNode.nrSlabs],
    ['total_objects', KmemCacheNode.totalObjects],
  ])('%s', (name, field) => {
    plant(['I11'], new RegExp(`c, node 0: ${name} is \\d+, there are \\d+`), ({ m, n }) => {
      m[n + field] = m[n + field]! - 1;
    });
  });
});

describe('I12', () => {
  it('many more empty slabs than min_partial', () => {
    plant(['I12'], /c, node 0: 70 empty slabs, min_partial 0/, ({ arena, cache }) => {
      // The allowance is what two refillers may return: two batches of 28.
      cache.minPartial = 1000;
      slabFree(arena, cache, slabAlloc(arena, cache, 16 * 70 + 4).slice(4));
      cache.minPartial = 0;
    });
  });
});

describe('I13', () => {
  it('one object twice in a sheaf', () => {
    plant(['I10', 'I13'], /0x[0-9a-f]+ is in main of CPU 0 and in main of CPU 0/, ({ arena, m, cache }) => {
      const { at, objects } = sheavesOf(arena, cache).main;
      m[sheafWord(at, 0)] = objects[1]!;
    });
  });

  it('one object in two sheaves', () => {
    plant(['I10', 'I13'], /is in full in the barn of node 0 and in main of CPU 0/, ({ arena, m, cache }) => {
      m[sheafWord(barnAt(arena, cache).full[0]!.at, 3)] = sheavesOf(arena, cache).main.objects[0]!;
    });
  });

  it('one object in a sheaf and on a freelist', () => {
    plant(['I10', 'I13'], /is in the freelist of .* and in main of CPU 0/, ({ arena, m, cache }) => {
      const { address, freelist } = partialList(arena, cache)[0]!;
      m[sheafWord(sheavesOf(arena, cache).main.at, 0)] = address + (freelist - 1) * cache.size;
    });
  });

  it('something in a sheaf that is no object of the cache', () => {
    const none = [(p: number) => p + 8, () => 0, () => -8, (_: number, arena: Arena) => arena.kmalloc(64)];
    for (const value of none) {
      plant(['I10'], /0x-?[0-9a-f]+ in main of CPU 0 is no object of the cache/, ({ arena, m, cache }) => {
        const at = sheafWord(sheavesOf(arena, cache).main.at, 0);
        m[at] = value(m[at]!, arena);
        arena.endTurn();
      });
    }
  });
});

describe('I17', () => {
  it('a slab of no cache', () => {
    plant(['I11', 'I17', 'I10'], /registry: a slab at word \d+ has no cache/, ({ arena, m, cache, held }) => {
      const page = virtToPage(arena.geometry, held[40]!);
      m[page + Page.cache] = cache.desc.ptr + 1;
      for (const p of held)
        if (virtToPage(arena.geometry, p) === page) arena.u8[arena.geometry.shadow + (p >> 3)] = 0;
      arena.u8[arena.geometry.shadow + (held[5]! >> 3)] = 0;
    });
  });
});

describe('I20', () => {
  const owner = ownerWord(1, 3);
  it.each<[string, RegExp, (scene: Scene) => number]>([
    ["a CPU's sheaves", /c: the sheaves of CPU 0 are locked by 0x30002/, ({ pcs }) => pcs + Pcs.lock],
    ['a barn', /c: barn lock of node 0 is held/, ({ barn }) => barn + Barn.lock],
    ['a list_lock', /c, node 0: list_lock is held/, ({ n }) => n + KmemCacheNode.listLock],
    ['a zone', /zone 0: zone->lock is held/, ({ arena }) => zoneOf(arena.geometry, 0) + Zone.lock],
    ['the slab_mutex', /slab_mutex is held/, ({ arena }) => arena.geometry.registry + Registry.slabMutex],
  ])('the lock of %s is held', (_, what, lockOf) => {
    plant(['I20'], what, (scene) => {
      scene.m[lockOf(scene)] = owner;
    });
  });

  it('a CPU that says it holds a lock', () => {
    plant(['I20'], /CPU 0: holds 2 locks/, ({ arena, m }) => {
      m[threadRecordOf(arena.geometry, 0) + ThreadRecord.locks + LockRecord.nrHeld] = 2;
    });
  });
});

describe('I21', () => {
  it('a sheaf allocation that never ended', () => {
    plant(['I21'], /CPU 0: depth 1/, ({ arena }) => {
      arena.cpu.sheafAllocDepth = 1;
    });
  });
});

describe('findings', () => {
  it('have a text for each invariant, and none is without a test', () => {
    const tested: Invariant[] = [
      'I1',
      'I2',
      'I3',
      'I4',
      'I5',
      'I6',
      'I7',
      'I8',
      'I9',
      'I10',
      'I11',
      'I12',
      'I13',
    ];
    expect(Object.keys(INVARIANTS).sort()).toEqual(
      [
        ...tested,
        'I14',
        'I17',
        'I20',
        'I21',
        'I22',
        'I23',
        'I24',
        'I25',
        'PERCPU',
        'COUNTERS',
        'PAGES',
      ].sort(),
    );
    for (const text of Object.values(INVARIANTS)) expect(text.length).toBeGreaterThan(20);
  });

  it('are limited in number', () => {
    const { arena, held, cache } = setup();
    held.push(...slabAlloc(arena, cache, 3000));
    for (const p of held) arena.u8[arena.geometry.shadow + (p >> 3)] = 0;
    const findings: Finding[] = arena.validate();
    expect(findings).toHaveLength(1000);
  });

  it('change nothing in the arena', () => {
    const { arena, pcs, m } = setup();
    m[pcs + Pcs.spare] = m[pcs + Pcs.main]!;
    const before = Buffer.from(new Uint8Array(arena.u8));
    arena.validate();
    expect(before.equals(Buffer.from(new Uint8Array(arena.u8)))).toBe(true);
  });
});
