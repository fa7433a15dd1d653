/** A log that a test reads, and waits for. */

import { createLogger, type Logger } from "../../src/log.ts";

export interface TestLog extends Logger {
  readonly lines: readonly string[];
  /** Resolves with the first line, past or future, that contains `text`. */
  line(text: string): Promise<string>;
}

export function testLog(): TestLog {
  const lines: string[] = [];
  const waiting = new Set<() => void>();
  const logger = createLogger({
    format: "text",
    now: () => 0,
    write(line) {
      lines.push(line);
      for (const wake of waiting) {
        wake();
      }
    },
  });
  return {
    ...logger,
    lines,
    line: (text) =>
      new Promise((resolve) => {
        const look = () => {
          const found = lines.find((line) => line.includes(text));
          if (found !== undefined) {
            waiting.delete(look);
            resolve(found);
          }
        };
        waiting.add(look);
        look();
      }),
  };
}
