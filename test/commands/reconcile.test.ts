/** `brewctl head-office reconcile` with a real cloud, a real bridge and its buffer. */

import { readFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { brewctl, type Running, type Served, serve, start } from "../support/brewctl.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const days = ["--from", "1970-01-01", "--to", "2110-01-01"];

interface Shop extends AsyncDisposable {
  readonly folder: TempFolder;
  readonly cloud: Served;
  readonly store: readonly string[];
  record(ids: readonly string[], flags?: readonly string[]): Promise<void>;
  reconcile(...flags: string[]): ReturnType<typeof brewctl>;
  run(): Promise<Running>;
}

async function openShop(): Promise<Shop> {
  const folder = tempFolder("reconcile-");
  const cloud = await serve(["--data-dir", folder.file("cloud")]);
  const store = ["--store", "store-01", "--buffer", folder.file("buffer.db")];
  return {
    folder,
    cloud,
    store,
    async record(ids, flags = []) {
      const input = ids.map((id) => `${JSON.stringify(eventOf(id))}\n`).join("");
      const { code } = await brewctl(
        ["store-sync", "record", "--input", "-", "-q", ...store, ...flags],
        { input },
      );
      expect(code).toBe(0);
    },
    reconcile: (...flags) =>
      brewctl(["head-office", "reconcile", "--store", "store-01", "--addr", cloud.addr, ...flags]),
    async run() {
      const listen = ["--listen", `unix:${folder.file("tills")}`];
      const running = start(["store-sync", "run", ...store, ...listen, "--addr", cloud.addr]);
      await running.output(/^live:/m);
      return running;
    },
    async [Symbol.asyncDispose]() {
      await cloud[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  };
}

test("all N of N, by day and type, with a receipt", async () => {
  await using shop = await openShop();
  await shop.record(idsOf("sale", 40));
  await using _bridge = await shop.run();
  const receipt = shop.folder.file("receipt.json");
  const told = await shop.reconcile(...days, "--receipt", receipt);
  expect(told).toMatchObject({ code: 0, stderr: `receipt: ${receipt}\n` });
  const lines = told.stdout.trimEnd().split("\n");
  expect(lines.at(-1)).toBe("store-01, 1970-01-01 to 2110-01-01: all 40 of 40");
  for (const line of lines.slice(0, -1)) {
    expect(line).toMatch(/^\d{4}-\d\d-\d\d \[\w+\] ledger (\d+), store \1: the same$/);
  }
  const filed = JSON.parse(readFileSync(receipt, "utf8"));
  expect(filed).toMatchObject({
    ...{ storeId: "store-01", from: "1970-01-01", to: "2110-01-01", same: true },
    ...{ verdict: "all 40 of 40", ledgerEvents: 40, storeEvents: 40 },
  });
  expect(filed.cells).toHaveLength(lines.length - 1);
  for (const { ledger, store } of filed.cells) {
    expect(ledger.digest).toMatch(/^[0-9a-f]{64}$/);
    expect(ledger.digest).toBe(store.digest);
  }
  // A receipt is evidence: the next one does not take its place unasked.
  const before = readFileSync(receipt, "utf8");
  const second = await shop.reconcile(...days, "--receipt", receipt);
  expect(second).toMatchObject({
    ...{ code: 2, stdout: "" },
    stderr: expect.stringContaining(`--receipt ${receipt}: there is a file already\n`),
  });
  expect(readFileSync(receipt, "utf8")).toBe(before);
  expect((await shop.reconcile(...days, "--receipt", receipt, "--force")).code).toBe(0);
  expect(JSON.parse(readFileSync(receipt, "utf8")).madeAt).not.toBe(filed.madeAt);
});

test("names what is pending, what the ledger alone has, and what was changed: exit 5", async () => {
  await using shop = await openShop();
  await shop.record(idsOf("sale", 9));
  {
    await using bridge = await shop.run();
    bridge.child.kill("SIGTERM");
    expect(await bridge.ended).toMatchObject({ code: 0 });
  }
  await shop.record(["late-1"]);
  // Somebody has had his hands in the file.
  const file = new DatabaseSync(shop.folder.file("buffer.db"));
  file.exec("DELETE FROM events WHERE event_id = 'sale-3'");
  file.exec("UPDATE events SET payload = x'30' WHERE event_id = 'sale-4'");
  file.close();
  const told = await shop.reconcile(...days, "--buffer", shop.folder.file("buffer.db"));
  expect(told.code).toBe(5);
  expect(told.stdout).toContain("  sale-3: in the ledger only\n");
  expect(told.stdout).toContain("  sale-4: another content, acked there\n");
  expect(told.stdout).toContain("  late-1: at the store only, pending there\n");
  expect(told.stdout).toMatch(
    /: 7 of 9 are the same; 1 still pending at the store, 1 in the ledger only, 1 with another content\n$/,
  );
  const json = await shop.reconcile(
    ...days,
    "--buffer",
    shop.folder.file("buffer.db"),
    "-o",
    "ndjson",
  );
  const lines = json.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines.flatMap(({ differences = [] }) => differences)).toHaveLength(3);
  expect(lines.at(-1)).toMatchObject({ same: false, ledgerEvents: 9, storeEvents: 9 });
});

test("only a type, only some days", async () => {
  await using shop = await openShop();
  const ids = idsOf("sale", 30);
  await shop.record(ids);
  await using _bridge = await shop.run();
  const events = ids.map(eventOf);
  const sales = events.filter(({ type }) => type === "Sale").length;
  expect((await shop.reconcile(...days, "--type", "Sale")).stdout).toContain(
    `: all ${sales} of ${sales}\n`,
  );
  const [first] = events;
  const day = new Date(first?.timestamp ?? 0).toISOString().slice(0, 10);
  const ofDay = await shop.reconcile("--from", day, "--to", day);
  expect(ofDay.stdout).toMatch(new RegExp(`^${day} .*\n.*: all [1-9]\\d* of \\d+\n$`, "s"));
  expect((await shop.reconcile("--from", "1969-01-01", "--to", "1969-12-31")).stdout).toContain(
    "no events on either side",
  );
});

test("a store that is not there cannot be asked: 73, and what to do; one never heard of: 69", async () => {
  await using shop = await openShop();
  await shop.record(["sale-1"]);
  const flush = ["store-sync", "flush", ...shop.store, "--addr", shop.cloud.addr, "-q"];
  expect(await brewctl(flush)).toMatchObject({ code: 0 });
  expect(await shop.reconcile(...days)).toMatchObject({
    code: 73,
    stderr: expect.stringMatching(/store-01 is not there to be asked.*\n.*--buffer FILE\n$/),
  });
  const other = ["head-office", "reconcile", "--store", "store-99", "--addr", shop.cloud.addr];
  expect(await brewctl(other)).toMatchObject({
    code: 69,
    stderr: expect.stringContaining('never heard of a store "store-99"'),
  });
});

test.each([
  [["--from", "2026-02-30"], /expected a day such as 2026-01-02/],
  [["--to", "today"], /expected a day such as 2026-01-02/],
  [["--from", "2026-02-02", "--to", "2026-02-01"], /--from 2026-02-02 is after --to 2026-02-01/],
  [["--buffer", "/nowhere/buffer.db"], /no such file/],
  [["--store", ""], /expected something/],
])("%j is a usage error", async (flags, message) => {
  const told = await brewctl(["head-office", "reconcile", "--store", "store-01", ...flags]);
  expect(told).toMatchObject({ code: 2, stdout: "", stderr: expect.stringMatching(message) });
});

test("a receipt that cannot be written is said, and costs no result", async () => {
  await using shop = await openShop();
  await shop.record(["sale-1"]);
  await using _bridge = await shop.run();
  const told = await shop.reconcile(...days, "--receipt", shop.folder.file("no/folder/r.json"));
  expect(told).toMatchObject({
    code: 2,
    stdout: expect.stringContaining(": the same\n"),
    stderr: expect.stringMatching(/^brewctl: --receipt .*no such file or directory/),
  });
});
