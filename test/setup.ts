/** Runs once for each test file; many of them share a process. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, afterEach, expect } from 'vitest';
import { abiHash } from '#src/struct/index.js';
import { takeBooted } from './cache/support/arena.js';
import { endTeams, forgetCrash } from './litmus/support/team.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** V8 does not count shared buffers among what it could free: their pages stay until something else fills its heap. */
const KEPT_MAX = 512 << 20;
let kept = 0;

// A report is thrown as well, but whoever catches an error may catch this one.
afterEach(() => {
  const arenas = takeBooted();
  const watched = arenas.filter(({ geometry }) => geometry.lockdep !== 0);
  const reports = watched.flatMap((arena) => arena.lockdep().reports);
  kept = arenas.reduce((bytes, { buffer }) => bytes + buffer.byteLength, kept);
  if (kept > KEPT_MAX) {
    collectGarbage();
    kept = 0;
  }
  expect(reports, 'lockdep').toEqual([]);
});

const abi = abiHash('');

afterEach(forgetCrash);
afterAll(async () => {
  await endTeams();
  if (process.env.TOGETHER) expect(abiHash(''), 'a file that changes the ABI runs alone').toBe(abi);
});
