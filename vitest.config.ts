import { defineConfig } from 'vitest/config';

// Tests run the built files in dist/: a worker thread cannot load TypeScript, and a transformed
// module would be another program than the one that ships (every imported name a property read).
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    server: { deps: { external: [/\/dist\//] } },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Many tests wait, for threads or for each other: two files at a time on two cores.
    maxWorkers: 2,
  },
});
