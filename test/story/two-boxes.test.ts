/** A disk image was cloned: two boxes run one store's bridge, and everyone who looks is told. */

import { cpSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test } from "vitest";
import { brewctl } from "../support/brewctl.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { shop } from "../support/shop.ts";
import { never } from "../support/start-server.ts";

test("two boxes of one store are told of each other, and so is head office; a restart is not a second box", async () => {
  await using cloud = await serveCloud();
  const addr = ["--addr", `127.0.0.1:${cloud.port}`];
  const check = () =>
    brewctl(["head-office", "stores", "--check"], {
      env: { BREWCTL_ADDR: `127.0.0.1:${cloud.port}` },
    });
  const issue = (commandId: string) =>
    cloud.office.issueCommand(
      { storeIds: ["store-01"], commandId, type: "PriceUpdate", payloadJson: "{}" },
      { signal: never },
    );
  using original = shop();
  using clone = shop();
  {
    await using bridge = await original.run(addr);
    await bridge.output(/^live/m);
    expect((await original.record(bridge.bridge, ["first"])).code).toBe(0);
    expect((await bridge.stop("SIGKILL")).signal).toBe("SIGKILL");
  }
  mkdirSync(dirname(clone.buffer), { recursive: true });
  cpSync(dirname(original.buffer), dirname(clone.buffer), { recursive: true });
  await using one = await original.run(addr);
  const [, boxOne] = await one.output(/ box=([0-9a-f]{8}) /);
  await one.output(/^live/m);
  expect((await check()).code).toBe(0);

  await using two = await clone.run(addr);
  const [, boxTwo] = await two.output(/ box=([0-9a-f]{8}) /);
  await two.output(/^live/m);
  // They take turns: the older box is heard twice after the newer one.
  for (const [at, box, id] of [
    [original, one, "a"],
    [clone, two, "b"],
    [original, one, "c"],
    [clone, two, "d"],
    [original, one, "e"],
  ] as const) {
    expect((await at.record(box.bridge, [id])).code).toBe(0);
  }
  // A command makes both report, and the answer to a report tells of the other box.
  await issue("price-1");
  const warns = (box: string | undefined) =>
    new RegExp(`^WARN another box speaks for this store other="${box} at 127\\.0\\.0\\.1"`, "m");
  await Promise.all([one.output(warns(boxTwo)), two.output(warns(boxOne))]);
  expect(await check()).toMatchObject({
    ...{ code: 5, stdout: expect.stringContaining("two boxes speak for this store") },
  });
  await issue("price-2");
  for (const box of [boxOne, boxTwo]) {
    await cloud.log.line(
      `command sent to one of two boxes store=store-01 command_id=price-2 box=${box} from=127.0.0.1`,
    );
  }
});
