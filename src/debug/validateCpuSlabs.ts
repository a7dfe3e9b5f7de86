/** The slabs that CPUs have in a cache of layer 'cpu-slab': each is frozen, and one CPU's. */
import type { CacheContext, KmemCache } from '../cache/index.js';
import { CpuSlab, type PcsPtr, pcsOf } from '../cpu/index.js';
import { orderOf, Page, type PagePtr, PG_PARTIAL, pageAddress, virtToPage } from '../page/index.js';
import { freelistOf, inuseOf, isFrozen, MAX_OBJS_PER_SLAB, readFreePointer } from '../slab/index.js';
import { PAGE_SIZE } from '../struct/index.js';
import type { Findings } from './finding.js';

export function validateCpuSlabs(
  context: CacheContext,
  cache: KmemCache,
  slabs: readonly PagePtr[],
  findings: Findings,
): void {
  const { m } = context.views;
  const known = new Set<number>(slabs);
  const owners = new Map<number, string>();
  const own = (page: PagePtr, place: string): boolean => {
    const before = owners.get(page);
    if (before === undefined && known.has(page)) {
      owners.set(page, place);
      return true;
    }
    const what = before === undefined ? 'is no slab of the cache' : `is ${before}, too`;
    findings.add('I23', cache.name, `${place}: the page at word ${page} ${what}`);
    return false;
  };
  for (let cpu = 0; cpu < context.geometry.cpus; cpu++) validateCpu(context, cache, cpu, own, findings);
  for (const page of slabs) {
    const place = owners.get(page);
    const word = m[page + Page.slabWord]!;
    const where = `${cache.name}, slab 0x${pageAddress(context.geometry, page).toString(16)}`;
    findings.expect(isFrozen(word) === (place !== undefined), 'I23', where, () =>
      place === undefined ? 'is frozen, but no CPU has it' : `is ${place}, but not frozen`,
    );
    findings.expect(place === undefined || (m[page + Page.flags]! & PG_PARTIAL) === 0, 'I23', where, () => {
      return `is ${place}, and on the partial list of its node`;
    });
  }
}

type Own = (page: PagePtr, place: string) => boolean;

function validateCpu(
  context: CacheContext,
  cache: KmemCache,
  cpu: number,
  own: Own,
  findings: Findings,
): void {
  const { m } = context.views;
  const c = pcsOf(context.geometry, cpu, cache.desc.slot);
  findings.expect(m[c + CpuSlab.lock] === 0, 'I20', cache.name, () => {
    return `the slabs of CPU ${cpu} are locked by 0x${m[c + CpuSlab.lock]!.toString(16)}`;
  });
  const counted = m[c + CpuSlab.allocs]! + m[c + CpuSlab.frees]!;
  findings.expect(m[c + CpuSlab.lock] !== 0 || counted === 0, 'I2', cache.name, () => {
    return `CPU ${cpu}: ${counted} operations not yet counted`;
  });
  if (m[c + CpuSlab.slabStart] !== 0) validateCpuSlab(context, cache, cpu, c, own, findings);
  else {
    findings.expect(
      m[c + CpuSlab.freelist] === 0 && m[c + CpuSlab.slabBytes] === 0,
      'I23',
      cache.name,
      () => {
        return `CPU ${cpu} has a freelist, or bytes, of no slab`;
      },
    );
  }
  let length = 0;
  for (let page = m[c + CpuSlab.partial] as PagePtr; page !== 0; page = m[page + Page.next] as PagePtr) {
    length++;
    const place = `on the partial list of CPU ${cpu}`;
    if (!own(page, place)) break;
    findings.expect(freelistOf(m[page + Page.slabWord]!) !== 0, 'I8', cache.name, () => {
      return `the slab at word ${page} is ${place} with an empty freelist`;
    });
  }
  findings.expect(m[c + CpuSlab.nrPartial] === length, 'I5', cache.name, () => {
    return `CPU ${cpu}: ${length} partial slabs, count ${m[c + CpuSlab.nrPartial]}`;
  });
}

function validateCpuSlab(
  context: CacheContext,
  cache: KmemCache,
  cpu: number,
  c: PcsPtr,
  own: Own,
  findings: Findings,
): void {
  const { geometry, views } = context;
  const { m } = views;
  const start = m[c + CpuSlab.slabStart]!;
  const page = virtToPage(geometry, start);
  if (!own(page, `the cpu slab of CPU ${cpu}`)) return;
  const bytes = PAGE_SIZE << orderOf(m[page + Page.flags]!);
  findings.expect(
    pageAddress(geometry, page) === start && m[c + CpuSlab.slabBytes] === bytes,
    'I23',
    cache.name,
    () => {
      return `CPU ${cpu} takes its slab for ${m[c + CpuSlab.slabBytes]} bytes at 0x${start.toString(16)}`;
    },
  );
  let free = 0;
  for (let p = m[c + CpuSlab.freelist]!; p !== 0; p = readFreePointer(m, cache.desc, p)) {
    const at = p - start;
    if (at < 0 || at >= bytes || at % cache.size !== 0 || ++free > MAX_OBJS_PER_SLAB) {
      findings.add('I9', cache.name, `the freelist of CPU ${cpu} is a cycle or leads out of its slab`);
      return;
    }
  }
  const inuse = inuseOf(m[page + Page.slabWord]!);
  findings.expect(free <= inuse, 'I9', cache.name, () => {
    return `CPU ${cpu} has ${free} free objects of its slab, of which ${inuse} are in use`;
  });
}
