/** Power cuts at any moment, replayed from the system calls of a real run; `make soak` has more of them. */

import { expect, test } from "vitest";
import { cutKinds, powerCuts } from "../soak/power-cuts.ts";

const seed = Number(process.env["BREWCTL_CUT_SEED"] ?? Date.now() % 1_000_000);

test.each(cutKinds)(
  `BREWCTL_CUT_SEED=${seed}: after a power cut a %s opens and has what was said to be recorded`,
  { timeout: 120_000 },
  async (kind) => {
    const { promised, ...result } = await powerCuts({ kind, seed, runs: 70, batches: 40 });
    expect(result).toMatchObject({ cuts: 70, lost: 0, broken: 0, example: undefined });
    expect(promised).toBeGreaterThan(0);
  },
);

test("a disk that ignores syncs loses events, so the cuts can show a loss", {
  timeout: 120_000,
}, async () => {
  const options = { kind: "ledger", seed, runs: 30, batches: 40, ignoresSyncs: true } as const;
  const { lost } = await powerCuts(options);
  expect(lost).toBeGreaterThan(0);
});
