import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { replayTrace } from '#src/lab/replay.js';
import { replayText } from '#src/lab/replayReport.js';
import { withOwnCaches } from '#src/lab/study/plan.js';
import { runStudy } from '#src/lab/study.js';
import {
  type CompileOptions,
  compileTrace,
  compileTraceText,
  createSlotTable,
  EventKind,
  OP_ARG_SHIFT,
  OP_CROSS,
  OP_FREE,
  OP_KMALLOC,
  OP_WORDS,
  type ParserOptions,
  PERCPU_SIZE_MASK,
  readTrace,
  readTraceText,
  TRACE_CACHES_MAX,
  TraceError,
  type TraceProgram,
} from '#src/lab/trace/index.js';

const fixture = (name: string): string => fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
const shipped = fileURLToPath(new URL('../../bench/traces/git.ftrace.txt.gz', import.meta.url));
const kindNames = Object.fromEntries(Object.entries(EventKind).map(([name, kind]) => [kind, name]));

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'trace-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function written(name: string, content: string | Uint8Array): string {
  const file = join(folder, name);
  writeFileSync(file, content);
  return file;
}

const prefix = (cpu: number): string => `  sh-7  [${String(cpu).padStart(3, '0')}] ..... 1.000001: `;
const ptrText = (ptr: number): string => ptr.toString(16).padStart(16, '0');
const cacheAlloc = (cpu: number, ptr: number, name = 'dentry', size = 192): string =>
  `${prefix(cpu)}kmem_cache_alloc: call_site=f ptr=${ptrText(ptr)} name=${name} bytes_req=${size} bytes_alloc=${size}\n`;
const kmalloc = (cpu: number, ptr: number, size = 64): string =>
  `${prefix(cpu)}kmalloc: call_site=f ptr=${ptrText(ptr)} bytes_req=${size} bytes_alloc=${size} gfp_flags=0\n`;
const cacheFree = (cpu: number, ptr: number): string =>
  `${prefix(cpu)}kmem_cache_free: call_site=f ptr=${ptrText(ptr)}\n`;
const kfree = (cpu: number, ptr: number): string => `${prefix(cpu)}kfree: call_site=f ptr=${ptrText(ptr)}\n`;

/** A program in words: `alloc dentry 0`, `kfree 3 cross`. */
function listing(program: TraceProgram, cpu: number): string[] {
  const ops = program.ops[cpu]!;
  return Array.from({ length: ops.length / OP_WORDS }, (_, i) => {
    const op = ops[i * OP_WORDS]!;
    const arg = op >>> OP_ARG_SHIFT;
    const kind = (op & OP_FREE) === 0 ? 'alloc' : 'free';
    const what = (op & OP_KMALLOC) === 0 ? program.caches[arg]!.name : arg;
    return `${kind} ${what} ${ops[i * OP_WORDS + 1]}${(op & OP_CROSS) === 0 ? '' : ' cross'}`;
  });
}

async function eventsOf(file: string): Promise<{ events: string[]; counts: object }> {
  const events: string[] = [];
  const counts = await readTrace(file, (e) => {
    const ptr = (e.ptrHigh >>> 0).toString(16) + (e.ptrLow >>> 0).toString(16).padStart(8, '0');
    const size = e.bytesAlloc > 0 ? ` ${e.bytesReq}/${e.bytesAlloc}` : '';
    events.push(`${kindNames[e.kind]} cpu${e.cpu} ${ptr}${e.name === '' ? '' : ` ${e.name}`}${size}`);
  });
  return { events, counts };
}

describe('reading', () => {
  it.each([
    ['ftrace.txt', { lines: 15, lostEvents: 12, foreignLines: 0 }],
    ['trace-cmd.txt', { lines: 9, lostEvents: 12, foreignLines: 1 }],
    ['perf-script.txt', { lines: 7, lostEvents: 0, foreignLines: 0 }],
  ])('finds the same events in %s', async (name, counts) => {
    const found = await eventsOf(fixture(name));
    expect(found.events).toEqual([
      'cacheAlloc cpu1 0871214c7 task_struct 5888/5888',
      'kmalloc cpu0 0bd7067d2 11/16',
      'percpuAlloc cpu3 00362198c',
      'kfree cpu1 0bd7067d2',
      'cacheFree cpu2 0871214c7',
      'percpuFree cpu2 00362198c',
    ]);
    expect(found.counts).toEqual({ ...counts, events: 6, otherEvents: 1 });
  });

  it('recognises gzip by its bytes, and lines across chunks', async () => {
    const text = Array.from({ length: 9000 }, (_, i) => cacheAlloc(i % 3, i + 1)).join('');
    expect(text.length).toBeGreaterThan(3 * (256 << 10));
    for (const content of [
      text,
      gzipSync(text),
      Buffer.concat([gzipSync(text.slice(0, 1000)), gzipSync(text.slice(1000))]),
    ]) {
      let sum = 0;
      const counts = await readTrace(written('any.name', content), (event) => {
        sum += event.ptrLow;
      });
      expect(counts).toMatchObject({ lines: 9000, events: 9000, foreignLines: 0 });
      expect(sum).toBe((9000 * 9001) / 2);
    }
  });

  it('accepts CRLF, a last line without newline, 64-bit pointers and either spelling of a loss', () => {
    const lines = `CPU 1 [LOST 3 EVENTS]\r\nCPU:0 [LOST EVENTS]\nCPU:0 [EVENTS DROPPED]\n${kfree(65, 9).trimEnd()}\r\n`;
    const text = `${lines}${prefix(2)}kfree: call_site=f ptr=0xffff888112345678`;
    const seen: string[] = [];
    const counts = readTraceText(text, (e) => seen.push(`${e.cpu} ${e.ptrHigh >>> 0} ${e.ptrLow}`));
    expect(seen).toEqual(['65 0 9', `2 ${0xffff8881} ${0x12345678}`]);
    expect(counts).toMatchObject({ lostEvents: 5, events: 2, foreignLines: 0 });
  });

  it('finds the cpu column again when it moves, and in a comm with brackets', () => {
    const at = (comm: string, cpu: number): string => `${comm}-5 [${cpu}] 1.5: kfree: call_site=f ptr=1\n`;
    const text = at('a', 1) + at('a much longer', 2) + at('x [7] y', 3) + at('b', 4) + at('0 [ext4] z', 5);
    const cpus: number[] = [];
    readTraceText(text, (event) => cpus.push(event.cpu));
    expect(cpus).toEqual([1, 2, 3, 4, 5]);
  });

  it('reads the _node and _large events of older kernels, which do not name their caches, when asked to', () => {
    const old = `${prefix(0)}kmem_cache_alloc_node: call_site=f ptr=0x1 bytes_req=30 bytes_alloc=32 gfp_flags=0 node=0\n`;
    const rest = [
      `${prefix(0)}kmalloc_node: call_site=f ptr=0x2 bytes_req=30 bytes_alloc=32\n`,
      `${prefix(0)}kmalloc_large: call_site=f ptr=0x3 bytes_req=9000 bytes_alloc=12288\n`,
    ];
    const options: CompileOptions = { cpus: 1, namelessCaches: 'bySize' };
    expect(listing(compileTraceText(old + rest.join(''), options), 0)).toEqual([
      'alloc size-32 0',
      'alloc 30 1',
      'alloc 9000 2',
    ]);
    expect(() => compileTraceText(old, { cpus: 1 })).toThrow(/:1: a known event that has no name=/);
  });

  it('counts call chains and other text around events as foreign lines', () => {
    const counts = readTraceText(`${kfree(0, 1)}        ffffffff81 kfree+0x1 ([kernel])\n\n  \t\n`, () => {});
    expect(counts).toMatchObject({ events: 1, foreignLines: 1, otherEvents: 0, lines: 4 });
  });
});

describe('errors', () => {
  const good = cacheAlloc(0, 1);
  const line2 = (line: string, options?: ParserOptions): TraceError => {
    try {
      readTraceText(good + line, () => {}, options, 'x.txt');
    } catch (error) {
      return error as TraceError;
    }
    throw new Error(`no error for ${line}`);
  };

  it.each([
    ['kfree: call_site=f', 'has no ptr='],
    ['kfree: call_site=f ptr=', 'ptr='],
    ['kfree: call_site=f ptr=(____ptrval____)', 'ptr=(____ptrval____)'],
    ['kfree: call_site=f ptr=12345678123456781', '64 bits'],
    ['percpu_free_percpu: off=1', 'has no ptr='],
    ['percpu_alloc_percpu: reserved=0 align=8 ptr=1', 'has no size='],
    ['kmalloc: call_site=f ptr=1 bytes_req=8 gfp_flags=0', 'has no bytes_alloc='],
    ['kmalloc: call_site=f ptr=1 bytes_req=8 bytes_alloc=0', 'bytes_alloc=0'],
    [
      'kmalloc: call_site=f ptr=1 bytes_req=8 bytes_alloc=x8',
      'bytes_alloc=x8, which is not a decimal number',
    ],
    ['kmalloc: call_site=f ptr=1 bytes_req=-8 bytes_alloc=8', 'bytes_req=-8, which is not a decimal number'],
    ['kmalloc: call_site=f ptr=1 bytes_req=8 bytes_alloc=4194305', 'more than 4194304'],
    ['kmem_cache_alloc: call_site=f ptr=1 bytes_req=8 bytes_alloc=8', 'has no name='],
    ['kmem_cache_alloc: call_site=f ptr=1 name= bytes_req=8 bytes_alloc=8', 'empty name='],
    ['kmem_cache_alloc: call_site=f pt', 'has no ptr='],
  ])('names file, line and field of: %s', (event, problem) => {
    const error = line2(`${prefix(0)}${event}\n`);
    expect(error).toBeInstanceOf(TraceError);
    expect(error).toMatchObject({ file: 'x.txt', line: 2, name: 'TraceError' });
    expect(error.message).toContain('x.txt:2: a known event that');
    expect(error.message).toContain(problem);
  });

  it.each<[string, string | Uint8Array, number, RegExp]>([
    ['prose', 'Dear reader,\nnothing here.\n', 1, /not a trace: expected lines like .* found "Dear reader,"/],
    ['headers alone', '# tracer: nop\n#\n', 2, /without any event/],
    [
      'other events alone',
      `${prefix(0)}sched_switch: x=1\n`,
      1,
      /no kmem or percpu events among the 1 events/,
    ],
    ['binary data', Buffer.from([1, 2, 10, 0, 255, 10]), 2, /binary data/],
    ['one endless line', 'x'.repeat(1 << 20), 1, /more than 65536 bytes/],
    ['nothing', '', 0, /is empty/],
    ['gzip of nothing', gzipSync(''), 0, /is empty/],
    ['gzip of prose', gzipSync('Dear reader,\n'), 1, /not a trace/],
  ])('refuses %s', async (_what, content, line, message) => {
    const file = written('bad', content);
    const error = await compileTrace(file, { cpus: 1 }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(TraceError);
    expect(error).toMatchObject({ file, line, message: expect.stringMatching(message) });
  });

  it.each([
    ['kfree: call_site=f ptr=00000000000', true],
    ['kfree: call_site=f ptr=0000000000000001', false],
    ['kmem_cache_free: call_site=f ptr=(null) name=a', false],
    ['kmem_cache_free: call_site=f', true],
    ['kmalloc: call_site=f ptr=0000000000000001 bytes_req=10 bytes_alloc=1', true],
    ['kmalloc: call_site=f ptr=0000000000000001 bytes_req=10 bytes_alloc=16 gfp_flags=GFP_KER', false],
    ['', true],
  ])('whose last line has no end, %s, is truncated: %s', async (last, isCut) => {
    const begun = last === '' ? prefix(0).slice(0, -2) : prefix(0);
    const file = written('cut', `${kmalloc(0, 1)}${begun}${last}`);
    const reading = compileTrace(file, { cpus: 1 });
    if (isCut) await expect(reading).rejects.toThrow(/:2: the last line has no end: the file is truncated/);
    else expect((await reading).summary.events).toBe(2);
  });

  const manyCaches = (n: number): string =>
    Array.from({ length: n }, (_, i) => cacheAlloc(0, i + 1, `cache-${i}`)).join('');

  it('names the line of the first cache that no arena has room for', () => {
    const text = `${kfree(0, 7)}${manyCaches(TRACE_CACHES_MAX)}${cacheAlloc(0, 1, 'cache-3')}`;
    expect(compileTraceText(text, { cpus: 1 }).caches).toHaveLength(239);
    const compile = () => compileTraceText(`${text}${cacheAlloc(0, 1, 'vma')}`, { cpus: 1 }, 'x.txt');
    expect(compile).toThrow(TraceError);
    expect(compile).toThrow(
      /^x\.txt:242: "vma" is cache number 240 of the trace; it may have at most 239: an arena has 254, 15 of them its own$/,
    );
  });

  it.each([
    ['x'.repeat(64), `the cache name "${'x'.repeat(64)}" has 64 bytes; a cache's name may have at most 63`],
    ['\u00e9'.repeat(32), /has 64 bytes; a cache's name may have at most 63$/],
    ['a\u00a0b', /:2: the cache name "a\u00a0b" has white space; a cache's name must be free of it$/],
  ])('names the line of a name that no cache may have: %s', async (name, message) => {
    const lines = `${kmalloc(0, 1)}${cacheAlloc(0, 2, name)}${kfree(0, 1)}`;
    const reading = compileTrace(written('names', Buffer.from(lines, 'latin1')), { cpus: 1 });
    await expect(reading).rejects.toThrow(message);
    await expect(reading).rejects.toMatchObject({ name: 'TraceError', line: 2 });
  });

  it('replays as many caches as there may be, with names as long as they may be', async () => {
    const name = (i: number): string =>
      `${i < 2 ? 'kmalloc-' : ''}${String(i).padStart(i < 2 ? 55 : 63, 'n')}`;
    const lines = Array.from({ length: TRACE_CACHES_MAX }, (_, i) => cacheAlloc(0, i + 1, name(i), 64));
    const report = await replayTrace(written('most', lines.join('')), { rounds: 1 });
    expect(report.problems).toEqual([]);
    expect(report.liveAtEnd).toBe(239);
    const names = report.caches.map((cache) => cache.name);
    expect(names).toContain('trace-#1');
    expect(names).toContain(name(238));
  });

  it('tells in the report of lines that are not replayed', async () => {
    const lines = `${cacheAlloc(0, 1)} => vfs_read\n => do_syscall_64\n${prefix(0)}sched_switch: x=1\n${kfree(0, 1)}`;
    const report = await replayTrace(written('chains', lines), { rounds: 1 });
    expect(report).toMatchObject({ foreignLines: 2, otherEvents: 1 });
    expect(replayText(report)).toMatch(/^ +2 lines that are no events, such as call chains \(left out\)$/m);
    expect(replayText(report)).toMatch(/^ +1 events of other kinds \(left out\)$/m);
    const rest = replayText({ ...report, foreignLines: 0, otherEvents: 0 });
    expect(rest).not.toMatch(/call chains|other kinds/);
  });

  it('says how many caches the traces of a study may have together', async () => {
    const traces = [0, 1].map((i) => written(`half-${i}`, manyCaches(96)));
    await expect(runStudy({ traces, workloads: /^none$/, threads: [1] })).rejects.toThrow(
      /^the traces have 192 caches together; beside the others that it needs an arena has room for 190$/,
    );
    const longest = compileTraceText(cacheAlloc(0, 1, 'x'.repeat(63)), { cpus: 1 });
    expect(withOwnCaches(longest, 3).caches[0]!.name).toBe('t3:#0');
  });

  it('refuses truncated and damaged gzip, telling how far it came', async () => {
    const whole = readFileSync(shipped);
    const cut = await compileTrace(written('cut.gz', whole.subarray(0, whole.length >> 1)), {
      cpus: 1,
    }).catch((e) => e);
    expect(cut).toBeInstanceOf(TraceError);
    expect(cut.message).toMatch(/:\d+: the gzip data ends early: the file is truncated/);
    expect(cut.line).toBeGreaterThan(1000);
    const bad = Buffer.from(whole);
    bad.fill(0x55, 200_000, 200_100);
    await expect(compileTrace(written('bad.gz', bad), { cpus: 1 })).rejects.toBeInstanceOf(TraceError);
    const checksum = Buffer.from(whole);
    checksum[whole.length - 8]! ^= 1;
    await expect(compileTrace(written('checksum.gz', checksum), { cpus: 1 })).rejects.toThrow(
      /the gzip data is damaged: incorrect data check/,
    );
  });

  it('refuses a missing file, a folder, and a wrong number of CPUs', async () => {
    const missing = join(folder, 'absent');
    await expect(compileTrace(missing, { cpus: 1 })).rejects.toMatchObject({
      file: missing,
      line: 0,
      message: /no such file/,
    });
    await expect(compileTrace(folder, { cpus: 1 })).rejects.toThrow(/is a directory/);
    await expect(compileTrace(shipped, { cpus: 0 })).rejects.toThrow(RangeError);
  });
});

describe('compiling', () => {
  it('frees implicitly, on the CPU of the new allocation, a pointer that is allocated again', () => {
    const program = compileTraceText(cacheAlloc(0, 1) + kmalloc(0, 1) + cacheAlloc(1, 1), { cpus: 2 });
    expect(listing(program, 0)).toEqual(['alloc dentry 0', 'free dentry 0', 'alloc 64 64 cross']);
    expect(listing(program, 1)).toEqual(['free 64 64 cross', 'alloc dentry 32']);
    expect(program.summary).toMatchObject({
      allocs: 3,
      frees: 0,
      implicitFrees: 2,
      implicitCrossFrees: 1,
      liveAtEnd: 1,
    });
    expect(program.summary.crossCpuFrees).toBe(0);
  });

  it('leaves out frees of unknown objects and areas, and NULL, and counts them', () => {
    const text = `${kfree(0, 5)}${kfree(0, 0)}${prefix(0)}kfree: call_site=f ptr=          (null)\n`;
    const percpu = `${prefix(1)}percpu_free_percpu: base_addr=0 off=1 ptr=7\n`;
    const failed = `${prefix(0)}kmem_cache_alloc: call_site=f ptr=(null) name=a bytes_req=0 bytes_alloc=0\n`;
    const program = compileTraceText(text + percpu + failed, { cpus: 1 });
    expect(listing(program, 0)).toEqual([]);
    expect(program.summary).toMatchObject({
      events: 5,
      unknownFrees: 1,
      nullEvents: 3,
      percpuEvents: 1,
      percpuLeftOut: 1,
      kernelCpus: 2,
    });
    expect(createSlotTable(program).length).toBe(0);
  });

  it('keeps areas of percpu memory apart from objects with the same pointer', () => {
    const area = (cpu: number, ptr: number, size: number, align: number, atomic: number): string =>
      `${prefix(cpu)}percpu_alloc_percpu: call_site=f reserved=0 is_atomic=${atomic} size=${size} align=${align} base_addr=0 off=1 ptr=${ptrText(ptr)} bytes_alloc=64 gfp_flags=0\n`;
    const gone = (cpu: number, ptr: number): string =>
      `${prefix(cpu)}percpu_free_percpu: base_addr=0 off=1 ptr=${ptrText(ptr)}\n`;
    const text =
      area(0, 1, 16, 8, 0) +
      cacheAlloc(0, 1) +
      area(0, 2, 4, 64, 1) +
      gone(1, 1) +
      area(0, 2, 100, 4, 0) +
      area(0, 3, 40000, 4, 0);
    const { ops, summary, live } = compileTraceText(text, { cpus: 2 });
    const areas = [...ops[0]!].filter((op, i) => i % OP_WORDS === 0 && op < 0 && (op & OP_FREE) === 0);
    expect(areas.map((op) => [(op >>> OP_ARG_SHIFT) & PERCPU_SIZE_MASK, (op & OP_CROSS) !== 0])).toEqual([
      [16, true],
      [4, false],
      [100, false],
    ]);
    expect(summary).toMatchObject({
      allocs: 1,
      liveAtEnd: 1,
      livePeak: 1,
      percpuEvents: 5,
      percpuAllocs: 3,
      percpuBytes: 120,
      percpuAtomic: 1,
      percpuFrees: 1,
      percpuImplicitFrees: 1,
      percpuLiveAtEnd: 1,
      percpuLeftOut: 1,
    });
    expect(live.length / OP_WORDS).toBe(2);
  });

  it('frees by what the object was allocated with', () => {
    const program = compileTraceText(cacheAlloc(0, 1) + kmalloc(0, 2, 100) + kfree(0, 1) + cacheFree(0, 2), {
      cpus: 1,
    });
    expect(listing(program, 0)).toEqual(['alloc dentry 0', 'alloc 100 1', 'free dentry 0', 'free 100 1']);
  });

  it('gives slots of one CPU again, and one to each object that crosses', () => {
    const text =
      cacheAlloc(0, 1) +
      cacheFree(1, 1) +
      cacheAlloc(0, 2) +
      cacheFree(0, 2) +
      cacheAlloc(2, 3) +
      cacheFree(1, 3);
    const two = compileTraceText(text, { cpus: 2 });
    expect(listing(two, 0)).toEqual([
      'alloc dentry 32 cross',
      'alloc dentry 0',
      'free dentry 0',
      'alloc dentry 33 cross',
    ]);
    expect(listing(two, 1)).toEqual(['free dentry 32 cross', 'free dentry 33 cross']);
    expect(two.summary).toMatchObject({
      crossCpuFrees: 2,
      crossKernelCpuFrees: 2,
      liveAtEnd: 0,
      livePeak: 1,
    });
    const one = compileTraceText(text, { cpus: 1 });
    expect(one.slots).toBe(32);
    expect(one.summary).toMatchObject({ crossCpuFrees: 0, crossKernelCpuFrees: 2 });
    // Kernel CPU 2 is target 0 of two: its object crosses to CPU 1. Of three, each is its own.
    expect(compileTraceText(text, { cpus: 3 }).ops.map((ops) => ops.length / OP_WORDS)).toEqual([3, 2, 1]);
  });

  it('names caches, with the largest object seen, sheaves as the kernel, and no clash with kmalloc', () => {
    const text =
      cacheAlloc(0, 1, 'vm_area_struct', 176) +
      cacheAlloc(0, 2, 'vm_area_struct') +
      cacheAlloc(0, 3, 'kmalloc-64', 64);
    expect(compileTraceText(text, { cpus: 1 }).caches).toEqual([
      { name: 'vm_area_struct', traceName: 'vm_area_struct', size: 192, sheafCapacity: 32 },
      { name: 'trace-kmalloc-64', traceName: 'kmalloc-64', size: 64 },
    ]);
  });

  it('compiles the trace that ships', async () => {
    const { summary, caches } = await compileTrace(shipped, { cpus: 2 });
    expect(summary).toMatchObject({
      lines: 45317,
      events: 45305,
      allocs: 24663,
      frees: 20440,
      implicitFrees: 2097,
      unknownFrees: 0,
      crossCpuFrees: 1652,
      implicitCrossFrees: 979,
      percpuEvents: 202,
      percpuAllocs: 101,
      percpuFrees: 101,
      percpuBytes: 1604,
      percpuAtomic: 0,
      percpuLiveAtEnd: 0,
      foreignLines: 0,
      liveAtEnd: 2126,
      livePeak: 3089,
    });
    expect(summary.allocs).toBe(summary.frees + summary.implicitFrees + summary.liveAtEnd);
    expect(caches.length).toBe(33);
  });
});
