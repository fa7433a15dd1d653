/** What can happen to a client stream: many requests, one answer. */

import { expect, test } from "vitest";
import { StatusError } from "../../src/errors.ts";
import {
  atRest,
  collect,
  counted,
  each,
  failure,
  order,
  serveHandlers,
  thenWait,
} from "../support/serve-handlers.ts";
import { enoughMs, never, serveLesson } from "../support/start-server.ts";

const silence = () => new Promise<void>(() => {});

test("an upload gets one summary after its end", async () => {
  await using server = await serveLesson();
  const records = [order("cus-001", 250n), order("", 100n), order("cus-002", 0n), order("a", -1n)];
  const summary = await server.client.uploadOrders(each(records), { signal: never });
  expect(summary).toMatchObject({ received: 4, accepted: 1, rejected: 3, totalCents: 250n });
  await server.log.line("upload ended received=4 accepted=1 rejected=3");
});

test("an empty upload gets a summary of nothing", async () => {
  await using server = await serveLesson();
  const summary = await server.client.uploadOrders(each([]), { signal: never });
  expect(summary).toMatchObject({ received: 0, accepted: 0, rejected: 0, totalCents: 0n });
});

test("what a handler answers after the half-close reaches the client", async () => {
  const mayAnswer = Promise.withResolvers<void>();
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      const { messages } = await collect(orders);
      server.log.info("half-closed");
      await mayAnswer.promise;
      return { received: messages.length };
    },
  });
  const summary = server.client.uploadOrders(each([order(), order()]), { signal: never });
  await server.log.line("half-closed");
  mayAnswer.resolve();
  expect(await summary).toMatchObject({ received: 2 });
});

test("a StatusError in the middle ends the upload and closes its source", async () => {
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      for await (const { customerId } of orders) {
        if (customerId === "cus-3") {
          throw new StatusError("PERMISSION_DENIED", "not this one");
        }
      }
      return {};
    },
  });
  const source = counted((i) => order(`cus-${i}`), 1_000_000);
  const error = await failure(server.client.uploadOrders(source.messages, { signal: never }));
  expect(error).toMatchObject({ code: "PERMISSION_DENIED", message: "not this one" });
  await source.closed;
});

test("a fault in a handler is INTERNAL for the client, and its stack is in the log alone", async () => {
  await using server = await serveHandlers({
    async uploadOrders() {
      throw new TypeError("a secret of ours");
    },
  });
  const error = await failure(server.client.uploadOrders(each([]), { signal: never }));
  expect(error).toMatchObject({ code: "INTERNAL" });
  expect(String(error)).not.toContain("secret");
  expect(await server.log.line("ERROR handler failed")).toMatch(/TypeError: a secret of ours\\n/);
});

test("a client that cancels gets its own reason, and commits nothing", async () => {
  await using server = await serveHandlers({
    async uploadOrders(orders, { signal }) {
      let received = 0;
      try {
        for await (const _ of orders) {
          received += 1;
          server.log.info(`received ${received}`);
        }
        server.log.info("half-closed");
        return {};
      } finally {
        server.log.info(`ended: ${signal.reason?.message}`);
      }
    },
  });
  const stop = new AbortController();
  const reason = new Error("enough");
  const source = thenWait([order(), order()], silence());
  const summary = failure(server.client.uploadOrders(source, { signal: stop.signal }));
  await server.log.line("received 2");
  stop.abort(reason);
  expect(await summary).toBe(reason);
  await server.log.line("ended: client gone");
  expect(server.log.lines).not.toContain("half-closed");
});

test("what the source throws cancels the upload and is what its caller gets", async () => {
  await using server = await serveLesson();
  const source = (async function* () {
    yield order();
    await atRest(server, () => 0);
    throw new Error("the file is gone");
  })();
  const error = await failure(server.client.uploadOrders(source, { signal: never }));
  expect(error).toMatchObject({ message: "the file is gone" });
  await server.log.line("upload ended: client gone received=1 accepted=1 rejected=0");
});

test("a request that does not encode cancels the upload with that fault", async () => {
  await using server = await serveLesson();
  const source = each([{ amountCents: 2n ** 64n }]);
  const error = await failure(server.client.uploadOrders(source, { signal: never }));
  expect(String(error)).toContain("amount_cents");
});

test("a server that cancels is heard at once, although the source waits", async () => {
  await using server = await serveHandlers({
    async uploadOrders() {
      throw new StatusError("CANCELLED", "not now");
    },
  });
  const source = thenWait([order()], silence());
  const error = await failure(server.client.uploadOrders(source, { signal: never }));
  expect(error).toMatchObject({ code: "CANCELLED", message: "not now" });
});

test("a handler that answers early is heard, and the source is closed", async () => {
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      for await (const _ of orders) {
        return { received: 1 };
      }
      return {};
    },
  });
  const source = counted(() => order(), 1_000_000);
  const summary = await server.client.uploadOrders(source.messages, { signal: never });
  expect(summary).toMatchObject({ received: 1 });
  await source.closed;
  expect(source.taken).toBeLessThan(1_000_000);
});

test("a handler that stalls holds the client up, and loses nothing", async () => {
  const mayRead = Promise.withResolvers<void>();
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      let received = 0;
      for await (const { customerId } of orders) {
        received += 1;
        expect(customerId).toMatch(new RegExp(`^x+${received}$`));
        await mayRead.promise;
      }
      return { received };
    },
  });
  const source = counted((i) => order("x".repeat(1024) + i), 3000);
  const summary = server.client.uploadOrders(source.messages, { signal: never });
  // 64 KiB each gather at the client, are on their way, fill the window, and wait at the server.
  expect(await atRest(server, () => source.taken)).toBeLessThan(4 * 64 + 16);
  mayRead.resolve();
  expect(await summary).toMatchObject({ received: 3000 });
});

test("a deadline ends an upload on both sides", async () => {
  await using server = await serveLesson();
  const source = thenWait([order()], silence());
  const deadline = performance.now() + enoughMs;
  const error = await failure(server.client.uploadOrders(source, { signal: never, deadline }));
  expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
  await server.log.line("upload ended: deadline exceeded received=1");
});

test("an upload in progress may finish within the grace; a new call may not begin", async () => {
  const maySendMore = Promise.withResolvers<void>();
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      let received = 0;
      for await (const _ of orders) {
        received += 1;
        server.log.info(`received ${received}`);
      }
      return { received };
    },
  });
  const source = (async function* () {
    yield order();
    await maySendMore.promise;
    yield order();
  })();
  const summary = server.client.uploadOrders(source, { signal: never });
  await server.log.line("received 1");
  const stopped = server.server.stop({ graceMs: 60_000, force: never });
  const { error } = await collect(server.client.subscribe({}, { signal: never }));
  expect(error).toMatchObject({ code: "UNAVAILABLE" });
  maySendMore.resolve();
  expect(await summary).toMatchObject({ received: 2 });
  await stopped;
});

test.each([
  ["when the grace is over", { graceMs: 100, force: never }],
  ["when told to hurry", { graceMs: 60_000, force: AbortSignal.abort() }],
])("an upload without an end is told UNAVAILABLE %s", async (_, options) => {
  await using server = await serveLesson();
  const sent = Promise.withResolvers<void>();
  const source = (async function* () {
    yield order();
    sent.resolve();
    await silence();
  })();
  const ended = failure(server.client.uploadOrders(source, { signal: never }));
  await sent.promise;
  await atRest(server, () => 0);
  await server.server.stop(options);
  expect(await ended).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
  await server.log.line("upload ended: server shutting down received=1");
});
