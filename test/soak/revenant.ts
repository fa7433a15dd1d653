/** A process that is killed, and comes back. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Running } from "../support/brewctl.ts";

export interface Revenant extends AsyncDisposable {
  /** The one that runs, or ran last. */
  readonly running: Running;
  /** How often it was killed. */
  readonly kills: number;
  /** Rejects when it has ended by itself, with what it said, or does not come back. */
  readonly failed: Promise<never>;
  /** Kills it, once it is there if it is not, and resolves when it is there again. */
  kill(options?: { readonly downMs?: number; readonly signal?: NodeJS.Signals }): Promise<void>;
  /** Ends it for good; resolves when it has ended. */
  end(signal: NodeJS.Signals): ReturnType<typeof endOf>;
}

const endOf = ({ ended }: Running) => ended;

/** `start` resolves when the process is ready to be used. */
export async function revenant(start: () => Promise<Running>): Promise<Revenant> {
  const { promise: failed, reject } = Promise.withResolvers<never>();
  // Whoever waits for it hears of it.
  failed.catch(() => {});
  let running: Running;
  let kills = 0;
  let isMeant = false;
  /** The last of the kills that were asked for, which follow each other. */
  let restarting = Promise.resolve();
  const begin = async () => {
    running = await start();
    isMeant = false;
    running.ended.then(({ code, signal, stderr }) => {
      if (!isMeant) {
        reject(new Error(`ended by itself, with ${code ?? signal}: ${stderr.slice(-2_000)}`));
      }
    });
    return running;
  };
  running = await begin();
  return {
    get running() {
      return running;
    },
    get kills() {
      return kills;
    },
    failed,
    kill({ downMs = 0, signal = "SIGKILL" } = {}) {
      restarting = restarting.then(async () => {
        isMeant = true;
        kills += 1;
        running.child.kill(signal);
        await running.ended;
        await sleep(downMs);
        await begin();
      });
      restarting.catch(reject);
      return restarting;
    },
    end(signal) {
      isMeant = true;
      running.child.kill(signal);
      return running.ended;
    },
    async [Symbol.asyncDispose]() {
      await restarting.catch(() => {});
      isMeant = true;
      await running[Symbol.asyncDispose]();
    },
  };
}
