/**
 * What a hostile or broken peer can do to a real server: be refused, with a status that names the
 * limit. Nothing of it is kept, and the next good call is answered. `make soak` has the same attacks at
 * full size, with clocks.
 */

import { statSync } from "node:fs";
import { expect, test } from "vitest";
import { parseAddress } from "../../src/address.ts";
import { BridgeApi } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { type Answers, unanswered } from "../support/attacks/answers.ts";
import {
  byteFrames,
  gzipStreams,
  halfMessages,
  unreadChats,
  unreadEvents,
} from "../support/attacks/messages.ts";
import { Peer } from "../support/attacks/peer.ts";
import {
  digests,
  emptyEvents,
  farSeqs,
  impossibleCursors,
  inventedStores,
  inventedWatches,
  longStoreNames,
  wideCommand,
} from "../support/attacks/stores.ts";
import {
  idleSubscribes,
  idleTills,
  instantDeadlines,
  silentConnections,
} from "../support/attacks/streams.ts";
import { serve, start } from "../support/brewctl.ts";
import { answersTo, during, portOf, serveProbed, stillServes } from "../support/probed-server.ts";
import { collect } from "../support/serve-handlers.ts";
import { loopback, never } from "../support/start-server.ts";
import { closedPort, tempFolder } from "../support/temp.ts";

const megabyte = 1024 * 1024;

/** Checks that `count` calls were refused with a status for it, whose message has the limit in it. */
function expectRefused(answers: Answers, count: number): void {
  const { RESOURCE_EXHAUSTED: exhausted = "", INVALID_ARGUMENT: invalid = "" } = answers.messages;
  const refused = answers.of("RESOURCE_EXHAUSTED") + answers.of("INVALID_ARGUMENT");
  expect(answers).toSatisfy(() => refused >= count);
  expect(exhausted + invalid).toMatch(/\d/);
}

const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

test("a cursor that no store can have is refused, and the event loop goes on", async () => {
  await using server = await serveProbed();
  const answers = await answersTo((options) => impossibleCursors(server, options));
  expectRefused(answers, 3);
  await stillServes(server);
});

test("a seq that is too far is refused, and stores are listed also after a restart", async () => {
  using folder = tempFolder();
  const args = ["--data-dir", folder.file("ledger")];
  for (const round of ["first", "after a restart"]) {
    await using server = await serve(args);
    const answers = await answersTo((options) => farSeqs({ port: portOf(server.addr) }, options));
    expect({ round, ...answers.counts }).toEqual({ round, OK: 2 });
    const connection = dial(parseAddress(server.addr));
    const listed = connection.client(HeadOffice).listEvents({}, { signal: never });
    const { messages, error } = await collect(listed);
    connection.close();
    expect(error).toBeUndefined();
    expect(messages).toEqual([]);
  }
});

test("a store may have so many epochs, and no more", async () => {
  await using server = await serveProbed();
  const connection = dial(parseAddress(server.addr));
  const events = (async function* () {
    for (let i = 0; i < 1_100; i++) {
      yield {
        ...{ storeId: "store-01", eventId: `e-${i}`, type: "Sale", payload: "{}" },
        ...{ epoch: `epoch-${i}`, seq: 1n },
      };
    }
  })();
  const summary = await connection.client(SyncEngine).uploadBufferedEvents(events, {
    signal: never,
  });
  connection.close();
  expect(summary.refused).toBeGreaterThan(0);
  expect(summary.accepted).toBeGreaterThan(100);
  expect(summary.refusals[0]?.reason).toMatch(/epochs?.*\d|\d.*epochs?/);
  await stillServes(server);
});

test("a large command to many stores does not take the disk", async () => {
  await using server = await serveProbed();
  const answers = await answersTo((options) => wideCommand(server, options));
  if (answers.of("OK") === 0) {
    expectRefused(answers, 1);
  }
  const ledger = server.folder.file("ledger/ledger.db");
  expect(sizeOf(ledger) + sizeOf(`${ledger}-wal`)).toBeLessThan(50 * megabyte);
  await stillServes(server);
});

test("a message in frames of one byte costs about as much memory as its bytes", async () => {
  await using server = await serveProbed();
  const before = await server.held();
  const bytes = 200_000;
  const attack = await during(
    (options) => byteFrames(server, { bytes, ...options }),
    () => server.mostHeld(),
  );
  expect(attack.seen - before).toBeLessThan(30 * bytes);
  await stillServes(server);
});

test("compressed messages take no more memory than their budget", async () => {
  await using server = await serveProbed();
  const before = await server.held();
  const { seen } = await during(
    (options) => gzipStreams(server, { streams: 60, bytes: megabyte, ...options }),
    () => server.mostHeld(),
  );
  expect(seen - before).toBeLessThan(100 * megabyte);
  await stillServes(server);
});

test("half messages take no more memory than their budget, which the refusals name", async () => {
  await using server = await serveProbed();
  const before = await server.held();
  const { answers, seen } = await during(
    (options) => halfMessages(server, { streams: 95, ...options }),
    () => server.mostHeld(),
  );
  // Of 380 MiB the connection may keep 64, and what is sent meanwhile passes through.
  expect(seen - before).toBeLessThan(200 * megabyte);
  expectRefused(answers, 1);
  await stillServes(server);
});

test("chats whose echoes nobody reads take no more memory than their budget", async () => {
  await using server = await serveProbed();
  const before = await server.held();
  const { seen } = await during(
    (options) => unreadChats(server, { chats: 80, bytes: megabyte, ...options }),
    () => server.mostHeld(),
  );
  expect(seen - before).toBeLessThan(100 * megabyte);
  await stillServes(server);
});

test("streams beyond those that a connection may have are refused", async () => {
  await using server = await serveProbed();
  const { answers } = await during(
    (options) => idleSubscribes(server, { streams: 300, ...options }),
    () => stillServes(server),
  );
  // REFUSED_STREAM is 7: the client may try again elsewhere.
  expect(answers.of("RST_STREAM 7")).toBeGreaterThan(0);
  await stillServes(server);
});

test("readers that do not read large events cost a page each, and a page has its size", async () => {
  await using server = await serveProbed();
  const before = await server.held();
  const { seen } = await during(
    (options) => unreadEvents(server, { events: 10, readers: 6, ...options }),
    () => server.mostHeld(),
  );
  expect(seen - before).toBeLessThan(60 * megabyte);
  await stillServes(server);
});

test("a store's name in the metadata has the bounds of any store's name", async () => {
  await using server = await serveProbed();
  const answers = await answersTo((options) =>
    longStoreNames(server, { calls: 3, bundles: 3, ...options }),
  );
  expectRefused(answers, 3);
  expect(server.stderr.length).toBeLessThan(20_000);
  await stillServes(server);
});

test("refused events are logged a few times a call, and then counted", async () => {
  await using server = await serveProbed();
  const answers = await answersTo((options) => emptyEvents(server, { events: 3_000, ...options }));
  expect(answers.counts).toEqual({ OK: 1 });
  await server.output(/^flush ended.*refused=3000$/m);
  expect(server.stderr.match(/^WARN /gm)?.length).toBeLessThan(50);
  await stillServes(server);
});

test("stores cannot be invented without end, and a command for all stores still goes", async () => {
  await using server = await serveProbed();
  const answers = await answersTo((options) =>
    inventedStores(server, { stores: 20_000, ...options }),
  );
  expectRefused(answers, 1);
  using peer = new Peer(server);
  const one = { allStores: true, type: "PriceUpdate", payloadJson: "{}" };
  const first = { ...one, allStores: false, storeIds: ["store-01"] };
  expect([
    (await peer.call(HeadOffice.method.issueCommand, first)).kind,
    (await peer.call(SyncEngine.method.reportStatus, { storeId: "store-01" })).kind,
    (await peer.call(HeadOffice.method.issueCommand, one)).kind,
  ]).toEqual(["OK", "OK", "OK"]);
  await stillServes(server);
});

test("watches of invented stores are refused beyond what a connection may have", async () => {
  await using server = await serveProbed();
  const { answers } = await during(
    (options) => inventedWatches(server, { stores: 300, ...options }),
    () => stillServes(server),
  );
  // A client that obeys the limit on streams waits with the rest: no more are open than allowed.
  expect(answers.of(unanswered)).toBeLessThanOrEqual(300);
  expect(server.stderr.match(/^Store watched-\d+ connected/gm)?.length).toBeLessThan(200);
});

test("tills that say nothing have a share of the streams, and others their own", async () => {
  using folder = tempFolder();
  await using bridge = start([
    ...["store-sync", "run", "--store", "store-01", "--buffer", folder.file("buffer.db")],
    ...["--addr", `127.0.0.1:${await closedPort()}`, "--listen", "127.0.0.1:0"],
  ]);
  const [, port] = await bridge.output(/listen=127\.0\.0\.1:(\d+)/);
  const target = { port: Number(port) };
  const sale = { eventId: "till-1", type: "Sale", payload: "{}" };
  await during(
    (options) => idleTills(target, { streams: 150, ...options }),
    async () => {
      using peer = new Peer(target);
      expect(await peer.call(BridgeApi.method.recordEvent, sale)).toMatchObject({ kind: "OK" });
      // One connection has no more than a hundred calls, whatever it asks for.
      const connection = dial(loopback(target.port));
      const { tills } = await connection.client(BridgeApi).bridgeStatus({}, { signal: never });
      connection.close();
      expect(tills).toBeLessThanOrEqual(100);
    },
  );
  expect(bridge.child.exitCode).toBeNull();
});

test("digests are read a few at once, and more are refused", async () => {
  await using server = await serveProbed();
  const answers = await answersTo((options) =>
    digests(server, { calls: 20, cells: 1_000, ...options }),
  );
  expect(answers.of("OK")).toBeGreaterThan(0);
  expectRefused(answers, 1);
  await stillServes(server);
});

test("calls whose deadline has passed when they come are ended as such", async () => {
  await using server = await serveProbed();
  const answers = await answersTo((options) =>
    instantDeadlines(server, { calls: 500, ...options }),
  );
  expect(answers.counts).toEqual({ DEADLINE_EXCEEDED: 500 });
  await stillServes(server);
});

test("a server that has no file left for a connection says so in its log", {
  timeout: 15_000,
}, async () => {
  // A server needs about forty files of its own.
  const fewFiles = ["sh", "-c", 'ulimit -n 100; exec "$@"', "sh"];
  await using server = await serveProbed([], { under: fewFiles });
  await during(
    (options) => silentConnections(server, { connections: 150, ...options }),
    () => server.output(/^(WARN|ERROR) .*(connection|open files).*\d/im),
  );
  await stillServes(server);
});
