/** `brewctl store-sync` on this disk: record, status, events, retry, replay, and what is refused. */

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { Outbox } from "../../src/bridge/outbox.ts";
import { brewctl, serve, start } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

/** A state folder of the test's own, and the program with it. */
function shop() {
  const folder = tempFolder();
  const env = { XDG_STATE_HOME: folder.path };
  return {
    folder,
    env,
    buffer: folder.file("brewctl/stores/store-01/buffer.db"),
    sync: (line: string, input?: string | Uint8Array) =>
      brewctl(["store-sync", ...line.split(" ").filter(Boolean)], {
        env,
        ...(input === undefined ? {} : { input }),
      }),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
}

const objects = (stdout: string) =>
  stdout
    .trimEnd()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));

test("record prints id and seq of an event from flags, and makes the buffer", async () => {
  using box = shop();
  const { stdout, stderr, code } = await box.sync(
    "record --store store-01 --type Sale --event-id till-1 --payload {} --timestamp 1700000000000",
  );
  expect(stdout).toBe("recorded [Sale] id=till-1 seq=1\n");
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  // From now on it is the only store there is.
  const again = await box.sync("record --type Sale");
  expect(again.stdout).toMatch(/^recorded \[Sale\] id=evt-[0-9a-f-]{36} seq=2\n$/);
});

test("the same event again is the same answer, another one under its id is refused", async () => {
  using box = shop();
  const line = "record --store store-01 --type Sale --event-id till-1 --payload";
  await box.sync(`${line} 1`);
  const same = await box.sync(`${line} 1`);
  expect(same.stdout).toBe("recorded [Sale] id=till-1 seq=1 (it was already)\n");
  expect(same.code).toBe(0);
  const other = await box.sync(`${line} 2`);
  expect(other.stdout).toBe("");
  expect(other.stderr).toBe(
    'brewctl: ALREADY_EXISTS: event "till-1" is recorded already, with another payload\n' +
      "  another event needs another id\n",
  );
  expect(other.code).toBe(70);
});

const lines = `{"type":"Sale","payload":{"total":299},"eventId":"a","timestamp":1700000000000}
not json
{"type":""}
{"type":"Sale","eventId":"b","timestamp":"253402300800000"}
{"type":"Sale","eventId":"c","colour":"red"}
{"type":"Sale","eventId":"d","payload":"half a pair: \\ud800"}

{"type":"Sale","eventId":"a","payload":"another"}
{"type":"TillClose","payload":"☕ \\u0000","eventId":"e","timestamp":"1700000000001"}`;

test.each(["stdin", "file"])("bad lines of %s are named, and cost no other", async (where) => {
  using box = shop();
  const file = box.folder.file("sales.ndjson");
  writeFileSync(file, lines);
  const name = where === "stdin" ? "stdin" : file;
  const { stdout, stderr, code } = await box.sync(
    `record --store store-01 -o ndjson --input ${where === "stdin" ? "-" : file}`,
    where === "stdin" ? lines : undefined,
  );
  expect(objects(stdout)).toMatchObject([
    { eventId: "a", storeId: "store-01", type: "Sale", payload: '{"total":299}', seq: 1 },
    { eventId: "e", type: "TillClose", payload: "☕ \0", timestamp: 1_700_000_000_001, seq: 2 },
  ]);
  const said = stderr.trimEnd().split("\n");
  expect(said.pop()).toBe("recorded 2 events, 6 refused");
  expect(said.sort()).toEqual([
    '  expected {"type": "Sale", "payload": {"total": 299}}',
    expect.stringContaining(`${name}:2: not JSON`),
    expect.stringMatching(new RegExp(`${name}:3: event ".*": type is empty`)),
    expect.stringContaining(`${name}:4: event "b": timestamp is 253402300800000; expected`),
    expect.stringContaining(`${name}:5: unknown field "colour"; expected type, payload, eventId`),
    expect.stringContaining(`${name}:6: event "d": payload is not valid Unicode`),
    expect.stringContaining(`${name}:8: event "a" is recorded already, with another payload`),
  ]);
  expect(code).toBe(2);
});

test("a disk that fails in the middle of an input: what was recorded is said, and where to go on", async () => {
  using box = shop();
  // A limit on the size of files stands in for a full disk. Node's compile cache must not meet it.
  await using till = start("store-sync record --store store-01 --input - -q".split(" "), {
    env: { ...box.env, XDG_CACHE_HOME: box.folder.file("cache") },
    openStdin: true,
    under: ["sh", "-c", 'ulimit -f 1536; exec "$@"', "sh"],
  });
  till.child.stdin?.write('{"type":"Sale","eventId":"a"}\n\n{"type":"Sale","eventId":"b"}\n');
  await till.output(/^recorded \[Sale\] id=b seq=2$/m);
  const large = JSON.stringify({ type: "Sale", payload: "x".repeat(1024 * 1024) });
  till.child.stdin?.write(`${large}\n`);
  const { stderr, code } = await till.ended;
  expect(stderr).toMatch(
    /^recorded 2 events, the last one of stdin:3\nbrewctl: UNAVAILABLE: .*\n {2}the lines up to stdin:3 are done and none after it is recorded; /,
  );
  expect(stderr).not.toContain("nothing was");
  expect(code).toBe(78);
  const kept = await box.sync("events -o ndjson");
  expect(objects(kept.stdout).map(({ eventId }) => eventId)).toEqual(["a", "b"]);
});

test("payloads are kept as they stand in the line", async () => {
  using box = shop();
  const payloads = [
    '{"receiptId":9007199254740993}',
    '{ "total" : 1.10,"qty":3.0 }',
    '{"x":1e400}',
    '{"lines":{"10":"milk","9":"tea","a":[1 ,{"payload":"}]\\""}]}}',
    '{"a":1,"a":2}',
    "-0",
    "null",
    "[]",
    '"\\u00e9 \\"payload\\":1"',
  ];
  const lines = payloads.map((payload, i) =>
    `{"x\\u0074":"${i}", "payload" : ${payload} ,"type":"Sale"}`.replace(
      '"x\\u0074":"',
      '"event\\u0049d":"',
    ),
  );
  const recorded = await box.sync("record --store store-01 --input -", lines.join("\n"));
  expect(recorded.stderr).toBe("recorded 9 events\n");
  const expected = payloads.map((text) => (text.startsWith('"') ? JSON.parse(text) : text));
  const printed = await box.sync("events -o ndjson");
  expect(objects(printed.stdout).map(({ payload }) => payload)).toEqual(expected);
  // What it prints is read again without a change, and so on for ever.
  await box.sync("record --store store-02 --input -", printed.stdout);
  const again = await box.sync("events --store store-02 -o ndjson");
  expect(objects(again.stdout).map(({ payload }) => payload)).toEqual(expected);
});

test("a line that is not UTF-8 is named and costs no other, here and at a bridge", async () => {
  using box = shop();
  const input = Buffer.concat([
    Buffer.from('{"type":"Sale","eventId":"a"}\n{"type":"Sale","payload":"caf'),
    Buffer.of(0xe9),
    Buffer.from('"}\n{"type":"Sale","eventId":"b"}\n'),
  ]);
  const here = await box.sync("record --store store-01 --input -", input);
  expect(here.stderr).toBe("brewctl: stdin:2: not valid UTF-8\nrecorded 2 events, 1 refused\n");
  expect(here.code).toBe(2);
  await using bridge = start(
    [
      "store-sync",
      "run",
      "--store",
      "store-02",
      "--listen",
      "127.0.0.1:0",
      "--addr",
      "127.0.0.1:1",
    ],
    { env: box.env },
  );
  const [, at] = await bridge.output(/listen=(\S+)/);
  const there = await box.sync(`record --bridge ${at} --input -`, input);
  expect(there.stdout).toMatch(/ id=a seq=1\n.* id=b seq=2\n$/);
  expect(there.stderr).toBe(here.stderr);
  expect(there.code).toBe(2);
});

test("a time that does not exist, has no zone or is in seconds is refused", async () => {
  using box = shop();
  const seconds = Math.floor(Date.now() / 1000);
  for (const [text, complaint] of [
    ["2027-02-29T12:00:00Z", "there is no day 2027-02-29; expected Unix milliseconds, or"],
    ["2026-01-02T03:04:05", "expected Unix milliseconds, or a time with its zone"],
    [String(seconds), `${seconds} are seconds; expected milliseconds, which are ${seconds}000`],
  ]) {
    const flag = await box.sync(`record --store store-01 --type Sale --timestamp ${text}`);
    expect(flag.stderr).toContain(`brewctl: --timestamp ${text}: ${complaint}`);
    expect(flag.code).toBe(2);
    const line = JSON.stringify({ type: "Sale", timestamp: text });
    const lined = await box.sync("record --store store-01 --input -", line);
    expect(lined.stderr).toContain(`brewctl: stdin:1: timestamp: ${complaint}`);
    expect(lined.code).toBe(2);
  }
  const right = await box.sync(
    "record --store store-01 --type Sale --timestamp 2026-01-02T03:04:05.5+01:00 -o ndjson",
  );
  expect(objects(right.stdout)).toMatchObject([{ timestamp: 1767319445500 }]);
});

test("a flag that is not UTF-8 is refused, since what it was cannot be known", async () => {
  using box = shop();
  for (const flag of ["--payload", "--event-id", "--type", "--store"]) {
    const script = `"$0" store-sync record --store s1 --type Sale ${flag} $'caf\\xe9'`;
    const { stdout, stderr, status } = spawnSync("bash", ["-c", script, "bin/brewctl"], {
      env: { ...process.env, ...box.env },
      encoding: "utf8",
    });
    expect(stdout).toBe("");
    expect(stderr).toMatch(new RegExp(`option '${flag} .* is invalid. expected valid UTF-8`));
    expect(status).toBe(2);
  }
});

test("a flush that ends too early says what is left, also when no talk is wanted", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale");
  const { stderr, code } = await box.sync("flush --addr 127.0.0.1:1 --deadline 100ms -q");
  expect(stderr).toBe("--deadline 100ms: 1 pending\n");
  expect(code).toBe(5);
});

test("a list that is empty says so to a person, and to nobody else", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale");
  const saying = async (line: string) => {
    const { stdout, stderr, code } = await box.sync(line);
    expect({ stdout, code }).toEqual({ stdout: "", code: 0 });
    return stderr;
  };
  expect(await saying("events --state parked")).toBe("no parked events\n");
  expect(await saying("commands")).toBe("no commands\n");
  expect(await saying("commands --state applied")).toBe("no applied commands\n");
  expect(await saying("commands -q")).toBe("");
  expect(await saying("events --state parked -o ndjson")).toBe("");
  const one = await box.sync("events");
  expect(one.stderr).toBe("");
});

test("what events prints, record of another store takes", async () => {
  using box = shop();
  await box.sync("record --store store-01 --input -", lines);
  const printed = await box.sync("events --store store-01 -o ndjson");
  expect(objects(printed.stdout)[0]).toMatchObject({ state: "pending", attempts: 0, reason: "" });
  const taken = await box.sync("record --store store-02 --input -", printed.stdout);
  expect(taken.stderr).toBe("recorded 2 events\n");
  expect(taken.code).toBe(0);
});

test("the largest payload is taken from a line that spells each of its bytes out", async () => {
  using box = shop();
  const payload = "\u0001".repeat(1024 * 1024);
  await box.sync("record --store store-01 --input -", JSON.stringify({ type: "Sale", payload }));
  const printed = await box.sync("events -o ndjson");
  expect(objects(printed.stdout)).toMatchObject([{ payload }]);
  const taken = await box.sync("record --store store-02 --input -", printed.stdout);
  expect(taken.stderr).toBe("recorded 1 event\n");
});

test("a payload of 1 MiB is recorded, one byte more is refused", async () => {
  using box = shop();
  const event = (bytes: number) => JSON.stringify({ type: "Sale", payload: "x".repeat(bytes) });
  const input = `${event(1024 * 1024)}\n${event(1024 * 1024 + 1)}\n`;
  const { stderr, code } = await box.sync("record --store store-01 --input -", input);
  expect(stderr).toContain("payload has 1048577 bytes; at most 1048576 are allowed");
  expect(stderr).toContain("recorded 1 event, 1 refused\n");
  expect(code).toBe(2);
});

test("which store is asked for when it is not clear", async () => {
  using box = shop();
  const none = await box.sync("status");
  expect(none.stderr).toMatch(/^brewctl: there is no store yet; name one with --store\n/);
  expect(none.code).toBe(2);
  await box.sync("record --store b/../c --type Sale");
  await box.sync("record --store .. --type Sale");
  const two = await box.sync("status");
  expect(two.stderr).toMatch(/^brewctl: which store\? There are: \.\., b\/\.\.\/c\n/);
  expect(two.code).toBe(2);
  const unknown = await box.sync("status --store store-09");
  expect(unknown.stderr).toMatch(/^brewctl: store store-09 has no buffer here\n/);
  expect(unknown.code).toBe(2);
  expect((await box.sync("status --store ..")).stdout).toMatch(/^pending {3}1, /m);
});

test("a file of another store is refused", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale");
  const { stderr, code } = await box.sync(`status --store store-02 --buffer ${box.buffer}`);
  expect(stderr).toContain("is the buffer of store store-01, not of store-02\n");
  expect(code).toBe(73);
});

test("a file that is none of ours is refused, and stays as it is", async () => {
  using box = shop();
  mkdirSync(dirname(box.buffer), { recursive: true });
  writeFileSync(box.buffer, "my shopping list, which is longer than a header\n".repeat(50));
  const { stderr, code } = await box.sync("record --store store-01 --type Sale");
  expect(stderr).toContain("is no store buffer");
  expect(stderr).toContain("it stays as it is");
  expect(code).toBe(73);
  expect(readFileSync(box.buffer, "utf8")).toMatch(/^my shopping list/);
});

test("a file of a newer brewctl is refused, and stays as it is", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale");
  const sqlite = new DatabaseSync(box.buffer);
  sqlite.exec("PRAGMA user_version = 99");
  sqlite.close();
  const before = readFileSync(box.buffer);
  const { stderr, code } = await box.sync("record --type Sale");
  expect(stderr).toContain("was written by a newer brewctl (schema 99, this one knows 3)");
  expect(code).toBe(73);
  expect(readFileSync(box.buffer).equals(before)).toBe(true);
});

const saysSalvaged =
  /^the buffer was damaged: \d+ events could be read and go on; the file is kept as /m;

test("a damaged file is set aside, and what can be read goes on", async () => {
  using box = shop();
  await box.sync(
    "record --store store-01 --input -",
    Array.from({ length: 300 }, (_, i) => JSON.stringify({ type: "Sale", eventId: `e${i}` })).join(
      "\n",
    ),
  );
  const bytes = readFileSync(box.buffer);
  // A page in the middle, of events or of an index.
  bytes.fill(0xab, 5 * 4096, 6 * 4096);
  writeFileSync(box.buffer, bytes);
  writeFileSync(`${box.buffer}-suspect`, "");
  const { stdout, stderr, code } = await box.sync("status");
  expect(stderr).toMatch(saysSalvaged);
  expect(stdout).toMatch(/^WRONG +the buffer was damaged/m);
  expect(code).toBe(0);
  // The next opening finds the file whole.
  expect((await box.sync("events")).stderr).not.toMatch(saysSalvaged);
  expect((await box.sync("status --check")).code).toBe(5);
  expect((await box.sync("record --type Sale")).code).toBe(0);
});

test("a salvage that began long ago is told by the command that finishes it, and by no other", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale --event-id e1");
  const intention = { at: 1, owner: "store-01", setAside: `${box.buffer}.damaged-earlier` };
  writeFileSync(`${box.buffer}-salvaging`, `${JSON.stringify(intention)}\n`);
  const first = await box.sync("record --type Sale --event-id e2");
  expect(first.stderr.match(new RegExp(saysSalvaged, "gm"))).toHaveLength(1);
  expect(first.stderr).toContain("1 events could be read");
  expect(first.code).toBe(0);
  const second = await box.sync("record --type Sale --event-id e3");
  expect(second).toMatchObject({ stderr: expect.not.stringMatching(saysSalvaged), code: 0 });
});

test("a second drainer is told which process is the first", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale");
  await using cloud = await serve(["--memory"]);
  await using first = start(["store-sync", "channel", "--addr", cloud.addr], { env: box.env });
  await first.output(/^ACK: /m);
  const second = await box.sync(`flush --addr ${cloud.addr}`);
  expect(second.stderr).toMatch(
    /^brewctl: FAILED_PRECONDITION: another process, \d+, drains the buffer of store store-01\n/,
  );
  expect(second.code).toBe(73);
  expect((await box.sync("record --type Sale")).code).toBe(0);
  // Killed, it leaves no lock behind.
  first.child.kill("SIGKILL");
  await first.ended;
  expect((await box.sync(`flush --addr ${cloud.addr}`)).code).toBe(0);
});

test("flush without a cloud says that nothing is lost, and how to go on", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale");
  const { stderr, code } = await box.sync("flush --addr 127.0.0.1:1");
  expect(stderr).toContain("no server at 127.0.0.1:1\n");
  expect(stderr).toContain(
    "1 event stays pending on this disk; flush again, or with --deadline 10m",
  );
  expect(code).toBe(78);
});

test("flush with a deadline keeps trying, and leaves with 5 while something is pending", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale");
  const { stdout, stderr, code } = await box.sync("flush --addr 127.0.0.1:1 --deadline 300ms");
  expect(stdout).toBe("Upload complete — 0 accepted, 0 rejected\n");
  expect(stderr).toMatch(/^offline: no server at 127\.0\.0\.1:1; attempt 1 to reconnect in /);
  expect(stderr).toContain("--deadline 300ms: 1 pending\n");
  expect(code).toBe(5);
});

test("a conflict is parked, seen, and goes on under a new id", async () => {
  using box = shop();
  await using cloud = await serve(["--memory"]);
  await box.sync("record --store store-01 --type Sale --event-id x --payload 1");
  await box.sync(`flush --addr ${cloud.addr}`);
  // Another box of the same store, which took the same id for another sale.
  const other = box.folder.file("other.db");
  await box.sync(`record --store store-01 --buffer ${other} --type Sale --event-id x --payload 2`);
  const flushed = await box.sync(`flush --buffer ${other} --addr ${cloud.addr}`);
  expect(flushed.stdout).toContain("Upload complete — 0 accepted, 1 rejected (1 refused)\n");
  expect(flushed.stderr).toContain(
    "refused: x — event_id is taken by an event with another payload",
  );
  expect(flushed.stderr).toContain("1 parked (see: brewctl store-sync events --state parked");
  expect(flushed.code).toBe(5);
  const parked = await box.sync(`events --buffer ${other} --state parked`);
  expect(parked.stdout).toMatch(
    /^#1 parked {2}\[Sale\] x at .* — event_id is taken by .* \(1 refused\)\n$/,
  );
  const retried = await box.sync(`retry --buffer ${other} x --new-id`);
  expect(retried.stdout).toMatch(/^pending again: evt-/);
  expect((await box.sync(`flush --buffer ${other} --addr ${cloud.addr}`)).code).toBe(0);
});

test("retry of what is not parked says so, and changes nothing", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale --event-id x");
  const { stderr, code } = await box.sync("retry x");
  expect(stderr).toMatch(/^brewctl: NOT_FOUND: no parked event "x"\n/);
  expect(code).toBe(69);
  expect((await box.sync("retry --all")).stderr).toBe("0 events to be sent again\n");
});

test("replay sends again what was acknowledged: duplicates, if the cloud still has it", async () => {
  using box = shop();
  await using cloud = await serve(["--memory"]);
  await box.sync("record --store store-01 --type Sale");
  await box.sync(`flush --addr ${cloud.addr}`);
  expect((await box.sync("replay")).stdout).toBe("1 event to be sent again\n");
  const { stdout, stderr } = await box.sync(`flush --addr ${cloud.addr}`);
  expect(stdout).toContain("Upload complete — 0 accepted, 1 rejected (1 duplicate)\n");
  expect(stderr).toBe("everything recorded so far is in the cloud\n");
});

test("status as data", async () => {
  using box = shop();
  await box.sync("record --store store-01 --type Sale --timestamp 1700000000000");
  const { stdout } = await box.sync("status -o ndjson");
  expect(JSON.parse(stdout)).toMatchObject({
    ...{ storeId: "store-01", pending: 1, parked: 0, acked: 0, oldestUnacked: 1_700_000_000_000 },
    ...{ commandsApplied: 0, commandsParked: 0, wrong: [] },
  });
});

test("a full disk refuses to record, with 72, and keeps what is there", () => {
  using box = shop();
  mkdirSync(dirname(box.buffer), { recursive: true });
  const outbox = new Outbox({
    path: box.buffer,
    storeId: "store-01",
    now: () => 1,
    free: () => 1000,
  });
  expect(() => outbox.append([{ eventId: "x", type: "Sale", payload: "" }])).toThrow(
    expect.objectContaining({ code: "RESOURCE_EXHAUSTED" }),
  );
  expect(outbox.counts().pending).toBe(0);
  outbox.close();
});

test("into a pipe whose reader has gone, record goes on to the disk no further than it was told", async () => {
  using box = shop();
  const many = Array.from({ length: 5000 }, (_, i) =>
    JSON.stringify({ type: "Sale", eventId: `e${i}` }),
  );
  const script = `"$0" store-sync record --store store-01 --input "$1" | head -1`;
  const file = box.folder.file("many.ndjson");
  writeFileSync(file, many.join("\n"));
  const { stdout, stderr } = spawnSync("bash", ["-c", script, "bin/brewctl", file], {
    env: { ...process.env, ...box.env },
    encoding: "utf8",
  });
  expect(stdout).toBe("recorded [Sale] id=e0 seq=1\n");
  expect(stderr).not.toContain("fault");
  // Whatever was recorded is there, once, and recording the file again completes it.
  const { code } = await box.sync(`record --input ${file} -q`);
  expect(code).toBe(0);
  expect(JSON.parse((await box.sync("status -o ndjson")).stdout).pending).toBe(5000);
});
