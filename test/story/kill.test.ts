/**
 * SIGKILL at any moment, of the store's programs, of the cloud or of both: what a store has said
 * that it recorded is in the ledger in the end, once, and nothing else is but what was offered.
 * `make soak` has hundreds of such runs.
 *
 * The moments are seeded: a run that fails names its seed, and BREWCTL_KILL_SEED has it again.
 */

import { describe, expect, test } from "vitest";
import { campaigns, type Victim, type Way } from "../soak/campaign.ts";

const seed = Number(process.env["BREWCTL_KILL_SEED"] ?? (Date.now() % 1_000_000) * 1_000);

describe(`BREWCTL_KILL_SEED=${seed}`, () => {
  test.each<[Way, Victim, number]>([
    ["commands", "store", 6],
    ["commands", "cloud", 4],
    ["commands", "both", 4],
    ["daemon", "store", 3],
    ["daemon", "cloud", 2],
    ["daemon", "both", 3],
  ])(
    "%s, %s killed in each of %i runs: nothing recorded is lost, doubled or changed",
    async (way, victim, runs) => {
      const results = await campaigns(
        Array.from({ length: runs }, (_, i) => [seed + i, { way, victim }]),
      );
      const kills = results.reduce((sum, result) => sum + result.kills, 0);
      // Some have ended before.
      expect(kills).toBeGreaterThan(runs / 2);
    },
    120_000,
  );
});
