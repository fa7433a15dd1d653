/** Runs `exec` where no process can be made, since all descriptors are taken; prints what it says. */

import { openSync } from "node:fs";
import { systemClock } from "../../src/clock.ts";
import { exec } from "../../src/commands/store-sync/exec.ts";

const apply = exec({
  ...{ program: "true", timeoutMs: 5_000, clock: systemClock, env: {} },
  onOutput: () => {},
});
const command = {
  ...{ commandId: "cmd-1", type: "PriceUpdate", payloadJson: "{}", sequence: 1, issuedAt: 1 },
  ...{
    number: 1,
    state: "received" as const,
    attempts: 0,
    notBefore: 0,
    reason: "",
    ledgerId: "",
    receivedAt: 0,
  },
};
try {
  for (;;) {
    openSync("/dev/null", "r");
  }
} catch {
  // All are taken.
}
const { signal } = new AbortController();
await apply(command, { signal }).catch((error) => process.stdout.write(`${error.message}\n`));
