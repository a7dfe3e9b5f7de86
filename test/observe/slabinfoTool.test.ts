import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  type Arena,
  type CacheInfo,
  type KmemCache,
  SLAB_HWCACHE_ALIGN,
  SLAB_RECLAIM_ACCOUNT,
  slabinfoTool,
} from '#src/index.js';
import { switchDebug } from '#src/lab/info.js';
import { selectCaches } from '#src/observe/index.js';
import { storeSize } from '#src/observe/slabinfoSizes.js';
import { allocMany, boot, secondCpu } from '../cache/support/arena.js';

/** Three caches with known figures, the second of which has merged with another, and an empty one. */
function caches(): CacheInfo[] {
  const arena = boot({ merge: 'kernel' });
  allocMany(arena.createCache('large', { size: 1000, flags: SLAB_RECLAIM_ACCOUNT, layer: 'none' }), 40);
  allocMany(arena.createCache('many', { size: 64, flags: SLAB_HWCACHE_ALIGN, layer: 'none' }), 130);
  arena.createCache('kin', { size: 64, layer: 'none' });
  allocMany(arena.createCache('small', { size: 8, layer: 'none', usersize: 8 }), 1);
  arena.createCache('void', { size: 24 });
  return arena.cacheInfo().filter(({ name }) => ['large', 'many', 'small', 'void'].includes(name));
}

const namesOf = (text: string): string[] =>
  text
    .trimEnd()
    .split('\n')
    .slice(1)
    .map((line) => line.split(' ')[0]!);

describe('the table of slabinfo', () => {
  const all = caches();
  const table = (options: Parameters<typeof slabinfoTool>[1] = {}) => slabinfoTool(all, options);

  it('has its columns and letters', () => {
    expect(table()).toBe(
      [
        'Name                    Objects Objsize           Space  Slabs/Part/Cpu  O/S O %Fr %Ef Flg',
        'large                        40    1000           49.1K           3/1/0   16 2  33  81 a',
        'many                        130      64           12.2K           3/1/0   64 0  33  67 *A',
        'small                         1       8            4.0K           1/1/0  512 0 100   0',
        '',
      ].join('\n'),
    );
  });

  it('sorts, turns round, cuts off and filters', () => {
    expect(namesOf(table({ sort: 'size' }))).toEqual(['large', 'many', 'small']);
    expect(namesOf(table({ sort: 'loss', loss: true }))).toEqual(['large', 'small', 'many']);
    expect(namesOf(table({ sort: 'activity' }))).toEqual(['many', 'large', 'small']);
    expect(namesOf(table({ sort: 'partial', inverted: true }))).toEqual(['small', 'many', 'large']);
    expect(namesOf(table({ lines: 1 }))).toEqual(['large']);
    expect(namesOf(table({ zero: true }))).toEqual(['large', 'many', 'small', 'void']);
    expect(namesOf(table({ empty: true }))).toEqual(['void']);
    expect(namesOf(table({ unreclaimable: true }))).toEqual(['many', 'small']);
    expect(namesOf(table({ pattern: /^k/ }))).toEqual(['many']);
    expect(namesOf(table({ firstAlias: true }))).toEqual(['large', 'kin', 'small']);
  });

  it('shows bytes and loss', () => {
    expect(table({ bytes: true, pattern: /large/ })).toContain(' 49152 ');
    expect(table({ loss: true, bytes: true, pattern: /large/ })).toContain(' 9152 ');
  });

  it('cuts sizes off at one digit', () => {
    expect([0, 999, 1000, 1001, 12_288, 1_048_576, 2 ** 31].map((n) => storeSize(n))).toEqual([
      '0',
      '999',
      '1000',
      '1.0K',
      '12.2K',
      '1.0M',
      '2.1G',
    ]);
  });

  it('has other tables: activity, names, nodes, a report, totals', () => {
    expect(table({ activity: true })).toMatch(/^many +130 +130 +0 +0 100 +0 0 +0 +0$/m);
    expect(table({ aliases: true })).toBe(':A0\n'.replace(':A0', ':0000064              <- kin many'));
    expect(table({ single: true })).toContain('kin                   -> :0000064\n');
    expect(table({ numa: true })).toMatch(/^NUMA nodes +: +Node 0\n/);
    expect(table({ numa: true })).toMatch(/^large +3\n {2}Partial slabs +1$/m);
    const report = table({ report: true, pattern: /^large$/ });
    expect(report).toContain('Slabcache: large  Id: :a-0001000  Aliases: 0  Order: 2  Objects: 40\n');
    expect(report).toMatch(/^Object : +1000 +Total {2}: +3 +Sanity Checks : Off +Total: +49.1K$/m);
    expect(report).toMatch(/^large +3\n {2}Partial slabs +1$/m);
    expect(report, 'without traces').not.toContain('Kernel object');
    expect(report).toMatch(/^ALLOC_SLOWPATH +40$/m);
    const totals = table({ totals: true });
    expect(totals).toContain('Slabcaches :      3  Aliases  :      1  Active:      3\n');
    expect(totals).toContain('# Objects:    171\n');
    expect(totals).toMatch(/^#Slabs +2 +1 +3 +7$/m);
    expect(totals).toMatch(/^Loss +5\.7K +3\.9K +9\.1K +17\.2K$/m);
    const extended = table({ extended: true, lines: 2 });
    expect(extended).toContain('Memory used:  65536');
    expect(extended.split('Slabs sorted by size')[1]!.match(/^(large|many)/gm)).toEqual([
      'large',
      'many',
      'large',
    ]);
    expect(slabinfoTool([], { totals: true })).toContain('Slabcaches :      0');
  });

  it('has the constructors and destructors', () => {
    expect(table({ ops: true, pattern: /large/ })).toBe('large has no kmem_cache operations\n');
    const [large] = all as [CacheInfo];
    const defined = { ...large, ctor: 'makeOne', dtor: 'endAll [slab]' };
    expect(slabinfoTool([defined], { ops: true })).toBe('large : ctor makeOne, dtor endAll [slab]\n');
  });

  it('leaves what it is given as it was', () => {
    const before = JSON.stringify(all);
    selectCaches(all, { sort: 'size', inverted: true });
    expect(JSON.stringify(all)).toBe(before);
  });
});

describe('slabinfo of debug caches', () => {
  const setup = () => {
    const arena = boot({ slabDebug: 'FZPU,tracked;FT,traced;T,only' });
    const names = ['tracked', 'traced', 'only', 'plain'];
    const caches = names.map((name) => arena.createCache(name, { size: 64 }));
    const reports: string[] = [];
    arena.onSlabReport(({ kind, what }) => reports.push(`${kind} ${what}`));
    return { arena, caches: caches as [KmemCache, KmemCache, KmemCache, KmemCache], reports };
  };
  const tracking = (arena: Arena) => ({
    zero: true,
    tracking: (name: string) => arena.openCache(name).debug,
  });

  it('has a letter for each flag', () => {
    const { arena } = setup();
    const rows = slabinfoTool(arena.cacheInfo(), { zero: true, pattern: /^(tracked|traced|only|plain)$/ });
    const lines = rows.trimEnd().split('\n').slice(1);
    expect(lines.map((row) => row.replace(/ .* /, ' '))).toEqual([
      'only T',
      'plain 100',
      'traced FT',
      'tracked PZFU',
    ]);
    const report = slabinfoTool(arena.cacheInfo(), { zero: true, report: true, pattern: /^tracked$/ });
    for (const what of ['Sanity Checks', 'Redzoning    ', 'Poisoning    ', 'Tracking     '])
      expect(report).toContain(`${what} : On `);
    expect(report).toContain('Tracing       : Off ');
  });

  it('tracks who allocated and who freed what is out', () => {
    const { arena, caches } = setup();
    const [tracked, , , plain] = caches;
    function first(): number[] {
      return allocMany(tracked, 3);
    }
    function freeing(objects: readonly number[]): void {
      for (const p of objects) tracked.free(p);
    }
    function second(): number {
      return tracked.alloc();
    }
    freeing(first());
    const p = second();
    plain.free(plain.alloc());
    const text = slabinfoTool(arena.cacheInfo(), { ...tracking(arena), pattern: /^(tracked|plain)$/ });
    const line = '-'.repeat(71);
    expect(text.replace(/( {8}at .*\n)+/g, '').replace(/age=\d+ /g, '')).toBe(
      [
        '',
        'plain: Kernel object allocation',
        line,
        'No data',
        '',
        'plain: Kernel object freeing',
        line,
        'No data',
        '',
        'tracked: Kernel object allocation',
        line,
        '      1 second pid=0 cpus=0 nodes=0',
        '',
        'tracked: Kernel object freeing',
        line,
        '      1 freeing pid=0 cpus=0 nodes=0',
        '',
      ].join('\n'),
    );
    tracked.free(p);
    const empty = slabinfoTool(arena.cacheInfo(), { ...tracking(arena), pattern: /^tracked$/ });
    expect(empty.match(/^No data$/gm)).toHaveLength(2);
    const report = slabinfoTool(arena.cacheInfo(), {
      ...tracking(arena),
      report: true,
      pattern: /^tracked$/,
    });
    expect(report).toContain('tracked: Kernel object freeing');
  });

  it('switches trace of a cache that has another flag, for all threads; nothing else', () => {
    const { arena, caches, reports } = setup();
    const [tracked] = caches;
    const other = secondCpu(arena);
    expect(switchDebug(arena, 'FZPUT', /^tracked$/)).toEqual([]);
    expect(arena.readAttribute('tracked', 'trace')).toBe('1');
    other.onSlabReport(({ kind, what }) => reports.push(`other ${kind} ${what}`));
    tracked.free(tracked.alloc());
    other.openCache('tracked').alloc();
    expect(reports).toEqual(['trace alloc', 'trace free', 'other trace alloc']);
    reports.length = 0;
    expect(switchDebug(other, 'a', /^tracked$/)).toEqual([]);
    tracked.free(tracked.alloc());
    expect(reports).toEqual([]);
    expect(switchDebug(arena, '-', /^tracked$/).map((line) => line.split(':')[0])).toEqual([
      'Cannot write to tracked/sanity_checks',
      'Cannot write to tracked/red_zone',
      'Cannot write to tracked/poison',
      'Cannot write to tracked/store_user',
    ]);
    expect(switchDebug(arena, 'T', /^plain$/)[0]).toMatch(/^Cannot write to plain\/trace: .*needs another/);
    expect(switchDebug(arena, '-', /^only$/)[0]).toMatch(/^Cannot write to only\/trace: .*needs another/);
    expect(switchDebug(arena, 'ft', /^tr/)).toContain('tracked can only enable trace for one slab at a time');
    const letters = arena.cacheInfo().filter(({ name }) => /^(tra|only|plain)/.test(name));
    expect(letters.map(({ name, trace }) => `${name} ${trace}`).sort()).toEqual([
      'only 1',
      'plain 0',
      'traced 1',
      'tracked 0',
    ]);
    expect(arena.validate()).toEqual([]);
  });

  it('refuses to write what is no number, and files that cannot be written', () => {
    const { arena } = setup();
    expect(() => arena.writeAttribute('traced', 'trace', '2')).toThrow(/trace is "2"; it must be .* 0 to 1/);
    for (const file of ['sanity_checks', 'red_zone', 'poison', 'store_user', 'failslab'])
      expect(() => arena.writeAttribute('traced', file, '1')).toThrow(`${file} is read-only: `);
  });
});

describe('granary info with the letters of slabinfo', () => {
  const main = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
  const info = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'info', ...args], {
      encoding: 'utf8',
    });
    return { status, stdout, stderr };
  };

  it('prints the table of what a short load left, after a shrink and a validate', () => {
    const { status, stdout, stderr } = info('-S', '-N', '3', '-s', '-v', '--merge', 'primary');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/^Name +Objects Objsize/);
    expect(stdout.trimEnd().split('\n')).toHaveLength(4);
  });

  it('tracks what the load left in an arena with slab_debug', () => {
    const { status, stdout, stderr } = info('-t', '--slab-debug', 'U,kmalloc-128', 'kmalloc-128$');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/^ {6}2 keepSome waste=56\/28 age=.* pid=0 cpus=2 nodes=0\n {8}at keepSome /m);
  });

  it('says which debug flags it cannot switch, with status 1', () => {
    const { status, stdout, stderr } = info('-d', 'FT', '--slab-debug', 'FU,kmalloc-8', 'kmalloc-8$');
    expect(status).toBe(1);
    expect(stdout).toMatch(/^kmalloc-8 .* FUT$/m);
    expect(stderr).toBe(
      'Cannot write to kmalloc-8/store_user: store_user is read-only: it is a part of the layout; ' +
        'slabDebug of Arena.create sets it\n',
    );
    expect(info('-d', 'Q')).toMatchObject({ status: 2 });
  });

  it('tells which caches merged, by name', () => {
    const { status, stdout } = info('-a', '--merge', 'kernel', 'kin');
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: `:0000192              <- lab-kin-8 ${[1, 2, 3, 4, 5, 6, 7].map((i) => `lab-kin-8.${i}`).join(' ')}\n`,
    });
  });
});
