/** What `store-sync status` says at the store of the bridge and its link, also when the bridge is gone. */

import { existsSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { start } from "../../support/brewctl.ts";
import { serveCloud } from "../../support/serve-cloud.ts";
import { shop } from "../../support/shop.ts";
import { closedPort } from "../../support/temp.ts";

test("a link is said to be connected, then offline and why, and nothing is said of a killed bridge", async () => {
  using box = shop();
  const status = async () => (await box.sync("status")).stdout;
  await box.sync("record --type Sale");
  expect(await status()).toMatch(/^bridge {4}none runs; start one with: brewctl store-sync run$/m);

  const cloud = await serveCloud();
  await using bridge = await box.run(["--addr", `127.0.0.1:${cloud.port}`]);
  const pid = bridge.child.pid;
  await bridge.output(/live: everything recorded/);
  expect(await status()).toMatch(
    new RegExp(
      `^bridge    process ${pid}; its link to 127.0.0.1:${cloud.port} has been connected for [^:]+$`,
      "m",
    ),
  );

  await cloud[Symbol.asyncDispose]();
  await bridge.output(/^WARN offline /m);
  expect(await status()).toMatch(
    new RegExp(`^bridge    process ${pid}; its link to \\S+ has been offline for [^:]+: \\S`, "m"),
  );
  const { stdout } = await box.sync("status -o ndjson");
  expect(JSON.parse(stdout).drainer).toMatchObject({
    pid,
    link: "offline",
    why: expect.stringMatching(/./),
  });

  await bridge.stop("SIGKILL");
  expect(await status()).toMatch(/^bridge {4}none runs; /m);
});

test("a note that another process has left counts for nothing", async () => {
  using box = shop();
  await box.sync("record --type Sale");
  const port = await closedPort();
  const args = ["--addr", `127.0.0.1:${port}`];
  await using channel = start(["store-sync", "channel", ...args], { env: box.env });
  await channel.output(/offline/);
  const note = { cloud: "there", link: "connected", since: 1, why: "" };
  writeFileSync(`${box.buffer}-link`, JSON.stringify({ pid: 1, ...note }));
  const { stdout } = await box.sync("status");
  expect(stdout).toMatch(
    new RegExp(`^bridge    process ${channel.child.pid} has the buffer, and says nothing`, "m"),
  );
});

test("the note of a killed bridge is removed by the process that has the buffer after it", async () => {
  using box = shop();
  await box.sync("record --type Sale");
  const note = { pid: 1, cloud: "there", link: "connected", since: 1, why: "" };
  writeFileSync(`${box.buffer}-link`, JSON.stringify(note));
  const { stdout } = await box.sync("compact");
  expect(stdout).not.toBe("");
  expect(existsSync(`${box.buffer}-link`)).toBe(false);
});
