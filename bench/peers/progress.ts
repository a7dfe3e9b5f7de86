/** One line on the standard error that says what is being measured and how long it will take still. */
import type { Progress } from './runner.js';

export interface ProgressLine extends Progress {
  clear(): void;
}

/** `75` is "1m15s". */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60);
  return minutes === 0 ? `${whole}s` : `${minutes}m${String(whole % 60).padStart(2, '0')}s`;
}

/** Silent where nobody watches: in a file, these lines would be noise. */
export function progressLine(out: NodeJS.WriteStream): ProgressLine {
  if (!out.isTTY) return { step: () => {}, clear: () => {} };
  const start = Date.now();
  return {
    step(what, share) {
      const spent = (Date.now() - start) / 1000;
      const left = share > 0.02 ? `, ${formatSeconds((spent * (1 - share)) / share)} left` : '';
      const line = `${String(Math.floor(share * 100)).padStart(3)} % ${what}${left}`;
      out.write(`\r\x1b[K${line.slice(0, (out.columns || 100) - 1)}`);
    },
    clear() {
      out.write('\r\x1b[K');
    },
  };
}
