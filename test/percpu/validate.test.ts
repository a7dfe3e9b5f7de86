/** Damage of each kind that validate must find in percpu chunks. */
import { describe, expect, it } from 'vitest';
import type { Arena } from '#src/index.js';
import { PcpuBlock, PcpuChunk, type PcpuChunkPtr, PcpuRoot, type PcpuView } from '#src/percpu/index.js';
import { bootPercpu } from './support.js';

type Damage = (m: Int32Array, v: PcpuView, chunk: PcpuChunkPtr) => void;

const change =
  (field: (v: PcpuView, chunk: PcpuChunkPtr) => number, by = 1): Damage =>
  (m, v, chunk) => {
    m[field(v, chunk)] = m[field(v, chunk)]! + by;
  };

const DAMAGES: Array<[string, Damage, RegExp]> = [
  ['free bytes', change((_, c) => c + PcpuChunk.freeBytes), /free_bytes says \d+, it is/],
  ['the number of areas', change((_, c) => c + PcpuChunk.nrAreas), /nr_alloc says 2, it is 1/],
  ['the largest run of a chunk', change((_, c) => c + PcpuChunk.contig), /contig_hint says/],
  [
    'the hint of a page',
    change((v, c) => v.blockOf(c, 0) + PcpuBlock.contigHint),
    /contig_hint says \d+, it is/,
  ],
  [
    'where that begins',
    change((v, c) => v.blockOf(c, 0) + PcpuBlock.contigHintStart, -1),
    /no run of \d+ begins/,
  ],
  [
    'the first free word',
    change((v, c) => v.blockOf(c, 0) + PcpuBlock.firstFree),
    /first_free says 5, it is 4/,
  ],
  [
    'a bit of the alloc map',
    change((v, c) => c + v.allocMap, 1 << 8),
    /bit 8 is allocated and no area begins there/,
  ],
  ['a hole in an area', change((v, c) => c + v.allocMap, -2), /the area at bit 0 ends at 4, but 1 is free/],
  ['the populated pages', change((v, c) => c + v.populated, 1 << 7), /nr_populated says 5, it is 6/],
  [
    'a page of one unit',
    (m, v, c) => (m[v.pageWord(c, 0, 1)] = m[v.pageWord(c, 0, 0)]!),
    /is not a page of its own/,
  ],
  [
    'a page that no bit tells of',
    change((v, c) => v.pageWord(c, 7, 0), 4096),
    /page 7 of CPU 0 is not populated and has 0x1000/,
  ],
  ['the list of a chunk', change((_, c) => c + PcpuChunk.slot), /slot says \d+, it is/],
  ['the end of a list', change((v, c) => v.root + PcpuRoot.slotTail + v.m[c + PcpuChunk.slot]!), /tail says/],
  ['the count of chunks', change((v) => v.root + PcpuRoot.nrChunks), /nr_chunks says 2, it is 1/],
  ['the pages that are ready', change((v) => v.root + PcpuRoot.nrEmptyPop), /nr_empty_pop says 5, it is 4/],
  [
    'a change under way',
    change((v) => v.root + PcpuRoot.opKind),
    /a change of the chunk at word \d+ is under way/,
  ],
  [
    'charge for what is no area',
    (m, _, c) => (m[m[c + PcpuChunk.objExts]! + 1] = 77),
    /bit 1 is charged to the group at word 77, and no area begins there/,
  ],
];

describe('validate finds a wrong', () => {
  it.each(DAMAGES)('%s', (_, damage, message) => {
    const arena: Arena = bootPercpu();
    arena.groups.workFor(arena.groups.create('g'));
    arena.percpu.charge(arena.allocPercpu(16));
    arena.endTurn();
    expect(arena.validate()).toEqual([]);
    const { v } = arena.percpu;
    damage(arena.i32, v, v.chunkAt(0));
    const findings = arena.validate();
    expect(findings.map(({ invariant }) => invariant)).toContain('PERCPU');
    expect(findings.map(({ what }) => what).join('\n')).toMatch(message);
  });
});
