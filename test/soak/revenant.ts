/** A process that is killed, and comes back. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Running } from "../support/brewctl.ts";

export interface Revenant extends AsyncDisposable {
  /** The one that runs, or ran last. */
  readonly running: Running;
  /** How often it was killed. */
  readonly kills: number;
  /** Kills it, unless somebody else has just done so, and resolves when it is there again. */
  kill(options?: { readonly downMs?: number; readonly signal?: NodeJS.Signals }): Promise<void>;
}

/** `start` resolves when the process is ready to be used. */
export async function revenant(start: () => Promise<Running>): Promise<Revenant> {
  let running = await start();
  let kills = 0;
  let restarting: Promise<void> | undefined;
  return {
    get running() {
      return running;
    },
    get kills() {
      return kills;
    },
    kill({ downMs = 0, signal = "SIGKILL" } = {}) {
      restarting ??= (async () => {
        running.child.kill(signal);
        kills += 1;
        await running.ended;
        await sleep(downMs);
        running = await start();
      })().finally(() => {
        restarting = undefined;
      });
      return restarting;
    },
    async [Symbol.asyncDispose]() {
      await restarting?.catch(() => {});
      await running[Symbol.asyncDispose]();
    },
  };
}
