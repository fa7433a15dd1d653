/**
 * Two shops for a day, all of it real programs: tills on the network and on the same machine, a cloud
 * that dies and comes back, a bridge that is killed while a till talks to it, a command for both.
 */

import { existsSync, readFileSync } from "node:fs";
import { expect, test, vi } from "vitest";
import { DigestSide } from "../../src/gen/sync/v1/head_office_pb.ts";
import { start } from "../support/brewctl.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect } from "../support/serve-handlers.ts";
import { type RunningBridge, type Shop, shop } from "../support/shop.ts";
import { never } from "../support/start-server.ts";
import { closedPort, tempFolder } from "../support/temp.ts";

// It starts some twenty processes one after the other, each of which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 120_000 });

const lines = (ids: readonly string[]) =>
  ids.map((id) => `${JSON.stringify(eventOf(id))}\n`).join("");

/** A till: it repeats until all of its events are recorded, as their ids allow. */
async function till(box: Shop, bridge: string, ids: readonly string[]): Promise<void> {
  for (;;) {
    const { code, stdout, stderr } = await box.sync(
      `record --bridge ${bridge} --input - -q`,
      lines(ids),
    );
    if (code === 0) {
      expect(stdout.trimEnd().split("\n")).toHaveLength(ids.length);
      return;
    }
    expect(code, stderr).toBe(78);
  }
}

async function inLedger({ office }: TestCloud, count: number): Promise<void> {
  let seen = 0;
  for await (const _ of office.listEvents({ follow: true }, { signal: never })) {
    seen += 1;
    if (seen === count) {
      return;
    }
  }
}

test("whatever happens, each sale is in the cloud once, and each command was applied", async () => {
  using cloudFolder = tempFolder();
  const dataDir = cloudFolder.file("cloud");
  const port = await closedPort();
  const serveArgs = ["serve", "--addr", `127.0.0.1:${port}`, "--data-dir", dataDir];
  using one = shop("store-01");
  using two = shop("store-02");

  const open = (box: Shop): Promise<RunningBridge> =>
    box.run([
      ...["--addr", `127.0.0.1:${port}`, "--listen", "127.0.0.1:0"],
      ...["--listen", `unix:${box.folder.file("tills.sock")}`],
      ...["--exec", `echo "$BREWCTL_COMMAND_ID" >> ${box.folder.file("applied")}`],
    ]);
  const socket = (box: Shop) => `unix:${box.folder.file("tills.sock")}`;
  /** A till on the network and one beside the bridge, each with so many events. */
  const sell = (box: Shop, bridge: RunningBridge, when: string) => {
    const ids = ["a", "b"].map((name) => idsOf(`${box.env["BREWCTL_STORE"]}-${name}-${when}`, 80));
    const [a = [], b = []] = ids;
    offered.push(...ids.flat());
    return Promise.all([till(box, bridge.bridge, a), till(box, socket(box), b)]);
  };
  const offered: string[] = [];

  await using bridgeOne = await open(one);
  {
    await using bridgeTwo = await open(two);
    {
      await using cloud = start(serveArgs);
      await cloud.output(/^streaming-server started/m);
      await Promise.all([sell(one, bridgeOne, "morning"), sell(two, bridgeTwo, "morning")]);
      cloud.child.kill("SIGKILL");
      await cloud.ended;
    }
    // Nobody in the shops notices.
    await Promise.all([sell(one, bridgeOne, "noon"), sell(two, bridgeTwo, "noon")]);

    const ids = idsOf("store-02-killed", 1_000);
    offered.push(...ids);
    const talking = till(two, socket(two), ids);
    bridgeTwo.child.kill("SIGKILL");
    await bridgeTwo.ended;
    await using again = await open(two);
    await talking;

    await using cloud = await serveCloud({ dataDir, port });
    await cloud.office.issueCommand(
      {
        ...{ storeIds: ["store-01", "store-02"], commandId: "promo", type: "PromoActivate" },
        payloadJson: '{"promoCode":"SUMMER10"}',
      },
      { signal: never },
    );
    await Promise.all([sell(one, bridgeOne, "evening"), sell(two, again, "evening")]);
    await inLedger(cloud, offered.length);
    await Promise.all([bridgeOne.output(/applied command_id=promo/), again.output(/applied comm/)]);

    // Both sides say so themselves.
    for (const storeId of ["store-01", "store-02"]) {
      const range = { fromDay: "1970-01-01", toDay: "9999-12-31" };
      const [ledger, store] = await Promise.all(
        [DigestSide.LEDGER, DigestSide.STORE].map((side) =>
          collect(cloud.office.digest({ storeId, side, range }, { signal: never })),
        ),
      );
      expect(store?.error).toBeUndefined();
      expect(store?.messages).toEqual(ledger?.messages);
    }
    for (const bridge of [bridgeOne, again]) {
      const { code, stderr } = await bridge.stop();
      expect(code).toBe(0);
      expect(stderr).toMatch(/store-bridge stopped pending=0 parked=0\n$/);
    }
  }
  expectExactly(readLedger(dataDir), { offered });
  for (const box of [one, two]) {
    const file = box.folder.file("applied");
    expect(existsSync(file) && readFileSync(file, "utf8")).toBe("promo\n");
  }
});
