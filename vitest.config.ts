import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Files that run for as long as they are told to come first: what they leave of the processors is for the others. */
const TIMED = /\/test\/stress\//;

class TimedFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isTimed = ({ moduleId }: TestSpecification): boolean => TIMED.test(moduleId);
    return [...sorted.filter(isTimed), ...sorted.filter((file) => !isTimed(file))];
  }
}

/** What they declare is part of the ABI from then on, for every arena of their process. setup.ts tells who else does. */
const ALONE = ['test/struct/struct.test.ts', 'test/static/static.test.ts', 'test/view/views.test.ts'];

// Tests run the built files in dist/: a worker thread cannot load TypeScript, and a transformed
// module would be another program than the one that ships (every imported name a property read).
export default defineConfig({
  test: {
    pool: 'forks',
    server: { deps: { external: [/\/dist\//] } },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Many tests wait, for threads or for each other: two files at a time on two cores.
    maxWorkers: 2,
    sequence: { sequencer: TimedFirst },
    setupFiles: ['test/setup.ts'],
    projects: [
      {
        extends: true,
        // Two processes run all these files: what one of them has compiled is compiled for the next.
        test: {
          name: 'together',
          include: ['test/**/*.test.ts'],
          exclude: ALONE,
          isolate: false,
          env: { TOGETHER: '1' },
        },
      },
      { extends: true, test: { name: 'alone', include: ALONE, isolate: true } },
    ],
  },
});
