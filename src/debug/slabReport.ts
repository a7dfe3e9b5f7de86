/**
 * Reports about debug caches, in the kernel's form as text, and as data. Each is one error in the sense of the kernel's
 * own tests: what is wrong is one, and each repair is another.
 */
import type { TrackInfo } from '../cache/index.js';
import type { DamagedBytes } from '../slab/index.js';
import { hexAddress } from '../struct/index.js';

/** The bytes of an object and around it, when the report was made. */
export interface ReportedObject {
  address: number;
  /** From the start of its slab. */
  offset: number;
  /** The free pointer, an address or 0. */
  fp: number;
  allocated?: TrackInfo;
  freed?: TrackInfo;
  /** By name as the kernel prints them: `Redzone`, `Bytes b4`, `Object`, `Padding`. */
  dumps: Array<{ name: string; address: number; bytes: Uint8Array }>;
}

/** A slab that a report is about. Kernel: `print_slab_info`. */
export interface ReportedSlab {
  address: number;
  objects: number;
  used: number;
  /** The first free object's address, or 0. */
  fp: number;
  flags: number;
}

/** What was found wrong in a debug cache or with a guarded object, as `arena.onSlabReport` gets it. */
export interface SlabReport {
  /** `trace` is no error: an object of a cache with SLAB_TRACE was allocated or freed. */
  kind: 'bug' | 'fix' | 'trace';
  /** Name of the cache. */
  cache: string;
  /** `Right Redzone overwritten`, `Object already free`, `Object count adjusted`. */
  what: string;
  /** All of it, as the kernel would print it. */
  text: string;
  /** The slab, the object and the bytes that it is about, where it is about one. */
  slab?: ReportedSlab;
  object?: ReportedObject;
  damage?: DamagedBytes;
  /** Who found it: CPU, thread slot, and the stack of the call in which it was found. */
  cpu: number;
  thread: number;
  stack: string[];
}

const BAR = '='.repeat(77);
const LINE = '-'.repeat(77);
const BYTES_PER_ROW = 16;

/** Rows of a dump, each with its address, its bytes, and they as characters. */
export function hexDump(name: string, address: number, bytes: Uint8Array): string[] {
  const rows: string[] = [];
  for (let at = 0; at < bytes.length; at += BYTES_PER_ROW) {
    const row = [...bytes.subarray(at, at + BYTES_PER_ROW)];
    const codes = row.map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const text = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    const where = (address + at).toString(16).padStart(8, '0');
    rows.push(`${name.padEnd(9)}${where}: ${codes.padEnd(BYTES_PER_ROW * 3 - 1)}  ${text}`);
  }
  return rows;
}

function trackLines(what: string, symbol: string, track: TrackInfo | undefined): string[] {
  if (track === undefined) return [];
  const age = Math.round(track.age);
  const head = `${what} in ${symbol} age=${age} cpu=${track.cpu} pid=${track.tid}`;
  return [head, ...track.stack.map((frame) => ` ${frame}`)];
}

function objectLines({ address, offset, fp, dumps }: ReportedObject): string[] {
  const rows = dumps.flatMap(({ name, address: at, bytes }) => hexDump(name, at, bytes));
  return [`Object ${hexAddress(address)} @offset=${offset} fp=${hexAddress(fp)}`, '', ...rows];
}

function slabLine({ address, objects, used, fp, flags }: ReportedSlab): string {
  const counts = `objects=${objects} used=${used} fp=${hexAddress(fp)}`;
  return `Slab ${hexAddress(address)} ${counts} flags=0x${(flags >>> 0).toString(16)}`;
}

function damageLine({ area, from, to, expected, found }: DamagedBytes, start: number): string {
  const bytes = `First byte 0x${found.toString(16)} instead of 0x${expected.toString(16)}`;
  return `[${area} overwritten] ${hexAddress(from)}-${hexAddress(to - 1)} @offset=${from - start}. ${bytes}`;
}

/** The text of a bug. `symbolOf` names the function of a stack. */
export function bugText(
  report: Omit<SlabReport, 'text'>,
  symbolOf: (stack: readonly string[]) => string,
): string {
  const { cache, what, slab, object, damage, cpu, thread, stack } = report;
  const symbol = (track: TrackInfo | undefined): string => symbolOf(track?.stack ?? []);
  const lines = [BAR, `BUG ${cache} (Not tainted): ${what}`, LINE, ''];
  const start = slab?.address ?? (object === undefined ? 0 : object.address - object.offset);
  if (damage !== undefined) lines.push(damageLine(damage, start));
  lines.push(...trackLines('Allocated', symbol(object?.allocated), object?.allocated));
  lines.push(...trackLines('Freed', symbol(object?.freed), object?.freed));
  if (slab !== undefined) lines.push(slabLine(slab));
  if (object !== undefined) lines.push(...objectLines(object));
  lines.push(`CPU: ${cpu} thread: ${thread}`);
  if (stack.length > 0) lines.push('Call Trace:', ...stack.map((frame) => ` ${frame}`));
  return lines.join('\n');
}
