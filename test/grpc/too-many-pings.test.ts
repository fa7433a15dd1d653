/** A server that allows fewer pings than we send: we send fewer, and say so. */

import { once } from "node:events";
import { constants, createServer, type ServerHttp2Session } from "node:http2";
import { expect, test } from "vitest";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { collect } from "../support/serve-handlers.ts";
import { loopback, never } from "../support/start-server.ts";

/** An HTTP/2 server that opens every call, says nothing more, and does not like the third ping. */
async function strictServer(maxPings = 3) {
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("error", () => {});
    let pings = 0;
    session.on("ping", () => {
      pings += 1;
      if (pings === maxPings) {
        session.goaway(
          constants.NGHTTP2_ENHANCE_YOUR_CALM,
          0,
          Buffer.from("too_many_pings", "ascii"),
        );
      }
    });
  });
  server.on("stream", (stream) => {
    stream.on("error", () => {});
    stream.respond({ ":status": 200, "content-type": "application/grpc" });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return {
    port: (server.address() as { port: number }).port,
    async [Symbol.asyncDispose]() {
      for (const session of sessions) {
        session.destroy();
      }
      server.close();
      await once(server, "close");
    },
  };
}

const ending = async (call: AsyncIterable<unknown>) => (await collect(call)).error;

test("each time the pings are too many they become half as many, and the call says so", async () => {
  await using server = await strictServer();
  const connection = dial(loopback(server.port), { isWatchful: true, keepaliveMs: 20 });
  try {
    const client = connection.client(StreamingService);
    for (const seconds of [0.04, 0.08, 0.16]) {
      await connection.ready({ signal: never });
      expect(await ending(client.subscribe({ limit: 1 }, { signal: never }))).toMatchObject({
        code: "UNAVAILABLE",
        message: `the server allows fewer pings; checking the link every ${seconds} s from now on`,
      });
    }
  } finally {
    connection.close();
  }
});

test("all calls of the connection say so, and none speaks of bandwidth", async () => {
  await using server = await strictServer();
  const connection = dial(loopback(server.port), { isWatchful: true, keepaliveMs: 20 });
  try {
    const client = connection.client(StreamingService);
    await connection.ready({ signal: never });
    const errors = await Promise.all(
      [1, 2, 3].map((limit) => ending(client.subscribe({ limit }, { signal: never }))),
    );
    for (const error of errors) {
      expect(error).toMatchObject({ message: expect.stringContaining("allows fewer pings") });
    }
  } finally {
    connection.close();
  }
});
