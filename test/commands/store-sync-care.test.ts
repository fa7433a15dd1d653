/** `brewctl store-sync` for whoever looks after a buffer: prune, compact, verify, export, import, commands. */

import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox, retentionMs } from "../../src/bridge/outbox.ts";
import { systemUptime } from "../../src/clock.ts";
import { brewctl, cleanEnv, launcher, serve, start } from "../support/brewctl.ts";
import { reap } from "../support/reaper.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { tempFolder } from "../support/temp.ts";

/** A state folder of the test's own, the program with it, and a way to fill its buffer. */
function shop() {
  const folder = tempFolder();
  const env = { XDG_STATE_HOME: folder.path };
  const buffer = folder.file("brewctl/stores/store-01/buffer.db");
  return {
    folder,
    env,
    buffer,
    sync: (line: string, input?: string) =>
      brewctl(["store-sync", ...line.split(" ").filter(Boolean)], {
        env,
        ...(input === undefined ? {} : { input }),
      }),
    open<T>(act: (outbox: Outbox, inbox: Inbox) => T): T {
      const outbox = new Outbox({ path: buffer, storeId: "store-01", now: Date.now });
      try {
        return act(outbox, new Inbox(outbox.database, { now: Date.now }));
      } finally {
        outbox.close();
      }
    },
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

const events = (count: number, payload = "") =>
  Array.from({ length: count }, (_, i) => ({
    eventId: `e${i + 1}`,
    type: "Sale",
    payload: payload || `sale ${i + 1}`,
    timestamp: 1_700_000_000_000 + i,
  }));
const command = (n: number, type = "PriceUpdate") => ({
  ...{
    commandId: `cmd-${n}`,
    type,
    payloadJson: '{"n":1}',
    sequence: n,
    issuedAt: 1_700_000_000_000,
  },
});

/** e1 and e2 acked, e3 parked, e4 and e5 pending; cmd-1 applied, cmd-2 parked, cmd-3 waits. */
function fill(outbox: Outbox, inbox: Inbox): void {
  outbox.append(events(5));
  outbox.settle([
    { kind: "acked", position: 1 },
    { kind: "acked", position: 2 },
    { kind: "parked", position: 3, reason: "no such product" },
  ]);
  inbox.receive(command(1), "ledger-1");
  inbox.receive(command(2, "Dance"), "ledger-1");
  inbox.receive(command(3), "ledger-1", { appliesLater: true });
}

const objects = (stdout: string) =>
  stdout
    .trimEnd()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));

test("prune removes what was acknowledged long enough ago, and nothing else", async () => {
  using box = shop();
  box.open(fill);
  const young = await box.sync("prune");
  expect(young.stdout).toBe("removed 0 events, acknowledged longer than 168h0m0s ago\n");
  const { stdout, stderr, code } = await box.sync("prune --older-than 0");
  expect(stdout).toBe("removed 2 events, acknowledged longer than 0s ago\n");
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  const [status] = objects((await box.sync("status -o ndjson")).stdout);
  expect(status).toMatchObject({ pending: 2, parked: 1, acked: 0, pruned: 2 });
  const again = await box.sync("prune --older-than 0 -o ndjson");
  expect(objects(again.stdout)).toEqual([{ removed: 0, olderThan: "0s" }]);
  const wrong = await box.sync("prune --older-than 7d");
  expect(wrong.stderr).toContain("expected a duration such as 200ms, 1s or 1m30s");
  expect(wrong.code).toBe(2);
});

test("a flush removes what is over of the oldest events, step by step", async () => {
  using box = shop();
  await using cloud = await serve(["--memory"]);
  const longAgo = () => {
    const { boot, ms } = systemUptime();
    return { boot, ms: ms - retentionMs - 60_000 };
  };
  mkdirSync(dirname(box.buffer), { recursive: true });
  const store = { path: box.buffer, storeId: "store-01", now: Date.now };
  const outbox = new Outbox({ ...store, uptime: longAgo });
  outbox.append(events(250));
  outbox.settle(events(250).map((_, i) => ({ kind: "acked", position: i + 1 })));
  outbox.close();
  expect((await box.sync(`flush --addr ${cloud.addr}`)).code).toBe(0);
  const [status] = objects((await box.sync("status -o ndjson")).stdout);
  expect(status).toMatchObject({ acked: 0, pruned: 250 });
});

test("prune works beside a drainer and tills", async () => {
  using box = shop();
  await using cloud = await serve(["--memory"]);
  box.open((outbox) => outbox.append(events(1500)));
  await using drainer = start(["store-sync", "channel", "--addr", cloud.addr], { env: box.env });
  await drainer.output(/^live: /m);
  await using till = start(["store-sync", "record", "--input", "-", "-o", "ndjson"], {
    ...{ env: box.env, openStdin: true },
  });
  till.child.stdin?.write('{"type":"Sale","eventId":"first"}\n');
  await till.output(/"eventId":"first"/);
  const pruned = await box.sync("prune --older-than 0");
  till.child.stdin?.end('{"type":"Sale","eventId":"last"}\n');
  expect((await till.ended).code).toBe(0);
  await drainer.output(/^ACK: last$/m);
  expect(pruned.stdout).toMatch(/^removed 150[01] events/);
  expect((await box.sync("verify")).code).toBe(0);
});

test("compact gives back the room of what was removed, and says how much", async () => {
  using box = shop();
  box.open((outbox) => {
    outbox.append(events(2000, "x".repeat(1000)));
    outbox.settle(Array.from({ length: 1990 }, (_, i) => ({ kind: "acked", position: i + 1 })));
  });
  await box.sync("prune --older-than 0");
  const full = statSync(box.buffer).size;
  const { stdout, stderr, code } = await box.sync("compact");
  const [, before, after] = /: ([\d.]+) MiB before, (\d+) KiB after\n$/.exec(stdout) ?? [];
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  expect(Number(before)).toBeGreaterThan(1.9);
  expect(Number(after)).toBeLessThan(200);
  expect(full).toBeGreaterThan(2_000_000);
  const { size } = statSync(box.buffer);
  expect(Math.floor(size / 1024)).toBe(Number(after));
  const [again] = objects((await box.sync("compact -o ndjson")).stdout);
  expect(again).toEqual({ before: expect.any(Number), after: size });
  expect((await box.sync("verify")).code).toBe(0);
  // Positions and numbers go on.
  const recorded = await box.sync("record --type Sale --event-id next");
  expect(recorded.stdout).toBe("recorded [Sale] id=next seq=2001\n");
});

test("compact names the drainer that is in its way", async () => {
  using box = shop();
  box.open(fill);
  await using cloud = await serve(["--memory"]);
  await using drainer = start(["store-sync", "channel", "--addr", cloud.addr], { env: box.env });
  await drainer.output(/^ACK: /m);
  const { stderr, stdout, code } = await box.sync("compact");
  expect(stderr).toMatch(
    /^brewctl: FAILED_PRECONDITION: another process, \d+, drains the buffer of store store-01\n/,
  );
  expect(stdout).toBe("");
  expect(code).toBe(73);
});

test("verify says that all is well, and what is not", async () => {
  using box = shop();
  box.open(fill);
  const well = await box.sync("verify");
  expect(well.stdout).toMatch(/^events {4}2 pending, 1 parked, 2 acked$/m);
  expect(well.stdout).toMatch(/^commands {2}1 waiting, 1 applied, 1 parked$/m);
  expect(well.stdout).toMatch(/^verdict {3}all is well$/m);
  expect({ code: well.code, stderr: well.stderr }).toEqual({ code: 0, stderr: "" });
  const sqlite = new DatabaseSync(box.buffer);
  sqlite.exec("DELETE FROM events WHERE event_id = 'e4'");
  sqlite.close();
  const before = readFileSync(box.buffer);
  const wrong = await box.sync("verify");
  expect(wrong.stdout).toMatch(
    /^WRONG {5}the numbers of the current epoch have a gap: 5 were given/m,
  );
  expect(wrong.stdout).toMatch(/^verdict {3}1 thing is wrong$/m);
  expect(wrong.code).toBe(79);
  const [json] = objects((await box.sync("verify -o ndjson")).stdout);
  expect(json).toMatchObject({
    ...{ storeId: "store-01", pending: 1, parked: 1, acked: 2, pruned: 0 },
    ...{ commandsReceived: 1, commandsApplied: 1, commandsParked: 1, handedOver: null },
    ...{ findings: [expect.stringContaining("have a gap")], isMore: false },
  });
  expect(readFileSync(box.buffer).equals(before)).toBe(true);
  const other = await box.sync(`verify --store store-02 --buffer ${box.buffer}`);
  expect(other.stderr).toContain("is the buffer of store store-01, not of store-02");
  expect(other.code).toBe(73);
  expect((await box.sync("verify --store nobody")).code).toBe(2);
});

test("an event that is corrupt on the disk is named by verify, events, flush and status", async () => {
  using box = shop();
  await using cloud = await serveCloud();
  box.open((outbox) => outbox.append(events(3)));
  const sqlite = new DatabaseSync(box.buffer);
  sqlite.exec("UPDATE events SET payload = CAST('sale 7' AS BLOB) WHERE event_id = 'e2'");
  sqlite.close();
  const why = "corrupt on the store's disk: it does not have its checksum";
  const verified = await box.sync("verify");
  expect(verified.stdout).toMatch(
    /^WRONG {5}event 2: it is corrupt: event "e2" does not have its/m,
  );
  expect(verified.code).toBe(79);
  expect((await box.sync("events")).stdout).toMatch(
    new RegExp(`^#2 pending .* e2 .* — ${why}$`, "m"),
  );
  const flushed = await box.sync(`flush --addr 127.0.0.1:${cloud.port} -o ndjson`);
  expect(flushed.stderr).toContain(`brewctl: event e2 is ${why}. Parked.`);
  expect(objects(flushed.stdout)).toMatchObject([{ accepted: 2 }]);
  expect(flushed.code).toBe(5);
  const status = await box.sync("status --check");
  expect(status.stdout).toMatch(/^WRONG {5}1 parked event is corrupt on this disk/m);
  expect(status.code).toBe(5);
  const retried = await box.sync("retry e2 --new-id");
  expect(retried.stderr).toContain(`event "e2" is ${why}`);
  expect(retried.code).toBe(79);
});

test("export has everything, between a first and a last line", async () => {
  using box = shop();
  box.open(fill);
  const { stdout, stderr, code } = await box.sync("export");
  expect({ stderr, code }).toEqual({ stderr: "exported 5 events and 3 commands\n", code: 0 });
  const [head, ...rest] = objects(stdout);
  expect(head).toEqual({
    export: {
      ...{ format: 1, storeId: "store-01", epoch: expect.stringMatching(/^[0-9a-f]{16}$/) },
      ...{ ledgerId: "", alarm: "", pending: 2, acked: 2, parked: 1, events: "all" },
      exportedAt: expect.stringMatching(/^20\d\d-.*Z$/),
    },
  });
  const printed = await box.sync("events -o ndjson");
  expect(rest.slice(0, 5)).toEqual(objects(printed.stdout));
  expect(rest.slice(5)).toMatchObject([
    { command: { commandId: "cmd-1", state: "applied" } },
    { command: { commandId: "cmd-2", state: "parked", reason: 'unknown type "Dance"' } },
    { command: { commandId: "cmd-3", state: "received" } },
    { cursor: { ledgerId: "ledger-1", sequence: 3 } },
    { end: { event: 5, command: 3, cursor: 1, pruned: 0 } },
  ]);
  const before = stdout.slice(0, stdout.indexOf('{"end"'));
  expect(rest.at(-1).end.sha256).toBe(createHash("sha256").update(before).digest("hex"));
  const parked = objects((await box.sync("export --state parked -q")).stdout);
  expect(parked[0].export.events).toBe("parked");
  expect(parked[1]).toMatchObject({ eventId: "e3", reason: "no such product" });
  expect(parked.at(-1).end.event).toBe(1);
});

test("export to a file puts it there as a whole, over another one with --force alone, and never over a database", async () => {
  using box = shop();
  box.open(fill);
  const file = box.folder.file("out.ndjson");
  writeFileSync(file, "an older one");
  const refused = await box.sync(`export ${file}`);
  expect(refused.stderr).toBe(
    `brewctl: ${file} is there already, and was left as it is\n  write over it with --force, or choose another name\n`,
  );
  expect(refused.code).toBe(2);
  expect(readFileSync(file, "utf8")).toBe("an older one");
  const { stdout, stderr } = await box.sync(`export --force ${file}`);
  expect(stdout).toBe("");
  expect(stderr).toBe(`exported 5 events and 3 commands to ${file}\n`);
  expect(objects(readFileSync(file, "utf8")).at(-1)).toHaveProperty("end");
  expect(readdirSync(box.folder.path).sort()).toEqual(["brewctl", "out.ndjson"]);
  const bytes = readFileSync(box.buffer);
  // A device or a pipe would be gone, with a file in its place.
  const pipe = box.folder.file("pipe");
  execFileSync("mkfifo", [pipe]);
  expect((await box.sync(`export ${pipe}`)).code).toBe(2);
  expect(statSync(pipe).isFIFO()).toBe(true);
  const wrong = await box.sync(`export --force ${box.buffer}`);
  expect(wrong.stderr).toMatch(/is a database; expected the name of a file to be written\n/);
  expect(wrong.code).toBe(2);
  expect(readFileSync(box.buffer).equals(bytes)).toBe(true);
  const nowhere = await box.sync(`export ${box.folder.file("no/such/x.ndjson")}`);
  expect(nowhere.stderr).toContain("there is no such folder\n");
  expect(nowhere.code).toBe(2);
  const folder = await box.sync(`export ${box.folder.path}`);
  expect(folder.stderr).toMatch(
    / is no file; expected the name of a file to be written\n.*export - >/,
  );
  expect(folder.code).toBe(2);
  expect(readdirSync(box.folder.path).sort()).toEqual(["brewctl", "out.ndjson", "pipe"]);
});

test("export is the buffer of one moment, whatever is recorded and pruned meanwhile", async () => {
  using box = shop();
  box.open((outbox) => {
    outbox.append(events(3000, "x".repeat(200)));
    outbox.settle(Array.from({ length: 2500 }, (_, i) => ({ kind: "acked", position: i + 1 })));
  });
  // Of which nobody reads more than the first: it is stuck in the middle.
  const exporting = spawn(launcher, ["store-sync", "export", "-q"], {
    env: cleanEnv(box.env),
    stdio: ["ignore", "pipe", "inherit"],
  });
  reap(exporting);
  const ended = once(exporting, "close");
  try {
    await once(exporting.stdout, "readable");
    expect((await box.sync("prune --older-than 0")).stdout).toMatch(/^removed 2500 /);
    expect((await box.sync("record --type Sale --event-id late")).code).toBe(0);
    const lines = objects(await text(exporting.stdout));
    expect(await ended).toEqual([0, null]);
    expect(lines.at(-1).end).toMatchObject({ event: 3000, pruned: 0 });
    expect(lines).toHaveLength(3002);
  } finally {
    exporting.kill("SIGKILL");
    await ended;
  }
});

test("a reader of export that goes away is no fault", async () => {
  using box = shop();
  box.open((outbox) => outbox.append(events(3000, "x".repeat(200))));
  await using exporting = start(["store-sync", "export"], { env: box.env });
  await new Promise<void>((resolve) => exporting.child.stdout?.once("data", () => resolve()));
  exporting.child.stdout?.destroy();
  const { code, stderr } = await exporting.ended;
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
});

test("import makes another box of an export, which delivers what the old one had not", async () => {
  using old = shop();
  using box = shop();
  await using cloud = await serve(["--memory"]);
  old.open(fill);
  const { stdout: exported } = await old.sync("export");
  const { stdout, stderr, code } = await box.sync("import - --store store-01", exported);
  expect(stdout).toBe(
    `imported 2 pending, 2 acked and 1 parked events, and 3 commands, into ${box.buffer}\n`,
  );
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  expect((await box.sync("verify")).code).toBe(0);
  const states = objects((await box.sync("events -o ndjson")).stdout);
  expect(states.map(({ eventId, state, seq }) => [eventId, state, seq])).toEqual([
    ["e1", "acked", 1],
    ["e2", "acked", 2],
    ["e3", "parked", 1],
    ["e4", "pending", 2],
    ["e5", "pending", 3],
  ]);
  expect(objects((await box.sync("commands -o ndjson")).stdout)).toEqual(
    objects((await old.sync("commands -o ndjson")).stdout),
  );
  const flushed = await box.sync(`flush --addr ${cloud.addr}`);
  expect(flushed.stdout).toContain("2 accepted, 0 rejected");
  // The old box goes on: what both have counts once.
  const both = await old.sync(`flush --addr ${cloud.addr}`);
  expect(both.stdout).toContain("0 accepted, 2 rejected (2 duplicates)");
});

test("import of a file says the same in NDJSON", async () => {
  using old = shop();
  using box = shop();
  old.open(fill);
  const file = box.folder.file("store-01.ndjson");
  await old.sync(`export ${file}`);
  const { stdout } = await box.sync(`import ${file} --store store-01 -o ndjson`);
  expect(objects(stdout)).toEqual([
    {
      ...{
        storeId: "store-01",
        buffer: box.buffer,
        epoch: expect.stringMatching(/^[0-9a-f]{16}$/),
      },
      ...{ pending: 2, acked: 2, parked: 1, commands: 3 },
    },
  ]);
});

describe("what export was not, import does not take, and names the line", () => {
  let whole: string;
  let parked: string;
  let lines: string[];
  beforeAll(async () => {
    using old = shop();
    old.open(fill);
    whole = (await old.sync("export")).stdout;
    parked = (await old.sync("export --state parked")).stdout;
    lines = whole.trimEnd().split("\n");
  });
  const without = (n: number) => lines.filter((_, i) => i !== n - 1).join("\n");
  const edited = (n: number, from: string, to: string) =>
    lines.map((line, i) => (i === n - 1 ? line.replace(from, to) : line)).join("\n");

  test.each<[message: string, input: () => string, code?: number]>([
    ["stdin is empty", () => ""],
    ["stdin:1: this is not the beginning of an export", () => "my shopping list\n"],
    ["stdin:1: this is not the beginning of an export", () => '{"type":"Sale"}\n'],
    ["stdin:10: the export is cut off here: its closing line is missing", () => without(11)],
    ["stdin:11: not JSON", () => whole.slice(0, whole.length - 40)],
    [
      "stdin:10: the export is not whole: 4 of 5 lines of the kind event are there",
      () => without(4),
    ],
    [
      'stdin:4: event "e2" is there twice',
      () => [...lines.slice(0, 3), lines[2], ...lines.slice(3)].join("\n"),
    ],
    [
      "stdin:11: the lines before this one are not as they were",
      () => edited(3, "sale 2", "sale 9"),
    ],
    ["stdin:3: type is empty", () => edited(3, '"Sale"', '""')],
    [
      "stdin:3: expected state to be one of pending, acked, parked",
      () => edited(3, '"acked"', '"sold"'),
    ],
    [
      "stdin:3: this event is of store store-02, not of store-01",
      () => edited(3, "store-01", "store-02"),
    ],
    [
      "stdin:7: expected state to be one of received",
      () => edited(7, '"state":"applied"', '"state":1'),
    ],
    [
      "stdin:10: expected sequence to be a whole number",
      () => edited(10, '"sequence":3', '"sequence":-3'),
    ],
    ["stdin:12: expected nothing behind the closing line", () => `${whole}{}\n`],
    ["stdin:1: the export has parked events only", () => parked],
    [
      "was written by a newer brewctl (format 2, this one",
      () => edited(1, '"format":1', '"format":2'),
      73,
    ],
    [
      "stdin is of store store-02, not of store-01",
      () => whole.replaceAll("store-01", "store-02"),
      73,
    ],
  ])("%s", async (message, input, expected = 2) => {
    using box = shop();
    const { stdout, stderr, code } = await box.sync("import - --store store-01", input());
    expect({ stdout, stderr, code }).toEqual({
      ...{ stdout: "", stderr: expect.stringContaining(message), code: expected },
    });
    expect(existsSync(box.buffer)).toBe(false);
  });

  test("and then it takes what export was", async () => {
    using box = shop();
    expect((await box.sync("import - --store store-01", without(11))).code).toBe(2);
    expect((await box.sync("import - --store store-01", whole)).code).toBe(0);
  });
});

test("import wants to know for which store, and a file that is there", async () => {
  using box = shop();
  const none = await box.sync("import -", "");
  expect(none.stderr).toMatch(/^brewctl: for which store\? Say so with --store\n/);
  expect(none.code).toBe(2);
  const missing = await box.sync("import nowhere.ndjson --store store-01");
  expect(missing.stderr).toMatch(/^brewctl: nowhere\.ndjson: no such file\n/);
  expect(missing.code).toBe(2);
  box.open(fill);
  const self = await box.sync(`import ${box.buffer} --store store-01`);
  expect(self.stderr).toContain("is the buffer of store store-01 itself\n");
  expect(self.code).toBe(2);
});

test("import never touches a buffer that has something in it", async () => {
  using old = shop();
  using box = shop();
  old.open(fill);
  box.open((outbox) => outbox.append([{ eventId: "mine", type: "Sale", payload: "" }]));
  const before = readFileSync(box.buffer);
  const exported = (await old.sync("export")).stdout;
  for (const [line, input] of [
    ["import - --store store-01", exported],
    [`import ${old.buffer} --store store-01`, undefined],
  ] as const) {
    const { stderr, code } = await box.sync(line, input);
    expect(stderr).toContain("is there already and has something in it\n");
    expect(code).toBe(70);
  }
  expect(readFileSync(box.buffer).equals(before)).toBe(true);
  expect((await old.sync("record --type Sale")).code).toBe(0);
});

describe("a buffer that another box has taken over", () => {
  let old: ReturnType<typeof shop>;
  let box: ReturnType<typeof shop>;
  beforeAll(async () => {
    old = shop();
    box = shop();
    old.open(fill);
    expect((await box.sync(`import ${old.buffer} --store store-01`)).code).toBe(0);
  });
  afterAll(() => {
    old[Symbol.dispose]();
    box[Symbol.dispose]();
  });

  test.each([
    "record --type Sale",
    "flush",
    "channel",
    "watch",
    "retry --all",
    "retry --commands --all",
    "replay",
    "prune",
    "compact",
  ])("is refused to store-sync %s", async (line) => {
    const { stderr, code } = await old.sync(line);
    expect(stderr).toContain(`was handed over: since 20`);
    expect(stderr).toContain(`the store's buffer is ${box.buffer} on `);
    expect(code).toBe(73);
  });

  test("can still be looked at, and says where the store is now", async () => {
    expect((await old.sync("status")).stdout).toMatch(/^WRONG +handed over: since /m);
    expect((await old.sync("verify")).stdout).toMatch(/^gone {6}since .*verdict {3}all is well$/ms);
  });

  test("is not for a third box, unless the second one is lost", async () => {
    using third = shop();
    const twice = await third.sync(`import ${old.buffer} --store store-01`);
    expect(twice.stderr).toContain("was handed over already: since ");
    expect(twice.code).toBe(73);
    expect((await third.sync(`import ${old.buffer} --store store-01 --again`)).code).toBe(0);
    expect((await third.sync("status")).stdout).toMatch(/^pending {3}2, /m);
  });
});

test("a buffer that is in use, damaged, newer or another store's is not taken over", async () => {
  using old = shop();
  using box = shop();
  old.open((outbox) => outbox.append(events(300)));
  const line = `import ${old.buffer} --store store-01`;
  {
    await using cloud = await serve(["--memory"]);
    await using drainer = start(["store-sync", "channel", "--addr", cloud.addr], { env: old.env });
    await drainer.output(/^live: /m);
    const { stderr, code } = await box.sync(line);
    expect(stderr).toContain(`another process, ${drainer.child.pid}, drains the buffer`);
    expect(code).toBe(73);
  }
  const other = await box.sync(`import ${old.buffer} --store store-02`);
  expect(other.stderr).toContain("is of store store-01, not of store-02\n");
  expect(other.code).toBe(73);
  const whole = readFileSync(old.buffer);
  const bytes = Buffer.from(whole);
  bytes.fill(0xab, 5 * 4096, 6 * 4096);
  writeFileSync(old.buffer, bytes);
  const damaged = await box.sync(line);
  expect(damaged.stderr).toMatch(/^brewctl: DATA_LOSS: .*is damaged: /);
  expect(damaged.stderr).toContain(`brewctl store-sync status --buffer ${old.buffer}\n`);
  expect(damaged.code).toBe(79);
  expect(readFileSync(old.buffer).equals(bytes)).toBe(true);
  writeFileSync(old.buffer, whole);
  const sqlite = new DatabaseSync(old.buffer);
  sqlite.exec("PRAGMA user_version = 99");
  sqlite.close();
  const newer = await box.sync(line);
  expect(newer.stderr).toContain("was written by a newer brewctl (schema 99, this one knows 3)");
  expect(newer.code).toBe(73);
  expect(existsSync(box.buffer)).toBe(false);
});

test("commands lists what came from the cloud, and retry lets parked ones be tried again", async () => {
  using box = shop();
  box.open(fill);
  const at = "2023-11-14T22:13:20.000Z";
  const all = await box.sync("commands");
  expect(all.stdout).toBe(
    `#1 applied  [PriceUpdate] cmd-1 of ${at}\n` +
      `#2 parked   [Dance] cmd-2 of ${at} — unknown type "Dance" (0 attempts)\n` +
      `#3 received [PriceUpdate] cmd-3 of ${at}\n`,
  );
  const parked = await box.sync("commands --state parked -o ndjson");
  expect(objects(parked.stdout)).toMatchObject([
    { commandId: "cmd-2", type: "Dance", sequence: 2, payloadJson: '{"n":1}', state: "parked" },
  ]);
  expect((await box.sync("commands --limit 1")).stdout.split("\n")).toHaveLength(2);
  const status = await box.sync("status");
  expect(status.stdout).toMatch(
    /^commands {2}1 applied, 1 waiting, 1 parked: see store-sync comm/m,
  );
  expect(status.stdout).toMatch(/^pruned {4}0$/m);
  const [json] = objects((await box.sync("status -o ndjson")).stdout);
  expect(json).toMatchObject({
    commandsReceived: 1,
    commandsApplied: 1,
    commandsParked: 1,
    pruned: 0,
  });
  const wrong = await box.sync("retry --commands cmd-1");
  expect(wrong.stderr).toMatch(/^brewctl: NOT_FOUND: no parked command "cmd-1"\n/);
  expect(wrong.code).toBe(69);
  const which = await box.sync("retry --commands");
  expect(which.stderr).toMatch(/^brewctl: which commands\? Name their ids, or say --all\n/);
  expect(which.code).toBe(2);
  const both = await box.sync("retry --commands --new-id --all");
  expect(both.code).toBe(2);
  const retried = await box.sync("retry --commands cmd-2");
  expect(retried.stdout).toBe("waits again: cmd-2\n");
  expect(retried.stderr).toBe("1 command to be applied again\n");
  expect(box.open((_, inbox) => inbox.counts())).toEqual({ received: 2, applied: 1, parked: 0 });
});
