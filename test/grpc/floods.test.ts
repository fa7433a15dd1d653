/**
 * Floods and bombs that the server withstands: it may close the connection or answer with any refusal,
 * but the process stays, its memory does not grow, and the next good call is answered.
 */

import { connect, type Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import {
  continuationFlood,
  type FloodOptions,
  hpackBomb,
  pingFlood,
  priorityFlood,
  rapidReset,
  settingsFlood,
  tlsHello,
} from "../support/attacks/floods.ts";
import { Peer, type Target } from "../support/attacks/peer.ts";
import { during, serveProbed, stillServes } from "../support/probed-server.ts";
import { frame } from "../support/raw-call.ts";

const megabyte = 1024 * 1024;

test.each<[string, (target: Target, options: FloodOptions) => ReturnType<typeof rapidReset>]>([
  ["streams that are reset at once", rapidReset],
  ["SETTINGS frames", settingsFlood],
  ["PING frames", pingFlood],
  ["PRIORITY frames", priorityFlood],
  ["CONTINUATION frames", continuationFlood],
  ["headers that HPACK makes long", hpackBomb],
])("a flood of %s costs its own connection at most", async (_, flood) => {
  await using server = await serveProbed();
  const before = await server.held();
  const { seen } = await during(
    (options) => flood(server, { count: 5_000, ...options }),
    () => server.mostHeld(),
  );
  expect(seen - before).toBeLessThan(30 * megabyte);
  await stillServes(server);
});

test("a TLS greeting is no HTTP/2, and connections that stop in theirs hold nobody up", async () => {
  await using server = await serveProbed();
  const begun = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM");
  const sockets: Socket[] = [];
  for (let i = 0; i < 60; i++) {
    const socket = connect(server.port, "127.0.0.1");
    socket.on("error", () => {}).resume();
    socket.write(i % 2 === 0 ? begun : tlsHello);
    sockets.push(socket);
  }
  try {
    await stillServes(server);
  } finally {
    for (const socket of sockets) {
      socket.destroy();
    }
  }
});

test("a small message that inflates to many megabytes is refused before it does", async () => {
  await using server = await serveProbed();
  using peer = new Peer(server);
  const before = await server.held();
  const bomb = frame(gzipSync(Buffer.alloc(64 * megabyte)), { flag: 1 });
  const headers = { "grpc-encoding": "gzip" };
  const answers = await Promise.all(
    Array.from(
      { length: 10 },
      () => peer.open(StreamingService.method.chat, { headers, body: bomb }).ended,
    ),
  );
  for (const { kind } of answers) {
    expect(["RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "INVALID_ARGUMENT"]).toContain(kind);
  }
  expect((await server.mostHeld()) - before).toBeLessThan(40 * megabyte);
  await stillServes(server);
});

test("a message in a message in a message, a hundred thousand times, is malformed", async () => {
  await using server = await serveProbed();
  using peer = new Peer(server);
  // Field 8, `more`, of a StoreEvent; the lengths are written from the inside out.
  const parts: Buffer[] = [];
  for (let depth = 0, length = 0; depth < 100_000; depth++) {
    const head = [0x42];
    let rest = length;
    for (; rest > 127; rest >>>= 7) {
      head.push((rest & 127) | 128);
    }
    head.push(rest);
    parts.push(Buffer.from(head));
    length += head.length;
  }
  const body = frame(Buffer.concat(parts.reverse()));
  const answers = [
    await peer.open(SyncEngine.method.uploadBufferedEvents, { body }).ended,
    await peer.open(SyncEngine.method.operationalChannel, { body }).ended,
  ];
  expect(answers.map(({ kind }) => kind)).toEqual(["INVALID_ARGUMENT", "INVALID_ARGUMENT"]);
  await stillServes(server);
});

test("the limits of an int64 are answered like any number that is out of bounds", async () => {
  await using server = await serveProbed();
  using peer = new Peer(server);
  const { uploadBufferedEvents, reportStatus } = SyncEngine.method;
  const event = { storeId: "store-01", type: "Sale", payload: "{}", epoch: "aaaaaaaaaaaaaaaa" };
  for (const number of [-1n, 2n ** 63n - 1n, -(2n ** 63n)]) {
    const eventId = `e${number}`;
    const answers = await Promise.all([
      peer.call(uploadBufferedEvents, { ...event, eventId, seq: number }),
      peer.call(uploadBufferedEvents, { ...event, eventId, timestamp: number }),
      peer.call(reportStatus, { storeId: "store-01", depth: number }),
      peer.call(HeadOffice.method.listEvents, { after: number }),
    ]);
    for (const { kind } of answers) {
      expect(["OK", "INVALID_ARGUMENT"]).toContain(kind);
    }
  }
  expect(server.stderr).not.toMatch(/^ERROR/m);
  await stillServes(server);
});
