/**
 * Flags of every worker thread that runs our code. Source maps for stack traces; and import() instead of require() for
 * the entry, since piscina tries require() first, and a thread that is terminated while Node 20 requires an ES module
 * takes the whole process with it.
 */
export const WORKER_EXEC_ARGV: readonly string[] = [
  '--enable-source-maps',
  '--no-experimental-require-module',
];
