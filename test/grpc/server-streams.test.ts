/**
 * What can happen to a server stream: one request, many answers. The client has half-closed from
 * the start, so everything here is "more from the server after the half-close".
 */

import { expect, test } from "vitest";
import { isTransient, StatusError } from "../../src/errors.ts";
import { atRest, collect, counted, serveHandlers } from "../support/serve-handlers.ts";
import { enoughMs, never, serveLesson } from "../support/start-server.ts";

const forEver = { limit: 0 };
const patient = { graceMs: 60_000, force: never };

test("a subscriber gets as many events as it asked for, in order", async () => {
  await using server = await serveLesson();
  const { messages, error } = await collect(
    server.client.subscribe({ customerId: "cus-007", limit: 20 }, { signal: never }),
  );
  expect(error).toBeUndefined();
  expect(messages.map(({ orderId }) => orderId.split("-")[2])).toEqual(
    Array.from({ length: 20 }, (_, i) => String(i + 1)),
  );
  expect(new Set(messages.map(({ customerId }) => customerId))).toEqual(new Set(["cus-007"]));
  await server.log.line("subscribe ended: limit reached sent=20");
});

test("a handler that yields nothing ends the call with OK", async () => {
  await using server = await serveHandlers({ async *subscribe() {} });
  const ended = await collect(server.client.subscribe({}, { signal: never }));
  expect(ended).toEqual({ messages: [], error: undefined });
});

test("the messages before a StatusError arrive, then its code and message", async () => {
  await using server = await serveHandlers({
    async *subscribe() {
      for (let i = 0; i < 100; i++) {
        yield { orderId: `ord-${i}` };
      }
      throw new StatusError("FAILED_PRECONDITION", "out of beans");
    },
  });
  const { messages, error } = await collect(server.client.subscribe({}, { signal: never }));
  expect(messages).toHaveLength(100);
  expect(messages.at(-1)?.orderId).toBe("ord-99");
  expect(error).toMatchObject({ code: "FAILED_PRECONDITION", message: "out of beans" });
});

test("a fault in a handler is INTERNAL for the client, and its stack is in the log alone", async () => {
  await using server = await serveHandlers({
    async *subscribe() {
      yield {};
      throw new TypeError("a secret of ours");
    },
  });
  const { messages, error } = await collect(server.client.subscribe({}, { signal: never }));
  expect(messages).toHaveLength(1);
  expect(error).toMatchObject({ code: "INTERNAL" });
  expect(String(error)).not.toContain("secret");
  const line = await server.log.line("ERROR handler failed");
  expect(line).toContain("orders.v1.StreamingService/Subscribe");
  expect(line).toMatch(/TypeError: a secret of ours\\n +at /);
});

test("an answer that does not encode is a fault with a log line", async () => {
  await using server = await serveHandlers({
    async *subscribe() {
      yield { amountCents: 2n ** 64n };
    },
  });
  const { error } = await collect(server.client.subscribe({}, { signal: never }));
  expect(error).toMatchObject({ code: "INTERNAL" });
  expect(await server.log.line("handler failed")).toContain("amount_cents");
});

test("a client that cancels gets its own reason, and the server learns that it has gone", async () => {
  await using server = await serveLesson();
  const stop = new AbortController();
  const reason = new Error("enough");
  const answers = server.client.subscribe(forEver, { signal: stop.signal });
  const iterator = answers[Symbol.asyncIterator]();
  await iterator.next();
  stop.abort(reason);
  await expect(iterator.next()).rejects.toBe(reason);
  await server.log.line("subscribe ended: client gone");
});

test("leaving the loop early cancels the call", async () => {
  await using server = await serveLesson();
  for await (const _ of server.client.subscribe(forEver, { signal: never })) {
    break;
  }
  await server.log.line("subscribe ended: client gone");
});

test("a call whose signal is already aborted is never made", async () => {
  await using server = await serveLesson();
  const signal = AbortSignal.abort(new Error("too late"));
  expect(() => server.client.subscribe(forEver, { signal })).toThrow("too late");
});

test("a server that cancels is heard, and may be asked again", async () => {
  await using server = await serveHandlers({
    async *subscribe() {
      yield {};
      throw new StatusError("CANCELLED", "not now");
    },
  });
  const { messages, error } = await collect(server.client.subscribe({}, { signal: never }));
  expect(messages).toHaveLength(1);
  expect(error).toMatchObject({ code: "CANCELLED", message: "not now" });
  expect(isTransient(error)).toBe(true);
});

test("a reader that stalls holds the handler up, and loses nothing", async () => {
  const source = counted((i) => ({ orderId: `ord-${i}`, customerId: "x".repeat(1024) }), 3000);
  await using server = await serveHandlers({ subscribe: () => source.messages });
  const answers = server.client.subscribe({}, { signal: never });
  const iterator = answers[Symbol.asyncIterator]();
  await iterator.next();
  // 64 KiB on the wire and twice 16 messages in buffers.
  expect(await atRest(server, () => source.taken)).toBeLessThan(200);
  const { messages, error } = await collect({ [Symbol.asyncIterator]: () => iterator });
  expect(error).toBeUndefined();
  expect(messages.map(({ orderId }) => orderId)).toEqual(
    Array.from({ length: 2999 }, (_, i) => `ord-${i + 2}`),
  );
});

test("a deadline ends the call on both sides", async () => {
  await using server = await serveLesson();
  const deadline = performance.now() + enoughMs;
  const { messages, error } = await collect(
    server.client.subscribe(forEver, { signal: never, deadline }),
  );
  expect(messages.length).toBeGreaterThan(0);
  expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  expect(performance.now()).toBeGreaterThanOrEqual(deadline);
  await server.log.line("subscribe ended: deadline exceeded");
});

test("an endless subscriber does not hold a graceful stop up, and is told", async () => {
  await using server = await serveLesson();
  const answers = server.client.subscribe(forEver, { signal: never })[Symbol.asyncIterator]();
  await answers.next();
  const ended = collect({ [Symbol.asyncIterator]: () => answers });
  await server.server.stop(patient);
  const { error } = await ended;
  expect(error).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
  expect(isTransient(error)).toBe(true);
  await server.log.line("subscribe ended: server shutting down");
});

test("a reader that stalls does not hold a forced stop up", async () => {
  const source = counted(() => ({ customerId: "x".repeat(65_536) }), 3000);
  await using server = await serveHandlers({ subscribe: () => source.messages });
  const answers = server.client.subscribe({}, { signal: never })[Symbol.asyncIterator]();
  await answers.next();
  await atRest(server, () => source.taken);
  await server.server.stop({ graceMs: 0, force: never });
  await source.closed;
  // The status could not reach it any more: all it sees is the reset of its stream.
  const { error } = await collect({ [Symbol.asyncIterator]: () => answers });
  expect(error).toMatchObject({ code: "CANCELLED" });
  expect(isTransient(error)).toBe(true);
});
