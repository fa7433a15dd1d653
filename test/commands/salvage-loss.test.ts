/** What a salvage has lost is told at the store and at head office until somebody acknowledges it. */

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { expect, test } from "vitest";
import { brewctl, type Running, serve, start } from "../support/brewctl.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const pageSize = 4096;
const total = 100;
const days = ["--from", "1970-01-01", "--to", "2110-01-01"];
const sentence = /(\d+) of 100 events could not be read in the salvage of \S+: numbers \d+-\d+/;

/** A store whose buffer has 100 events, with a page of them overwritten. */
async function damagedStore(folder: TempFolder) {
  const buffer = folder.file("buffer.db");
  const flags = ["--store", "store-01", "--buffer", buffer];
  const sync = (verb: string, ...more: string[]) =>
    brewctl(["store-sync", verb, ...more, ...flags]);
  const input = idsOf("sale", total)
    .map((id) => `${JSON.stringify({ ...eventOf(id), payload: { text: `${id} `.repeat(20) } })}\n`)
    .join("");
  await brewctl(["store-sync", "record", "-q", "--input", "-", ...flags], { input });
  const bytes = readFileSync(buffer);
  const page = Array.from({ length: bytes.length / pageSize }, (_, i) => i).find(
    (i) =>
      bytes[i * pageSize] === 0x0d &&
      bytes.subarray(i * pageSize, (i + 1) * pageSize).includes('"text"'),
  );
  const at = Number(page) * pageSize;
  const lost = bytes.readUInt16BE(at + 3);
  writeFileSync(buffer, bytes.fill(0, at, at + pageSize));
  writeFileSync(`${buffer}-suspect`, "");
  return { buffer, flags, sync, lost };
}

async function runBridge(folder: TempFolder, flags: readonly string[], addr: string) {
  const listen = ["--listen", `unix:${folder.file("tills")}`];
  const bridge: Running = start(["store-sync", "run", ...flags, ...listen, "--addr", addr]);
  await bridge.output(/^live:/m);
  return bridge;
}

test("status, verify and the salvage itself say how many of how many are lost, and a box that takes over does too", async () => {
  using folder = tempFolder("salvage-loss-");
  const { sync, buffer, lost } = await damagedStore(folder);
  const first = await sync("status");
  expect(first.stderr).toMatch(sentence);
  expect(first.stderr.match(sentence)?.[1]).toBe(`${lost}`);
  const status = await sync("status", "--check");
  expect(status.stdout).toMatch(sentence);
  expect(status.stdout).toContain("brewctl store-sync acknowledge");
  expect(status.code).toBe(5);
  // Also when somebody has taken the damaged file away.
  for (const name of readdirSync(folder.path).filter((name) => name.includes(".damaged-"))) {
    rmSync(folder.file(name));
  }
  expect((await sync("status", "--check")).code).toBe(5);
  const verified = await sync("verify");
  expect(verified.stdout).toMatch(sentence);
  expect(verified.code).toBe(79);
  // The box that takes the store over is told as well.
  const exported = folder.file("export.ndjson");
  expect((await sync("export", exported)).code).toBe(0);
  for (const source of [exported, buffer]) {
    const other = ["--store", "store-01", "--buffer", folder.file(`new-${basename(source)}`)];
    expect((await brewctl(["store-sync", "import", source, ...other])).code).toBe(0);
    const there = await brewctl(["store-sync", "status", "--check", ...other]);
    expect(there.stdout).toMatch(sentence);
    expect(there.code).toBe(5);
  }
});

test("a loss that somebody has acknowledged is told no more", async () => {
  using folder = tempFolder("salvage-loss-");
  const { sync } = await damagedStore(folder);
  const seen = await sync("acknowledge");
  expect(seen.stderr).toMatch(sentence);
  expect(seen.stdout).toMatch(new RegExp(`^acknowledged: ${sentence.source}`));
  expect(seen.code).toBe(0);
  expect((await sync("acknowledge")).stdout).toBe("there is no salvage to acknowledge\n");
  expect((await sync("status")).stdout).not.toContain("WRONG");
  expect((await sync("verify")).code).toBe(0);
});

test("head office is told of a loss and certifies nothing until it is acknowledged at the store", async () => {
  using folder = tempFolder("salvage-loss-");
  await using cloud = await serve(["--data-dir", folder.file("cloud")]);
  const { flags, buffer, sync, lost } = await damagedStore(folder);
  const office = (verb: string, ...more: string[]) =>
    brewctl(["head-office", verb, "--store", "store-01", "--addr", cloud.addr, ...more]);
  const receipt = folder.file("receipt.json");
  const reconcile = (...more: string[]) => office("reconcile", ...days, ...more);
  await using bridge = await runBridge(folder, flags, cloud.addr);
  await bridge.output(sentence);

  const stores = await office("stores", "--check");
  expect(stores.stdout).toMatch(sentence);
  expect(stores.code).toBe(5);
  for (const source of [[], ["--buffer", buffer]]) {
    const told = await reconcile("--receipt", receipt, "--force", ...source);
    expect(told.stdout).toMatch(
      new RegExp(`all ${total - lost} of ${total - lost}; at the store ${sentence.source}`),
    );
    expect(told.code).toBe(5);
    const filed = JSON.parse(readFileSync(receipt, "utf8"));
    expect(filed).toMatchObject({ same: false, losses: [expect.stringMatching(sentence)] });
  }

  expect((await sync("acknowledge")).code).toBe(0);
  const told = await reconcile("--receipt", receipt, "--force");
  expect(told.code).toBe(0);
  expect(JSON.parse(readFileSync(receipt, "utf8"))).toMatchObject({ same: true, losses: [] });
  // A command that arrives has the bridge report at once.
  const command = ["--type", "StockAlert", "--payload", "{}"];
  expect((await office("command", ...command)).code).toBe(0);
  await using watch = start([
    "head-office",
    "stores",
    "--watch",
    "-o",
    "ndjson",
    "--addr",
    cloud.addr,
  ]);
  await watch.output(/^(?!.*could not be read).*"storeId":"store-01"/m);
});
