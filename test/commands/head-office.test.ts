/** `brewctl head-office`: stores as a table and live, commands to many, events that go on. */

import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { brewctl, start } from "../support/brewctl.ts";
import { ctrlC, onTerminal } from "../support/pty.ts";
import { screenOf } from "../support/screen.ts";
import { type CloudOptions, serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { each } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";

const addrOf = ({ port }: TestCloud) => `127.0.0.1:${port}`;

const office = (cloud: TestCloud, ...args: string[]) =>
  brewctl(["head-office", ...args], { env: { BREWCTL_ADDR: addrOf(cloud) } });

const startOffice = (cloud: TestCloud, ...args: string[]) =>
  start(["head-office", ...args], { env: { BREWCTL_ADDR: addrOf(cloud) } });

const report = ({ client }: TestCloud, storeId: string, changes: object = {}) =>
  client.reportStatus({ storeId, sentAt: BigInt(Date.now()), ...changes }, { signal: never });

async function sell(
  { client }: TestCloud,
  first: number,
  last: number,
  storeId = "store-01",
  outcome: object = { accepted: last - first + 1 },
) {
  const events = Array.from({ length: last - first + 1 }, (_, i) => ({
    ...{ storeId, eventId: `sale-${first + i}`, type: "Sale", payload: "{}", epoch: "aa" },
    ...{ timestamp: 1n, seq: BigInt(first + i) },
  }));
  expect(await client.uploadBufferedEvents(each(events), { signal: never })).toMatchObject(outcome);
}

/** A store that is there for as long as the test's scope. */
async function present(cloud: TestCloud, storeId: string) {
  const stop = new AbortController();
  const commands = cloud.client
    .watchCommands({ storeId }, { signal: stop.signal })
    [Symbol.asyncIterator]();
  const next = commands.next().catch(() => {});
  await cloud.log.line(`Store ${storeId} connected`);
  return {
    async leave() {
      stop.abort(new Error("it leaves"));
      await next;
      await cloud.log.line(`Store ${storeId} disconnected`);
    },
  };
}

/** Gone without a word, and what comes back in its place. */
async function restart(cloud: TestCloud, options: CloudOptions = {}): Promise<TestCloud> {
  await cloud[Symbol.asyncDispose]();
  return serveCloud({ ...options, port: cloud.port });
}

const lines = (text: string) => text.split("\n").filter(Boolean);

describe("stores", () => {
  test("none yet: nothing on stdout, a word on stderr", async () => {
    await using cloud = await serveCloud();
    expect(await office(cloud, "stores")).toMatchObject({
      ...{ stdout: "", stderr: "the cloud has heard of no store yet\n", code: 0 },
    });
    expect(await office(cloud, "stores", "-o", "ndjson")).toMatchObject({
      ...{ stdout: "", stderr: "", code: 0 },
    });
  });

  test("a table, as wide as it needs to be in a pipe", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-02", { depth: 3n, parked: 1n });
    const store = await present(cloud, "store-01");
    const { stdout, stderr, code } = await office(cloud, "stores");
    expect(lines(stdout)).toEqual([
      expect.stringMatching(/^store {5}link +why +depth +oldest +parked +gaps .* reported$/),
      expect.stringMatching(/^store-02 {2}dark \d+ s +1 event parked +3 +- +1 .* s$/),
      expect.stringMatching(/^store-01 {2}up +- +0 +- +0 .* never$/),
    ]);
    expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
    await store.leave();
  });

  test("ndjson is the answer as it came, and --store chooses", async () => {
    await using cloud = await serveCloud();
    for (const id of ["a,b", "c", "d"]) {
      await report(cloud, id, { depth: 3n });
    }
    const { stdout } = await office(
      cloud,
      ...["stores", "--store", "c", "--store", "a,b", "-o", "ndjson"],
    );
    expect(lines(stdout).map((line) => JSON.parse(line))).toMatchObject([
      { storeId: "a,b", isConnected: false, depth: 3, alarms: [] },
      { storeId: "c" },
    ]);
  });

  test("a store that the cloud has never heard of is NOT_FOUND", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01");
    for (const more of [[], ["--watch"]]) {
      const { stdout, stderr, code } = await office(
        cloud,
        "stores",
        "--store",
        "store-O1",
        ...more,
      );
      expect({ stdout, code }).toEqual({ stdout: "", code: 69 });
      expect(stderr).toContain(
        'brewctl: NOT_FOUND: the cloud has never heard of a store "store-O1"\n',
      );
    }
  });

  test("--check names who needs somebody and why, with exit 5", async () => {
    await using cloud = await serveCloud();
    const store = await present(cloud, "store-01");
    expect(await office(cloud, "stores", "--check")).toMatchObject({ stderr: "", code: 0 });
    await report(cloud, "store-01", { parked: 2n, commandsParked: 1n, alarms: ["salvaged"] });
    await sell(cloud, 3, 3, "store-02");
    const { stderr, code, stdout } = await office(cloud, "stores", "--check", "-o", "ndjson");
    expect(lines(stderr)).toEqual([
      "store-01: 2 events parked, 1 command parked, alarm: salvaged",
      expect.stringMatching(/^store-02: dark \d+ s, 2 gaps$/),
    ]);
    expect(lines(stdout)).toHaveLength(2);
    expect(code).toBe(5);
    // For cron, which mails whatever is printed.
    expect(await office(cloud, "stores", "--check", "-q")).toMatchObject({
      ...{ stdout: "", stderr: "", code: 5 },
    });
    await store.leave();
  });

  test("no server is UNAVAILABLE, also with --watch", async () => {
    await using cloud = await serveCloud();
    const addr = addrOf(cloud);
    await cloud[Symbol.asyncDispose]();
    for (const more of [[], ["--watch"]]) {
      const { stderr, code } = await brewctl(["head-office", "stores", "--addr", addr, ...more]);
      expect(stderr).toContain(`no server at ${addr}`);
      expect(code).toBe(78);
    }
  });
});

describe("stores --watch, not on a terminal", () => {
  test("is a line a change, which says when", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01", { depth: 3n });
    await using watching = startOffice(cloud, "stores", "--watch");
    await watching.output(/^\S+Z store-01 dark \d+ s depth=3 .*\n/m);
    await report(cloud, "store-02", { depth: 1n });
    await watching.output(/^\S+Z store-02 dark \d+ s depth=1 .*\n/m);
    watching.child.kill("SIGINT");
    const { signal, stderr } = await watching.ended;
    expect(signal).toBe("SIGINT");
    expect(stderr).toMatch(/^stream cancelled by client, got 2 updates · Ctrl\+C · /m);
  });

  test("survives a server that is killed, says so, and goes on with how it is then", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01", { depth: 3n });
    await using watching = startOffice(cloud, "stores", "--watch", "-o", "ndjson");
    await watching.output(/"depth":3/);
    await using back = await restart(cloud);
    await report(back, "store-01", { depth: 4n });
    await watching.output(/"depth":4/);
    expect(watching.stderr).toMatch(/; attempt 1 to reconnect in \d+\.\d\d s\n/);
    expect(watching.stderr).toMatch(/reconnected after \S+ s; here is how it is now\n/);
  });

  test("ends quietly when its reader has gone", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01");
    await using watching = startOffice(cloud, "stores", "--watch", "-q");
    await watching.output(/store-01/);
    watching.child.stdout?.destroy();
    // It notices when it has something to say.
    for (let depth = 1n; watching.child.exitCode === null; depth++) {
      await report(cloud, "store-01", { depth });
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await watching.ended).toMatchObject({ code: 0, stderr: "" });
  });
});

describe("stores --watch on a terminal", () => {
  const watch = (cloud: TestCloud, env: Record<string, string> = {}) =>
    onTerminal(["head-office", "stores", "--watch", "--addr", addrOf(cloud)], {
      NO_COLOR: "1",
      ...env,
    });
  /** The frame that was drawn last, alone. */
  const lastFrame = ({ screen }: { screen: string }) =>
    screenOf(screen.slice(screen.lastIndexOf("\x1b[?2026h")));

  test("stores come and go, ages tick, and Ctrl+C leaves the last table and dies of it", async () => {
    await using cloud = await serveCloud();
    const store = await present(cloud, "store-01");
    await using terminal = watch(cloud);
    await terminal.output(/store-01 {2}up/);
    await store.leave();
    await terminal.output(/store-01 {2}dark [012] s/);
    await terminal.output(/store-01 {2}dark [345] s/);
    await report(cloud, "store-02", { depth: 7n, alarms: ["salvaged"] });
    await terminal.output(/ {2}! salvaged/);
    terminal.type(ctrlC);
    expect(await terminal.ended).toMatchObject({ signal: 2 });
    const shown = screenOf(terminal.screen);
    expect(shown).toEqual([
      expect.stringMatching(/^2 stores, 2 dark · \d\d:\d\d:\d\d$/),
      expect.stringMatching(/^store {5}link/),
      expect.stringMatching(/^store-02 {2}dark \d s +alarm +7 /),
      "  ! salvaged",
      expect.stringMatching(/^store-01 {2}dark \d s +- +0 /),
      expect.stringMatching(/^stream cancelled by client, got \d+ updates · Ctrl\+C · /),
    ]);
  });

  test("a lost server is said above the table, which stays, and then it goes on", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01", { depth: 3n });
    const store = await present(cloud, "store-02");
    await using terminal = watch(cloud);
    await terminal.output(/store-02 {2}up/);
    await cloud[Symbol.asyncDispose]();
    await store.leave();
    await terminal.output(/this is how it was: .*; attempt \d+ to reconnect in \d/);
    expect(lastFrame(terminal).join("\n")).toMatch(/^store-01 {2}dark.*^store-02 {2}was up/ms);
    await using back = await serveCloud({ port: cloud.port });
    await report(back, "store-77");
    await terminal.output(/store-77 {2}dark/);
    const shown = lastFrame(terminal).join("\n");
    expect(shown).toMatch(/^1 store, 1 dark/);
    // The new server's ledger is empty: what it does not know is no longer shown.
    expect(shown).not.toContain("store-01");
  });

  test("more stores than rows: the worst, and how many more; also in a small window", async () => {
    await using cloud = await serveCloud();
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => report(cloud, `store-${100 + i}`, { depth: 0n })),
    );
    await report(cloud, "store-250", { parked: 3n });
    await using terminal = watch(cloud);
    await terminal.output(/… and 154 more/);
    const tall = lastFrame(terminal);
    expect(tall).toHaveLength(49);
    expect(tall[2]).toMatch(/^store-250 /);
    terminal.pty.resize(40, 10);
    await terminal.output(/… and 194 more/);
    const small = lastFrame(terminal);
    expect(small).toHaveLength(9);
    expect(small[2]).toMatch(/^store-250 /);
    for (const line of small) {
      expect(line.length).toBeLessThanOrEqual(40);
    }
    terminal.pty.resize(12, 3);
    await terminal.output(/200 stores,…/);
    terminal.type(ctrlC);
    expect(await terminal.ended).toMatchObject({ signal: 2 });
  });

  test("TERM=dumb gets a line a change, and no escape sequence", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01");
    await using terminal = watch(cloud, { TERM: "dumb" });
    await terminal.output(/Z store-01 dark \d s depth=0/);
    terminal.type(ctrlC);
    await terminal.ended;
    expect(terminal.screen).not.toContain("\x1b");
  });
});

describe("command", () => {
  test("for several stores, a line each, and a word about one that was never heard of", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01");
    const store = await present(cloud, "store-02");
    const { stdout, stderr, code } = await office(
      cloud,
      ...["command", "--store", "store-01", "--store", "store-02", "--store", "store-O3"],
      ...["--type", "PriceUpdate", "--id", "cmd-7"],
    );
    expect(lines(stdout)).toEqual([
      "queued cmd-7 as #1 for store-01: it gets it when it comes back",
      "queued cmd-7 as #1 for store-02: it is watching",
      "queued cmd-7 as #1 for store-O3: it gets it when it comes back",
    ]);
    expect(stderr).toBe(
      "the cloud has never heard of store-O3; if it is mistyped: brewctl head-office cancel cmd-7 --store store-O3\n",
    );
    expect(code).toBe(0);
    await store.leave();
  });

  test("for all stores, ndjson is the answer; while none is known it is an error", async () => {
    await using cloud = await serveCloud();
    const all = ["command", "--all-stores", "--type", "StockAlert", "-o", "ndjson"];
    const none = await office(cloud, ...all);
    expect(none).toMatchObject({ stdout: "", code: 73 });
    expect(none.stderr).toContain("the cloud has heard of no store yet");
    await report(cloud, "store-01");
    await report(cloud, "store-02");
    const { stdout } = await office(cloud, ...all);
    expect(JSON.parse(stdout)).toMatchObject({
      queued: [
        { storeId: "store-01", sequence: 1, isWatching: false, isKnown: true },
        { storeId: "store-02", sequence: 1 },
      ],
    });
  });
});

test("commands: what was queued and what has become of it", async () => {
  await using cloud = await serveCloud();
  const { ledgerId } = await report(cloud, "store-01");
  for (const id of ["one", "two", "three"]) {
    await office(cloud, "command", "--all-stores", "--type", "StockAlert", "--id", id);
  }
  await report(cloud, "store-01", {
    ...{ ledgerId, receivedSequence: 2n, appliedSequence: 2n, commandsParked: 1n },
    parkedCommands: [{ commandId: "one", reason: "no such\nitem" }],
  });
  const at = "at \\d{4}-\\S+Z";
  const shown = async (...flags: string[]) =>
    lines((await office(cloud, "commands", ...flags)).stdout);
  expect(await shown()).toEqual([
    expect.stringMatching(`^\\[store-01\\] #1 StockAlert one ${at} parked: no such\\\\u000aitem$`),
    expect.stringMatching(`^\\[store-01\\] #2 StockAlert two ${at} applied$`),
    expect.stringMatching(`^\\[store-01\\] #3 StockAlert three ${at} queued$`),
  ]);
  expect(await shown("--state", "queued", "--store", "store-01")).toHaveLength(1);
  expect(await shown("--store", "nobody")).toEqual([]);
  const [parked = ""] = await shown("--state", "parked", "-o", "ndjson");
  expect(JSON.parse(parked)).toMatchObject({
    ...{ storeId: "store-01", commandId: "one", state: "parked" },
    reason: "no such\nitem",
  });
});

describe("cancel", () => {
  test("withdraws what was not sent, says what was, and commands lists both", async () => {
    await using cloud = await serveCloud();
    await report(cloud, "store-01");
    const command = ["command", "--all-stores", "--type", "StockAlert", "--id"];
    await office(cloud, ...command, "early");
    const store = await present(cloud, "store-02");
    await office(cloud, ...command, "price");
    await cloud.log.line('command queued store="2 stores" command_id=price');
    const both = await office(cloud, "cancel", "price");
    expect(both).toMatchObject({
      code: 5,
      stderr: "1 store keeps the command; issue one that undoes it\n",
    });
    expect(lines(both.stdout)).toEqual([
      "price as #2 for store-01: cancelled",
      "price as #1 for store-02: not cancelled: it was sent, and the store may apply it",
    ]);
    expect(await office(cloud, "cancel", "early")).toMatchObject({
      ...{ code: 0, stdout: "early as #1 for store-01: cancelled\n", stderr: "" },
    });
    const cancelled = await office(cloud, "commands", "--state", "cancelled");
    expect(lines(cancelled.stdout)).toEqual([
      expect.stringMatching(/#1 StockAlert early .* cancelled$/),
      expect.stringMatching(/#2 StockAlert price .* cancelled$/),
    ]);
    expect(await office(cloud, "cancel", "late")).toMatchObject({
      ...{ code: 69, stderr: "brewctl: NOT_FOUND: no store has a command late\n" },
    });
    await store.leave();
  });
});

describe("forget", () => {
  test("a closed store leaves the list, --check and --all-stores, and returns with its next contact", async () => {
    await using cloud = await serveCloud();
    await sell(cloud, 1, 2);
    const store = await present(cloud, "store-02");
    await cloud.log.line("flush ended");
    expect(await office(cloud, "stores", "--check")).toMatchObject({ code: 5 });
    expect(await office(cloud, "forget", "store-02")).toMatchObject({
      ...{ code: 73, stderr: expect.stringContaining("store-02 is connected now") },
    });
    expect(await office(cloud, "forget", "store-09")).toMatchObject({ code: 69 });
    expect(await office(cloud, "forget", "store-01")).toMatchObject({
      ...{ code: 0, stdout: "forgotten: store-01, until it is heard of again\n" },
    });
    const check = await office(cloud, "stores", "--check");
    expect(check).toMatchObject({ code: 0, stderr: "" });
    expect(check.stdout).not.toContain("store-01");
    const all = await office(cloud, "command", "--all-stores", "--type", "StockAlert");
    expect(all.stdout).not.toContain("store-01");
    await sell(cloud, 3, 3);
    expect((await office(cloud, "stores", "--check")).stdout).toContain("store-01");
    await store.leave();
  });
});

describe("events", () => {
  test("a server that is killed in the middle costs no event, and doubles none", async () => {
    using folder = tempFolder();
    const options = { dataDir: folder.path };
    await using cloud = await serveCloud(options);
    await sell(cloud, 1, 5);
    await using following = startOffice(cloud, "events", "--follow", "--reconnect");
    await following.output(/^5 .*\n/m);
    await using back = await restart(cloud, options);
    await sell(back, 6, 8);
    await following.output(/^8 .*\n/m);
    expect(lines(following.stdout).map((line) => line.split(" ")[0])).toEqual(
      Array.from({ length: 8 }, (_, i) => `${i + 1}`),
    );
    expect(following.stderr).toMatch(/attempt 1 to reconnect in/);
    expect(following.stderr).toMatch(/reconnected after \S+ s; going on behind 5\n/);
    following.child.kill("SIGINT");
    const { signal, stderr } = await following.ended;
    expect(signal).toBe("SIGINT");
    expect(stderr).toMatch(
      /^to go on: --after 8\nstream cancelled by client, got 8 events · Ctrl/m,
    );
  });

  test("a cloud that comes back with another ledger is not gone on with", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud({ dataDir: folder.file("first") });
    await sell(cloud, 1, 5);
    await using following = startOffice(cloud, "events", "--follow", "--reconnect");
    await following.output(/^5 .*\n/m);
    await using back = await restart(cloud, { dataDir: folder.file("second") });
    await sell(back, 6, 20);
    const { code, stdout, stderr } = await following.ended;
    expect(code).toBe(79);
    expect(lines(stdout)).toHaveLength(5);
    expect(stderr).toMatch(
      /^brewctl: DATA_LOSS: the cloud has another ledger now: .* up to 5\n {2}.*--after 0$/m,
    );
  });

  test("without --reconnect a lost server ends it, with where to go on", async () => {
    await using cloud = await serveCloud();
    await sell(cloud, 1, 3);
    await using following = startOffice(cloud, "events", "--follow", "--after", "1");
    await following.output(/^3 .*\n/m);
    await cloud[Symbol.asyncDispose]();
    const { code, stderr, stdout } = await following.ended;
    expect(lines(stdout)).toHaveLength(2);
    expect(stderr).toMatch(/^to go on: --after 3$/m);
    // UNAVAILABLE: it was forced down, and said so.
    expect(code).toBe(78);
  });

  test("--reconnect=2 gives up in the end", async () => {
    await using cloud = await serveCloud();
    await sell(cloud, 1, 1);
    await using following = startOffice(cloud, "events", "--follow", "--reconnect=2");
    await following.output(/^1 .*\n/m);
    await cloud[Symbol.asyncDispose]();
    const { code, stderr } = await following.ended;
    expect(stderr).toContain("gave up after 2 attempts to reconnect\nto go on: --after 1\n");
    expect(code).toBe(78);
  });

  test("says nothing of where to go on to a reader that has gone", async () => {
    await using cloud = await serveCloud();
    await sell(cloud, 1, 2);
    await using following = startOffice(cloud, "events", "--follow");
    await following.output(/^2 .*\n/m);
    following.child.stdout?.destroy();
    for (let n = 3; following.child.exitCode === null; n++) {
      await sell(cloud, n, n);
    }
    const { code, stderr } = await following.ended;
    expect(stderr).toMatch(/^stream cancelled by client, got \d+ events · reader gone · /);
    expect(code).toBe(0);
  });

  test("an event that is corrupt in the ledger ends the list with exit 79, and can be left out", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud({ dataDir: folder.path });
    await sell(cloud, 1, 3);
    const sqlite = new DatabaseSync(folder.file("ledger.db"));
    sqlite.exec("UPDATE events SET payload = CAST('[]' AS BLOB) WHERE position = 2");
    sqlite.close();
    const all = await office(cloud, "events", "-o", "ndjson");
    expect(lines(all.stdout).map((line) => JSON.parse(line).eventId)).toEqual(["sale-1"]);
    expect(all.stderr).toContain(
      'event "sale-2" of store store-01 at position 2 does not have its checksum',
    );
    expect(all.code).toBe(79);
    const rest = await office(cloud, "events", "--after", "2", "-o", "ndjson");
    expect(lines(rest.stdout).map((line) => JSON.parse(line).eventId)).toEqual(["sale-3"]);
    // The store sends it again: the ledger has the checksum of the whole one.
    await sell(cloud, 2, 2, "store-01", { duplicates: 1 });
    expect(await office(cloud, "events")).toMatchObject({ code: 0 });
  });

  test("the list ends at the newest event; stop rules end a follow", async () => {
    await using cloud = await serveCloud();
    await sell(cloud, 1, 3);
    const all = await office(cloud, "events");
    expect(all.stderr).toMatch(
      /^stream closed by server, got 3 events · OK · end of the ledger · /,
    );
    const limited = await office(cloud, "events", "--follow", "--limit", "2");
    expect(lines(limited.stdout)).toHaveLength(2);
    expect(limited).toMatchObject({ code: 0 });
    expect(limited.stderr).toMatch(/^to go on: --after 2\nstream cancelled .* · limit reached · /);
    const met = await office(cloud, "events", "--follow", "--expect", "3", "--within", "20s");
    expect(met).toMatchObject({ code: 0, stderr: expect.stringContaining("got the expected 3") });
    const unmet = await office(cloud, "events", "--follow", "--expect", "4", "--within", "300ms");
    expect(unmet).toMatchObject({ code: 4 });
    const idle = await office(cloud, "events", "--follow", "--idle", "200ms");
    expect(idle).toMatchObject({ code: 0, stderr: expect.stringContaining("idle for 200ms") });
  });
});
