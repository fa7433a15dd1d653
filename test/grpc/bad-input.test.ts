/**
 * What a broken or hostile client may send. Each ends its own call, with a status that says why,
 * and nothing else: the server answers the next call. (An error that nobody handles fails the run.)
 */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { expect, test } from "vitest";
import { statusCodes } from "../../src/errors.ts";
import { ChatMessageSchema, SubscribeRequestSchema } from "../../src/gen/orders/v1/streaming_pb.ts";
import { frame, rawClient } from "../support/raw-call.ts";
import { chat, collect, each, failure, order } from "../support/serve-handlers.ts";
import { never, serveLesson, type TestServer } from "../support/start-server.ts";

type LessonServer = Awaited<ReturnType<typeof serveLesson>>;

const [subscribe, upload, chatPath] = ["Subscribe", "UploadOrders", "Chat"].map(
  (method) => `/orders.v1.StreamingService/${method}`,
) as [string, string, string];
const { INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED } = statusCodes;

async function stillAnswers({ client }: LessonServer): Promise<void> {
  const { messages, error } = await collect(client.subscribe({ limit: 2 }, { signal: never }));
  expect(error).toBeUndefined();
  expect(messages).toHaveLength(2);
  const summary = await client.uploadOrders(each([order()]), { signal: never });
  expect(summary).toMatchObject({ accepted: 1 });
}

const faults = ({ log }: TestServer) => log.lines.filter((line) => line.startsWith("ERROR"));

// Field 1 is a string of 100 bytes, of which there are two.
const truncated = Buffer.from([0x0a, 100, 0x61, 0x62]);

test("a call made by hand is answered as any other", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const hello = frame(toBinary(ChatMessageSchema, chat("hi")));
  const { code, body } = await client.call(chatPath, Buffer.concat([hello, hello]));
  expect(code).toBe(0);
  expect(body.toString().match(/echo: hi/g)).toHaveLength(2);
});

test.each([
  ["an unknown method", "/orders.v1.StreamingService/Brew", {}, UNIMPLEMENTED, "Brew"],
  ["an unknown service", "/orders.v2.StreamingService/Chat", {}, UNIMPLEMENTED, "orders.v2"],
  ["no service at all", "/", {}, UNIMPLEMENTED, ""],
  [
    "a timeout that is none",
    subscribe,
    { "grpc-timeout": "soon" },
    INVALID_ARGUMENT,
    "grpc-timeout",
  ],
])("%s is refused", async (_, path, headers, code, message) => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const answer = await client.call(path, frame(Buffer.alloc(0)), headers);
  expect(answer.code).toBe(code);
  expect(answer.message).toContain(message);
  await stillAnswers(server);
});

test("what is not gRPC is refused by its content type", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const headers = { "content-type": "application/json" };
  expect(await client.call(subscribe, Buffer.from("{}"), headers)).toMatchObject({
    httpStatus: 415,
  });
  await stillAnswers(server);
});

test("a message over 4 MiB is refused, and both sizes are named", async () => {
  await using server = await serveLesson();
  const big = order("x".repeat(4 * 1024 * 1024));
  const errors = [
    await failure(server.client.uploadOrders(each([order(), big]), { signal: never })),
    (await collect(server.client.chat(each([chat(big.customerId)]), { signal: never }))).error,
    (await collect(server.client.subscribe({ customerId: big.customerId }, { signal: never })))
      .error,
  ];
  for (const error of errors) {
    expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect(String(error)).toMatch(/41943\d\d vs\.? 4194304|41943\d\d.*4194304/);
  }
  await server.log.line("upload ended: request refused");
  await server.log.line("chat ended: request refused");
  await stillAnswers(server);
});

test("a length of 4 GiB is refused before it is waited for", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const answer = await client.call(upload, frame(Buffer.alloc(0), { length: 2 ** 32 - 1 }));
  expect(answer.code).toBe(RESOURCE_EXHAUSTED);
  await stillAnswers(server);
});

test.each([
  ["Subscribe", subscribe, "orders.v1.SubscribeRequest"],
  ["UploadOrders", upload, "orders.v1.OrderInput"],
  ["Chat", chatPath, "orders.v1.ChatMessage"],
])("bytes that are no message end %s with the name of the type", async (_, path, type) => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const answer = await client.call(path, frame(truncated));
  expect(answer.code).toBe(INVALID_ARGUMENT);
  expect(answer.message).toContain(`malformed ${type} of 4 bytes`);
  await stillAnswers(server);
});

test("the log says what was malformed, and it is no fault of ours", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  await client.call(upload, Buffer.concat([frame(Buffer.alloc(0)), frame(truncated)]));
  expect(await server.log.line("upload ended")).toContain("malformed orders.v1.OrderInput");
  await client.call(chatPath, frame(truncated));
  expect(await server.log.line("chat ended")).toContain("malformed orders.v1.ChatMessage");
  expect(faults(server)).toEqual([]);
});

test("text that is no UTF-8 is malformed", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const answer = await client.call(subscribe, frame(Buffer.from([0x0a, 2, 0xc3, 0x28])));
  expect(answer.code).toBe(INVALID_ARGUMENT);
  expect(answer.message).toContain("orders.v1.SubscribeRequest");
  await stillAnswers(server);
});

test("random bytes as a message never bring the server down", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (bytes) => {
      const { code } = await client.call(chatPath, frame(bytes));
      expect([0, INVALID_ARGUMENT]).toContain(code);
    }),
    { numRuns: 100 },
  );
  expect(faults(server)).toEqual([]);
  await stillAnswers(server);
});

test.each([
  ["compressed without saying how", {}],
  ["no gzip but says so", { "grpc-encoding": "gzip" }],
  ["compressed in an unknown way", { "grpc-encoding": "br" }],
])("a message that is %s is refused, and the status says what is taken", async (_, headers) => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  for (const path of [subscribe, upload, chatPath]) {
    const answer = await client.call(path, frame(Buffer.from("beans"), { flag: 1 }), headers);
    expect(answer.code).toBe(UNIMPLEMENTED);
    expect(answer.message).toContain("grpc-encoding: identity");
  }
  await stillAnswers(server);
});

test("an upload cut short in the middle of a message is not half-closed", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const stream = client.open(upload);
  stream.write(Buffer.concat([frame(Buffer.alloc(0)), frame(truncated, { length: 1000 })]));
  await once(client.session, "remoteSettings");
  await stillAnswers(server);
  stream.close(8);
  await server.log.line("upload ended: client gone received=1");
  await stillAnswers(server);
});

test("half a message and then a broken connection is a client that has gone", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const stream = client.open(chatPath);
  stream.write(frame(truncated, { length: 1000 }));
  await once(client.session, "remoteSettings");
  await stillAnswers(server);
  client.session.destroy();
  await server.log.line("chat ended: client gone");
  await stillAnswers(server);
});

test("streams may be empty, but a single request must be there, once", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const nothing = Buffer.alloc(0);
  expect((await client.call(upload, nothing)).code).toBe(0);
  expect((await client.call(chatPath, nothing)).code).toBe(0);
  for (const body of [nothing, frame(truncated, { length: 1000 }), Buffer.alloc(10)]) {
    expect(await client.call(subscribe, body)).toMatchObject({
      code: UNIMPLEMENTED,
      body: nothing,
    });
  }
  await stillAnswers(server);
});

test("bytes that are no HTTP/2 do no harm", async () => {
  await using server = await serveLesson();
  const greetings = ["GET / HTTP/1.1\r\n\r\n", "", randomBytes(1000), randomBytes(100_000)];
  for (const bytes of greetings) {
    const socket = connect(server.port, "127.0.0.1");
    socket.on("error", () => {}).resume();
    const closed = once(socket, "close");
    socket.end(bytes);
    await closed;
  }
  await stillAnswers(server);
});

test("a thousand connections that come and go do no harm", async () => {
  await using server = await serveLesson();
  for (let i = 0; i < 20; i++) {
    const closed = Array.from({ length: 50 }, async () => {
      const socket = connect(server.port, "127.0.0.1");
      socket.on("error", () => {});
      await once(socket, "connect");
      socket.destroy();
      await once(socket, "close");
    });
    await Promise.all(closed);
  }
  await stillAnswers(server);
});

test("a customer_id of more than 128 bytes is refused, in bytes", async () => {
  await using server = await serveLesson();
  const ask = (customerId: string) =>
    collect(server.client.subscribe({ customerId, limit: 1 }, { signal: never }));
  expect((await ask("x".repeat(128))).messages).toHaveLength(1);
  expect((await ask("x".repeat(129))).error).toMatchObject({
    code: "INVALID_ARGUMENT",
    message: "customer_id has 129 bytes; at most 128 are allowed",
  });
  // 43 characters of three bytes.
  expect((await ask("\u2615".repeat(43))).error).toMatchObject({ code: "INVALID_ARGUMENT" });
  await stillAnswers(server);
});

test("an amount with which the total would not fit is rejected, and the next one counts", async () => {
  await using server = await serveLesson();
  const max = 2n ** 63n - 1n;
  const records = [order("a", max - 5n), order("b", 6n), order("c", max), order("d", 5n)];
  const summary = await server.client.uploadOrders(each(records), { signal: never });
  expect(summary).toMatchObject({ received: 4, accepted: 2, rejected: 2, totalCents: max });
});

test("a limit below 0 is endless, as is 0", async () => {
  await using server = await serveLesson({ tickMs: 0 });
  for (const limit of [0, -1, -(2 ** 31)]) {
    let seen = 0;
    for await (const _ of server.client.subscribe({ limit }, { signal: never })) {
      seen += 1;
      if (seen === 50) {
        break;
      }
    }
    expect(seen).toBe(50);
  }
});

test("fields that the server does not know are ignored", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const known = toBinary(SubscribeRequestSchema, create(SubscribeRequestSchema, { limit: 1 }));
  const unknown = Buffer.from([0xfa, 0x07, 1, 0]);
  const answer = await client.call(subscribe, frame(Buffer.concat([known, unknown])));
  expect(answer.code).toBe(0);
});

test("a text that is too long ends the chat, and the log says that it was the reason", async () => {
  await using server = await serveLesson();
  const messages = each([
    chat("short"),
    chat("x".repeat(64 * 1024)),
    chat("x".repeat(64 * 1024 + 1)),
  ]);
  const { messages: echoes, error } = await collect(
    server.client.chat(messages, { signal: never }),
  );
  expect(echoes.length).toBeLessThanOrEqual(2);
  const why = "text has 65537 bytes; at most 65536 are allowed";
  await server.log.line(`chat ended: ${why}`);
  expect(error).toMatchObject({
    code: "INVALID_ARGUMENT",
    message: why,
  });
});
