/** What a stop waits for, and what it does not. */

import { once } from "node:events";
import { connect } from "node:net";
import { toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { SubscribeRequestSchema } from "../../src/gen/orders/v1/streaming_pb.ts";
import { frame, rawClient } from "../support/raw-call.ts";
import { never, serveLesson } from "../support/start-server.ts";

/** A grace that no test lives to see the end of. */
const graceMs = 600_000;

test("a connection without a call does not hold up a stop", async () => {
  await using server = await serveLesson();
  const silent = connect(server.port, "127.0.0.1").on("error", () => {});
  await once(silent, "connect");
  await using half = rawClient(server.port);
  await once(half.session, "remoteSettings");
  await server.server.stop({ graceMs, force: never });
  silent.destroy();
});

test("a stream whose request comes during the stop is ended, not begun", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const stream = client.open("/orders.v1.StreamingService/Subscribe");
  await once(client.session, "remoteSettings");
  // The server has the headers when it answers a ping sent after them.
  await new Promise((resolve) => client.session.ping(resolve));
  const stopped = server.server.stop({ graceMs, force: never });
  stream.resume();
  const closed = once(stream, "close");
  const request = toBinary(SubscribeRequestSchema, {
    $typeName: "orders.v1.SubscribeRequest",
    customerId: "",
    limit: 0,
  });
  stream.end(frame(request));
  await closed;
  await stopped;
  expect(server.log.lines).toEqual([]);
});
