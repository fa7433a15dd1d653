/** What a call tells whoever watches it: each event once, in the order in which it happens. */

import { describe, expect, test } from "vitest";
import type { CallEvent } from "../../src/grpc/call-events.ts";
import { chat, collect, counted, each, order, serveHandlers } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";

function watched() {
  const events: CallEvent[] = [];
  const ended = Promise.withResolvers<void>();
  return {
    events,
    ended: ended.promise,
    watch(event: CallEvent) {
      events.push(event);
      if (event.kind === "ended") {
        ended.resolve();
      }
    },
    get kinds() {
      return events.map(({ kind }) => kind).join(" ");
    },
  };
}

test("a server stream", async () => {
  await using server = await serveHandlers({
    async *subscribe() {
      yield { orderId: "a" };
      yield { orderId: "b" };
    },
  });
  const seen = watched();
  const deadline = performance.now() + 60_000;
  const call = server.client.subscribe(
    { limit: 2 },
    { signal: never, deadline, watch: seen.watch },
  );
  expect((await collect(call)).messages).toHaveLength(2);
  expect(seen.kinds).toBe("requested sent half-closed accepted received received ended");
  expect(seen.events[0]).toEqual({
    kind: "requested",
    path: "/orders.v1.StreamingService/Subscribe",
    deadline,
  });
  expect(seen.events[1]).toEqual({ kind: "sent", bytes: 2, waiting: expect.any(Number) });
  expect(seen.events.find(({ kind }) => kind === "received")).toMatchObject({ bytes: 3 });
  expect(seen.events.at(-1)).toEqual({ kind: "ended", code: "OK", message: expect.any(String) });
});

test("a client stream", async () => {
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      for await (const _ of orders) {
      }
      return { received: 2 };
    },
  });
  const seen = watched();
  const requests = each([order(), order()]);
  await server.client.uploadOrders(requests, { signal: never, watch: seen.watch });
  expect(seen.kinds).toBe("requested sent sent half-closed accepted received ended");
});

test("a bidirectional stream: both directions at once", async () => {
  await using server = await serveHandlers({
    async *chat(messages) {
      for await (const { text } of messages) {
        yield { text };
      }
    },
  });
  const seen = watched();
  const answered = Promise.withResolvers<void>();
  const pings = (async function* () {
    yield chat("one");
    await answered.promise;
    yield chat("two");
  })();
  for await (const _ of server.client.chat(pings, { signal: never, watch: seen.watch })) {
    answered.resolve();
  }
  expect(seen.kinds).toBe("requested sent accepted received sent half-closed received ended");
});

test("a status that is not OK", async () => {
  await using server = await serveHandlers({});
  const seen = watched();
  const health = server.client.subscribe({}, { signal: never, deadline: 1, watch: seen.watch });
  await collect(health);
  expect(seen.events.at(-1)).toMatchObject({ kind: "ended", code: "DEADLINE_EXCEEDED" });
});

describe("a call that we end", () => {
  const endless = () =>
    serveHandlers({
      async *subscribe() {
        for (;;) {
          yield { orderId: "a" };
        }
      },
    });

  test("by its signal", async () => {
    await using server = await endless();
    const seen = watched();
    const over = new AbortController();
    const call = server.client.subscribe({}, { signal: over.signal, watch: seen.watch });
    await call[Symbol.asyncIterator]().next();
    over.abort(new Error("enough"));
    over.abort(new Error("more than enough"));
    await collect(call);
    await seen.ended;
    expect(seen.kinds).toMatch(/^requested sent half-closed accepted (received )+cancelled ended$/);
  });

  test("twice, by what its source throws and by its signal", async () => {
    await using server = await serveHandlers({
      async *chat(messages) {
        for await (const { text } of messages) {
          yield { text };
        }
      },
    });
    const seen = watched();
    const over = new AbortController();
    const failing = (async function* () {
      queueMicrotask(() => over.abort(new Error("enough")));
      throw new Error("no more");
    })();
    await collect(server.client.chat(failing, { signal: over.signal, watch: seen.watch }));
    expect(seen.kinds.match(/cancelled/g)).toHaveLength(1);
  });

  test("by leaving the loop", async () => {
    await using server = await endless();
    const seen = watched();
    const over = new AbortController();
    const call = { signal: over.signal, watch: seen.watch };
    for await (const _ of server.client.subscribe({}, call)) {
      break;
    }
    over.abort(new Error("enough"));
    await seen.ended;
    expect(seen.kinds).toBe("requested sent half-closed accepted received cancelled ended");
  });

  test("too late: the status had come, and stands", async () => {
    await using server = await serveHandlers({
      async *subscribe() {
        yield* [{}, {}, {}];
      },
    });
    const seen = watched();
    for await (const _ of server.client.subscribe({}, { signal: never, watch: seen.watch })) {
      await seen.ended;
      break;
    }
    expect(seen.kinds).toBe("requested sent half-closed accepted received ended");
  });
});

test("a server that does not read: blocked, and unblocked when it reads", async () => {
  const read = Promise.withResolvers<void>();
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      await read.promise;
      let received = 0;
      for await (const _ of orders) {
        received += 1;
      }
      return { received };
    },
  });
  const seen = watched();
  const large = order("c".repeat(100_000));
  const source = counted(() => large, 100);
  let firstBlockedAt: number | undefined;
  const summary = server.client.uploadOrders(source.messages, {
    signal: never,
    watch(event) {
      seen.watch(event);
      if (event.kind === "blocked") {
        firstBlockedAt ??= source.taken;
        read.resolve();
      }
    },
  });
  expect((await summary).received).toBe(100);
  expect(firstBlockedAt).toBeLessThan(100);
  const blocked = seen.kinds.match(/blocked/g)?.length ?? 0;
  expect(blocked).toBeGreaterThan(0);
  expect(seen.kinds).toMatch(/sent blocked unblocked sent/);
  // "unblocked" contains "blocked": each pair is two.
  expect(seen.kinds.match(/unblocked/g)).toHaveLength(blocked / 2);
  const waiting = seen.events.flatMap((event) => (event.kind === "sent" ? event.waiting : []));
  // One is on its way, and one has filled what gathers.
  expect(Math.max(...waiting)).toBe(2);
});
