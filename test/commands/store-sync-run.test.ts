/** `brewctl store-sync run`, the real program: a shop's day, and what it does when things go wrong. */

import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { parseAddress } from "../../src/address.ts";
import { StatusError } from "../../src/errors.ts";
import { BridgeApi } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { implement } from "../../src/grpc/serve.ts";
import { bridgeApiBounds } from "../../src/server/bounds.ts";
import { brewctl, start } from "../support/brewctl.ts";
import { idsOf } from "../support/oracle.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect, serveHandlers } from "../support/serve-handlers.ts";
import { lineOf, shop } from "../support/shop.ts";
import { never, serveImplementations } from "../support/start-server.ts";
import { closedPort, muteServer } from "../support/temp.ts";

/** The ids in the cloud's ledger, in order. */
async function ledgerOf({ office }: TestCloud): Promise<string[]> {
  const { messages } = await collect(office.listEvents({}, { signal: never }));
  return messages.map(({ eventId }) => eventId);
}

/** Resolves when so many events are in the ledger. */
async function inLedger({ office }: TestCloud, count: number): Promise<void> {
  let seen = 0;
  for await (const _ of office.listEvents({ follow: true }, { signal: never })) {
    seen += 1;
    if (seen === count) {
      return;
    }
  }
}

const addr = ({ port }: TestCloud) => ["--addr", `127.0.0.1:${port}`];
/** A cloud that is not there. */
const away = async () => ["--addr", `127.0.0.1:${await closedPort()}`];

async function statusAt(bridge: string) {
  const connection = dial(parseAddress(bridge));
  try {
    return await connection.client(BridgeApi).bridgeStatus({}, { signal: never });
  } finally {
    connection.close();
  }
}

/** Asks until it is so. */
async function statusUntil(
  bridge: string,
  is: (status: Awaited<ReturnType<typeof statusAt>>) => boolean,
) {
  for (;;) {
    const status = await statusAt(bridge);
    if (is(status)) {
      return status;
    }
  }
}

test("tills record over TCP and a unix socket, and the cloud has each event once", async () => {
  using box = shop();
  await using cloud = await serveCloud();
  const socket = `unix:${box.folder.file("tills.sock")}`;
  await using bridge = await box.run([
    ...[...addr(cloud), "--listen", "127.0.0.1:0", "--listen", socket],
  ]);
  expect(bridge.stderr).toMatch(
    new RegExp(`^store-bridge started store=store-01 listen=127.0.0.1:\\d+,${socket} cloud=127`),
  );
  const [one, two, three] = await Promise.all([
    box.record(bridge.bridge, idsOf("tcp", 50)),
    box.record(socket, idsOf("unix", 50)),
    box.sync(`record --bridge ${socket} --type Sale --event-id single --payload 1`),
  ]);
  expect([one.stderr, two.stderr, three.stderr]).toEqual(["", "", ""]);
  expect(one.stdout.split("\n")[0]).toMatch(/^recorded \[Sale\] id=tcp-1 seq=\d+$/);
  expect(three.stdout).toMatch(/^recorded \[Sale\] id=single seq=\d+\n$/);
  await inLedger(cloud, 101);
  expect((await ledgerOf(cloud)).sort()).toEqual(
    [...idsOf("tcp", 50), ...idsOf("unix", 50), "single"].sort(),
  );
  const { code, signal, stdout, stderr } = await bridge.stop();
  expect({ code, signal, stdout }).toEqual({ code: 0, signal: null, stdout: "" });
  expect(stderr).toMatch(/graceful stop\nstore-bridge stopped pending=0 parked=0\n$/);
  // The socket's file is gone with it.
  expect(existsSync(box.folder.file("tills.sock"))).toBe(false);
});

test("a till is told what is wrong with its event, and repeats what it likes", async () => {
  using box = shop();
  await using bridge = await box.run(await away());
  const at = `record --bridge ${bridge.bridge} --type Sale --event-id a`;
  expect((await box.sync(`${at} --payload 1`)).stdout).toBe("recorded [Sale] id=a seq=1\n");
  const again = await box.sync(`${at} --payload 1 -o ndjson`);
  expect(JSON.parse(again.stdout)).toMatchObject({ eventId: "a", seq: 1, duplicate: true });
  const other = await box.sync(`${at} --payload 2`);
  expect(other.code).toBe(70);
  expect(other.stderr).toMatch(
    /^brewctl: ALREADY_EXISTS: event "a" is recorded already, with anoth/,
  );
  const wrongStore = await box.sync(
    `record --bridge ${bridge.bridge} --store store-02 --type Sale`,
  );
  expect(wrongStore.code).toBe(71);
  expect(wrongStore.stderr).toBe(
    "brewctl: PERMISSION_DENIED: this is the bridge of store store-01, not of store-02\n",
  );
  const lines = `${lineOf("b")}\n{"type":""}\nno json\n{"type":"Sale","eventId":"a"}\n${lineOf("c")}\n`;
  const stream = await box.sync(`record --bridge ${bridge.bridge} --input -`, lines);
  expect(stream.code).toBe(2);
  expect(stream.stdout).toBe("recorded [Sale] id=b seq=2\nrecorded [Sale] id=c seq=3\n");
  expect(stream.stderr.split("\n").sort()).toEqual([
    "",
    '  expected {"type": "Sale", "payload": {"total": 299}}',
    expect.stringMatching(/^brewctl: stdin:2: event ".*": type is empty$/),
    expect.stringMatching(/^brewctl: stdin:3: not JSON/),
    expect.stringMatching(/^brewctl: stdin:4: event "a" is recorded already, with another payload/),
    "recorded 2 events, 3 refused",
  ]);
});

test("a till without a bridge is told how to get one, and what to do with a lost answer", async () => {
  using box = shop();
  const port = await closedPort();
  const none = await box.sync(`record --bridge 127.0.0.1:${port} --type Sale`);
  expect(none.code).toBe(78);
  expect(none.stderr).toBe(
    `brewctl: UNAVAILABLE: no bridge at 127.0.0.1:${port}\n  start it with: brewctl store-sync run; or record into its file, without --bridge\n`,
  );
  await using mute = await serveHandlers({});
  const foreign = await box.sync(`record --bridge 127.0.0.1:${mute.port} --type Sale`);
  expect(foreign.code).toBe(76);
});

test("without the cloud everything is recorded, and goes up when it is there", async () => {
  using box = shop();
  using data = shop();
  const dataDir = data.folder.file("cloud");
  const port = await closedPort();
  await using bridge = await box.run(["--addr", `127.0.0.1:${port}`]);
  await box.record(bridge.bridge, idsOf("a", 10));
  await bridge.output(/WARN offline why="no server at 127\.0\.0\.1:\d+" attempt=1/);
  expect(await statusAt(bridge.bridge)).toMatchObject({ storeId: "store-01", pending: 10n });
  {
    await using cloud = await serveCloud({ dataDir, port });
    await inLedger(cloud, 10);
    await bridge.output(/^connected again$/m);
    await statusUntil(bridge.bridge, ({ link, pending }) => link === "live" && pending === 0n);
  }
  // Away again, and back.
  await box.record(bridge.bridge, idsOf("b", 10));
  const { why } = await statusUntil(bridge.bridge, ({ link }) => link === "offline");
  expect(why).not.toBe("");
  await using cloud = await serveCloud({ dataDir, port });
  await inLedger(cloud, 20);
  expect((await bridge.stop()).code).toBe(0);
  expect((await ledgerOf(cloud)).sort()).toEqual([...idsOf("a", 10), ...idsOf("b", 10)].sort());
});

test("what is recorded into the file beside it goes up too", async () => {
  using box = shop();
  await using cloud = await serveCloud();
  await using bridge = await box.run(addr(cloud));
  const [direct] = await Promise.all([
    box.sync(
      "record --input - -q",
      idsOf("direct", 30)
        .map((id) => `${lineOf(id)}\n`)
        .join(""),
    ),
    box.record(bridge.bridge, idsOf("till", 30)),
  ]);
  expect(direct.code).toBe(0);
  await inLedger(cloud, 60);
  const status = await box.sync("status -o ndjson");
  expect(JSON.parse(status.stdout)).toMatchObject({ parked: 0 });
});

test.each(["SIGTERM", "SIGINT"] as const)(
  "%s lets what is pending go up, and exits with 0",
  async (signal) => {
    using box = shop();
    await using cloud = await serveCloud({ faults: { latencyMs: 300 } });
    await using bridge = await box.run([...addr(cloud), "--grace", "20s"]);
    await bridge.output(/^live: /m);
    await box.record(bridge.bridge, idsOf("a", 20));
    const { code, stderr } = await bridge.stop(signal);
    expect(code).toBe(0);
    expect(stderr).toMatch(/store-bridge stopped pending=0 parked=0\n$/);
    expect(await ledgerOf(cloud)).toHaveLength(20);
  },
);

test("a stop without the cloud takes no grace", async () => {
  using box = shop();
  await using bridge = await box.run([...(await away()), "--grace", "10m"]);
  await box.record(bridge.bridge, idsOf("a", 3));
  await bridge.output(/WARN offline/);
  const { code, stderr } = await bridge.stop();
  expect(code).toBe(0);
  expect(stderr).toMatch(/store-bridge stopped pending=3 parked=0\n$/);
});

test("a cloud that takes nothing costs a stop no more than its grace, and a second Ctrl+C less", async () => {
  using box = shop();
  // Long enough to be no answer.
  await using cloud = await serveCloud({ faults: { latencyMs: 600_000 } });
  await using bridge = await box.run([...addr(cloud), "--grace", "300ms"]);
  await bridge.output(/^live: /m);
  await box.record(bridge.bridge, ["a"]);
  const { code, stderr } = await bridge.stop();
  expect(code).toBe(0);
  expect(stderr).toMatch(/store-bridge stopped pending=1 parked=0\n$/);
  await using again = await box.run([...addr(cloud), "--grace", "10m"]);
  await again.output(/store-bridge started/);
  await statusUntil(again.bridge, ({ link }) => link === "replaying");
  again.child.kill("SIGINT");
  await again.output(/^graceful stop$/m);
  const second = await again.stop("SIGINT");
  expect(second.code).toBe(0);
});

test("a second bridge of the same store is told which process is the first, and leaves it alone", async () => {
  using box = shop();
  await using bridge = await box.run(await away());
  const second = await box.sync("run --listen 127.0.0.1:0");
  expect(second.code).toBe(73);
  expect(second.stderr).toBe(
    `brewctl: FAILED_PRECONDITION: another process, ${bridge.child.pid}, drains the buffer of store store-01\n` +
      "  one drainer at a time; recording and looking are free to all\n",
  );
  expect((await box.record(bridge.bridge, ["a"])).code).toBe(0);
});

test("a port that is taken is exit 2, and the buffer is free again", async () => {
  using box = shop();
  await using other = await muteServer();
  const { code, stderr } = await box.sync(`run --listen ${other.addr}`);
  expect(code).toBe(2);
  expect(stderr).toBe(
    `brewctl: cannot listen on ${other.addr}: it is already in use\n` +
      "  stop the other server, or choose another port with --listen, such as --listen localhost:0 for any free one\n",
  );
  await using bridge = await box.run(await away());
  expect((await bridge.stop()).code).toBe(0);
});

test("the same address twice is refused like one that is taken", async () => {
  using box = shop();
  const at = `127.0.0.1:${await closedPort()}`;
  const { code, stderr } = await box.sync(`run --listen ${at} --listen ${at}`);
  expect(code).toBe(2);
  expect(stderr).toContain(`cannot listen on ${at}: it is already in use`);
});

test.each<[string, RegExp]>([
  [
    "run --listen nonsense",
    /'--listen <address>' argument 'nonsense' is invalid\. expected host:port/,
  ],
  ["run --listen unix:", /expected the path of a socket after unix:/],
  ["run --listen unix:/no/such/folder/tills.sock", /cannot listen on unix:\/no\/such\/folder\/til/],
  ["run --grace 5", /'--grace <duration>' argument '5' is invalid\. expected a duration such as/],
  ["run --grace -1s", /--grace/],
  ["run --exec-attempts 0", /expected a whole number from 1 to/],
  ["run --exec-timeout 0", /expected a duration of more than 0/],
  ["run --exec=", /'--exec <command>' argument '' is invalid\. expected something/],
  ["run --addr localhost:0", /expected the port that the server listens on, not 0/],
  ["run --log-format xml", /Allowed choices are text, json/],
  ["run --buffer :memory:", /'--buffer <file>' argument ':memory:' is invalid\. expected the path/],
  ["record --type Sale --buffer file:a.db", /argument 'file:a\.db' is invalid\. expected the path/],
  ["run --colour", /unknown option '--colour'/],
  ["run now", /too many arguments|unexpected/i],
  [
    "record --bridge localhost:0 --type Sale",
    /expected the port that the server listens on, not 0/,
  ],
  ["record --bridge x:1 --buffer f --type Sale", /'--bridge <address>' cannot be used with option/],
  ["record --bridge x:1", /^brewctl: what happened\? Say so with --type, or give --input\n/],
])("%s is refused with 2, before anything is made", async (line, why) => {
  using box = shop();
  const { code, stderr, stdout } = await box.sync(line);
  expect(stderr).toMatch(why);
  expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
});

test("which store is asked for when it is not clear", async () => {
  using box = shop();
  const env = { ...box.env, BREWCTL_STORE: "" };
  const none = await brewctl(["store-sync", "run"], { env });
  expect(none.code).toBe(2);
  expect(none.stderr).toMatch(/^brewctl: there is no store yet; name one with --store\n/);
  const other = await brewctl(["store-sync", "run", "--buffer", box.folder.file("none.db")], {
    env,
  });
  expect(other.code).toBe(2);
  expect(other.stderr).toMatch(/no such file/);
});

test("the log as JSON is one object a line, from the first to the last", async () => {
  using box = shop();
  await using cloud = await serveCloud();
  await using bridge = await box.run([
    ...addr(cloud),
    "--log-format",
    "json",
    "--log-level",
    "debug",
  ]);
  await box.record(bridge.bridge, ["a"]);
  await bridge.output(/ACK: a/);
  const { stderr } = await bridge.stop();
  const lines = stderr
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines[0]).toMatchObject({ level: "info", msg: "store-bridge started", store: "store-01" });
  expect(lines.at(-1)).toMatchObject({ msg: "store-bridge stopped", pending: 0, parked: 0 });
});

test("a server that is no cloud costs no till its port, is said once, and no stop waits for it", async () => {
  using box = shop();
  await using other = await serveHandlers({});
  await using bridge = await box.run(["--addr", `127.0.0.1:${other.port}`, "--grace", "10m"]);
  await bridge.output(/^ERROR events: .*again_in=30s/m);
  await bridge.output(/^ERROR commands: .*again_in=30s/m);
  expect((await box.record(bridge.bridge, ["a"])).code).toBe(0);
  const status = await statusAt(bridge.bridge);
  expect(status).toMatchObject({ link: "offline", pending: 1n });
  expect(status.why).not.toBe("");
  expect((await bridge.stop()).code).toBe(0);
});

test("a buffer that is damaged is set aside at the start, and tills go on", async () => {
  using box = shop();
  {
    await using bridge = await box.run(await away());
    await box.record(bridge.bridge, idsOf("a", 200));
    await bridge.stop();
  }
  const bytes = readFileSync(box.buffer);
  // A page in the middle, of events or of an index.
  writeFileSync(box.buffer, bytes.fill(0xab, 5 * 4096, 6 * 4096));
  writeFileSync(`${box.buffer}-suspect`, "");
  await using bridge = await box.run([...(await away()), "--log-format", "json"]);
  await bridge.output(/"msg":"the buffer was damaged: \d+ events could be read and go on; the/);
  const { alarms } = await statusAt(bridge.bridge);
  expect(alarms).toEqual([expect.stringMatching(/^the buffer was damaged: /)]);
  expect((await box.record(bridge.bridge, ["after"])).code).toBe(0);
  const { code, stderr } = await bridge.stop();
  expect(code).toBe(0);
  // Said by the log alone.
  expect(
    stderr
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line).level),
  ).toContain("warn");
});

test("damage that is met while it runs ends it with 79, and the next start salvages", async () => {
  using box = shop();
  await using bridge = await box.run(await away());
  await box.record(bridge.bridge, idsOf("a", 20));
  // All pages but those of the last change, which makes the bridge read them again.
  const database = new DatabaseSync(box.buffer);
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.exec("UPDATE outbox SET drainer_pid = drainer_pid + 0");
  const bytes = readFileSync(box.buffer);
  writeFileSync(box.buffer, bytes.fill(0xab, 4096));
  database.close();
  await box.record(bridge.bridge, ["b"]);
  const { code, stderr } = await bridge.ended;
  expect(code).toBe(79);
  expect(stderr).toMatch(/brewctl: DATA_LOSS: .* is damaged/);
  await using next = await box.run(await away());
  await next.output(/^WARN the buffer was damaged: /m);
  expect((await box.record(next.bridge, ["c"])).code).toBe(0);
});

test("kill -9 and a new start: nothing is lost or doubled, and a stale socket is no hindrance", async () => {
  using box = shop();
  await using cloud = await serveCloud();
  const socket = `unix:${box.folder.file("tills.sock")}`;
  const listen = ["--listen", socket];
  {
    await using bridge = await box.run([...(await away()), ...listen]);
    await box.record(socket, idsOf("a", 100));
    await bridge.stop("SIGKILL");
    expect(existsSync(box.folder.file("tills.sock"))).toBe(true);
  }
  await using bridge = await box.run([...addr(cloud), ...listen]);
  await box.record(socket, idsOf("a", 120));
  await inLedger(cloud, 120);
  await bridge.stop();
  expect((await ledgerOf(cloud)).sort()).toEqual(idsOf("a", 120).sort());
});

test("a till hears which events have no answer, and that it may repeat them", async () => {
  using box = shop();
  const lost = new StatusError("UNAVAILABLE", "the bridge has died");
  const second = { came: () => {} };
  await using bridge = await serveImplementations(
    implement(
      BridgeApi,
      {
        async recordEvent({ eventId }, { signal }) {
          if (eventId === "waits") {
            second.came();
            await once(signal, "abort");
          }
          throw lost;
        },
        async *recordEvents(events) {
          const ids: string[] = [];
          for await (const { eventId } of events) {
            ids.push(eventId);
            if (ids.length === 1) {
              yield { eventId, seq: 1n };
            }
            if (eventId === "last") {
              return;
            }
            if (ids.length === 2) {
              second.came();
            }
            if (ids.length === 3) {
              throw lost;
            }
          }
        },
        async bridgeStatus() {
          return {};
        },
      },
      { bounds: bridgeApiBounds },
    ),
  );
  const at = `record --bridge 127.0.0.1:${bridge.port}`;
  const lines = (...ids: string[]) => ids.map((id) => `${lineOf(id)}\n`).join("");
  const stream = await box.sync(`${at} --input -`, lines("a", "b", "c"));
  expect(stream.stdout).toBe("recorded [Sale] id=a seq=1\n");
  expect(stream.stderr).toBe(
    "recorded 1 event\n" +
      "sent 3, 1 answered, 2 without an answer, which may or may not be recorded\n" +
      "  record them again, from stdin:2 on; this is safe for lines that have an eventId\n" +
      "brewctl: UNAVAILABLE: the bridge has died\n",
  );
  expect(stream.code).toBe(78);
  // One that says OK and owes an answer is no better.
  const early = await box.sync(`${at} --input -`, lines("a", "last"));
  expect(early.stderr).toContain("sent 2, 1 answered, 1 without an answer");
  expect(early.stderr).toContain(
    "brewctl: INTERNAL: the bridge ended the stream before it was over\n",
  );
  expect(early.code).toBe(77);
  // Also where it is Ctrl+C that ends the waiting, and talk is not wanted.
  await using waiting = start(["store-sync", ...at.split(" "), "--input", "-", "-q"], {
    env: box.env,
    openStdin: true,
  });
  const isSent = new Promise<void>((resolve) => {
    second.came = resolve;
  });
  waiting.child.stdin?.write(lines("a", "b"));
  await Promise.all([waiting.output(/^recorded \[Sale\] id=a seq=1$/m), isSent]);
  waiting.child.kill("SIGINT");
  expect((await waiting.ended).stderr).toMatch(
    /^recorded 1 event\nsent 2, 1 answered, 1 without an answer, .*\n {2}record them again, from stdin:2 on/,
  );
  await using alone = start(
    ["store-sync", ...at.split(" "), "--type", "Sale", "--event-id", "waits", "-q"],
    { env: box.env },
  );
  await new Promise<void>((resolve) => {
    second.came = resolve;
  });
  alone.child.kill("SIGINT");
  expect((await alone.ended).stderr).toMatch(/^brewctl: event waits has no answer and may or may/);
  // An id that we have made up must be told, or it could not be used again.
  const single = await box.sync(`${at} --type Sale`);
  expect(single.stderr).toMatch(
    /^ {2}event evt-[0-9a-f-]{36} has no answer and may or may not be re/m,
  );
  expect(single.code).toBe(78);
});

test("the cloud that is killed in the middle of a drain", async () => {
  using box = shop();
  const dataDir = box.folder.file("cloud");
  const port = await closedPort();
  await using bridge = await box.run(["--addr", `127.0.0.1:${port}`]);
  await box.record(bridge.bridge, idsOf("a", 3000));
  {
    await using first = start(["serve", "--addr", `127.0.0.1:${port}`, "--data-dir", dataDir]);
    await first.output(/^streaming-server started/m);
    await statusUntil(bridge.bridge, ({ pending }) => pending < 3000n);
    first.child.kill("SIGKILL");
    await first.ended;
  }
  await using cloud = await serveCloud({ dataDir, port });
  await inLedger(cloud, 3000);
  await bridge.stop();
  expect((await ledgerOf(cloud)).sort()).toEqual(idsOf("a", 3000).sort());
});
