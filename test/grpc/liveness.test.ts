/** A watched connection that is slow or far is told from one that is dead. */

import { performance } from "node:perf_hooks";
import { expect, test } from "vitest";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { PathTimes } from "../../src/grpc/liveness.ts";
import { cutWire } from "../support/cut-wire.ts";
import { chat, collect, each, failure, order, serveHandlers } from "../support/serve-handlers.ts";
import { loopback, never } from "../support/start-server.ts";

/** A client of a chat that echoes and of an upload that counts, which pings after a short silence. */
async function watched() {
  const server = await serveHandlers({
    async *chat(messages) {
      for await (const message of messages) {
        yield message;
      }
    },
    async uploadOrders(orders) {
      let accepted = 0;
      for await (const _ of orders) {
        accepted += 1;
      }
      return { accepted };
    },
  });
  const wire = await cutWire(server.port);
  const connection = dial(loopback(wire.port), { isWatchful: true, keepaliveMs: 100 });
  return {
    ...{ wire, connection, client: connection.client(StreamingService) },
    async [Symbol.asyncDispose]() {
      connection.close();
      await wire[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

test("a server that answers a ping after more than three seconds is not taken for dead", async () => {
  await using far = await watched();
  far.wire.delay(1_800);
  await far.connection.ready({ signal: never });
  const { messages, error } = await collect(
    far.client.chat(each([chat("hello")]), { signal: never }),
  );
  expect(error).toBeUndefined();
  expect(messages).toHaveLength(1);
  expect(far.connection.roundTripMs).toBeGreaterThan(1_800);
});

test("a slow line on which a ping waits behind data for seconds is not taken for dead", async () => {
  await using slow = await watched();
  await slow.connection.ready({ signal: never });
  slow.wire.rate(16_000);
  const other = dial(loopback(slow.wire.port), { isWatchful: true, keepaliveMs: 100 });
  try {
    const client = other.client(StreamingService);
    const large = order("x".repeat(90_000));
    expect(await client.uploadOrders(each([large]), { signal: never })).toMatchObject({
      accepted: 1,
    });
  } finally {
    other.close();
  }
});

test("a connection that died without a word is noticed after three seconds without an answer", async () => {
  await using dead = await watched();
  await dead.connection.ready({ signal: never });
  const over = new AbortController();
  async function* greeting() {
    yield chat("hello");
    await new Promise((resolve) => over.signal.addEventListener("abort", resolve));
  }
  const echoes = dead.client.chat(greeting(), { signal: never })[Symbol.asyncIterator]();
  await echoes.next();
  const began = performance.now();
  dead.wire.blackhole();
  expect(await failure(echoes.next())).toMatchObject({ code: "UNAVAILABLE" });
  over.abort();
  expect(performance.now() - began).toBeGreaterThan(2_900);
  expect(performance.now() - began).toBeLessThan(8_000);
});

test("an attempt to connect that is answered too late serves the next one", async () => {
  await using server = await serveHandlers({});
  await using wire = await cutWire(server.port);
  wire.delay(600);
  const connection = dial(loopback(wire.port), { attemptMs: 200 });
  try {
    const outcomes: string[] = [];
    while (outcomes.at(-1) !== "ready" && outcomes.length < 50) {
      await connection.ready({ signal: never }).then(
        () => outcomes.push("ready"),
        ({ code }) => outcomes.push(code),
      );
    }
    expect(outcomes[0]).toBe("UNAVAILABLE");
    expect(outcomes.at(-1)).toBe("ready");
    expect(
      await collect(connection.client(StreamingService).subscribe({}, { signal: never })),
    ).toEqual({
      messages: [],
      error: undefined,
    });
  } finally {
    connection.close();
  }
});

test("the patience with a path grows with its round trips and with each loss, and falls again", () => {
  const path = new PathTimes();
  expect(path.timeoutMs).toBe(3_000);
  path.measured(10);
  expect(path.timeoutMs).toBe(3_000);
  path.measured(4_000);
  expect(path.timeoutMs).toBe(12_000);
  path.measured(2);
  path.measured(2);
  expect(path.timeoutMs).toBeLessThan(3_100);
  path.lost();
  expect(path.timeoutMs).toBeGreaterThan(5_900);
  for (let i = 0; i < 9; i += 1) {
    path.lost();
  }
  expect(path.timeoutMs).toBe(30_000);
});
