/** One line on the standard error that says what runs now and how long it will take still. */

export interface Progress {
  /** `share` of the whole that is done, from 0 to 1. */
  step(what: string, share: number): void;
  clear(): void;
}

export const noProgress: Progress = { step: () => {}, clear: () => {} };

/** `75` is "1m15s". */
function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const minutes = Math.floor(whole / 60);
  return minutes === 0 ? `${whole}s` : `${minutes}m${String(whole % 60).padStart(2, '0')}s`;
}

/** What is needed of process.stderr. */
interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Writes where a terminal shows it; in a file these lines would be noise. `totalMs` is what the whole will take. */
export function progressLine(out: Terminal, totalMs: number): Progress {
  if (!out.isTTY || process.env.CI !== undefined) return noProgress;
  return {
    step(what, share) {
      const left = formatSeconds((totalMs * (1 - share)) / 1000);
      const line = `${String(Math.floor(share * 100)).padStart(3)} %  ${left} left  ${what}`;
      out.write(`\r\x1b[K${line.slice(0, (out.columns || 100) - 1)}`);
    },
    clear: () => {
      out.write('\r\x1b[K');
    },
  };
}
