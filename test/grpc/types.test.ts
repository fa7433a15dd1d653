/**
 * Handlers that do not fit their service do not compile. `tsc` checks the lines below each
 * `@ts-expect-error`, and fails if one of them is right after all.
 */

import { expect, test } from "vitest";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { anyInteger } from "../../src/grpc/bounds.ts";
import type { Client } from "../../src/grpc/dial.ts";
import { type Handlers, implement } from "../../src/grpc/serve.ts";
import { each, unbounded } from "../support/serve-handlers.ts";
import { never, serveImplementations } from "../support/start-server.ts";

const right: Handlers<typeof StreamingService> = {
  async *subscribe({ customerId, limit }) {
    yield { customerId, amountCents: BigInt(limit) };
  },
  async uploadOrders(orders) {
    for await (const { amountCents } of orders) {
      return { totalCents: amountCents };
    }
    return {};
  },
  async *chat(messages) {
    for await (const { text } of messages) {
      yield { text };
    }
  },
};

/** Never called: for the type checker alone. */
function wrong(client: Client<typeof StreamingService>): void {
  const { subscribe, uploadOrders, chat } = right;
  const signal = never;

  // @ts-expect-error a missing handler
  implement(StreamingService, { subscribe, uploadOrders }, { bounds: unbounded });
  // @ts-expect-error an unknown handler
  implement(StreamingService, { ...right, brew: chat }, { bounds: unbounded });
  implement(
    StreamingService,
    // @ts-expect-error a unary handler for a stream
    { ...right, subscribe: async () => ({ orderId: "ord-1" }) },
    { bounds: unbounded },
  );
  // @ts-expect-error a stream where one answer is due
  implement(StreamingService, { ...right, uploadOrders: chat }, { bounds: unbounded });
  implement(
    StreamingService,
    {
      ...right,
      // @ts-expect-error a wrong type in the answer
      async *subscribe() {
        yield { amountCents: 100 };
      },
    },
    { bounds: unbounded },
  );
  implement(
    StreamingService,
    {
      ...right,
      // @ts-expect-error a field that the request does not have
      async *subscribe({ customer }) {
        yield { customerId: customer };
      },
    },
    { bounds: unbounded },
  );
  implement(
    StreamingService,
    {
      ...right,
      async uploadOrders(orders) {
        // @ts-expect-error a stream is no single request
        return { totalCents: orders.amountCents };
      },
    },
    { bounds: unbounded },
  );
  // @ts-expect-error no bounds
  implement(StreamingService, right, {});
  const { chat: _, ...incomplete } = unbounded;
  // @ts-expect-error a method without bounds
  implement(StreamingService, right, { bounds: incomplete });
  implement(StreamingService, right, {
    // @ts-expect-error a field without a bound
    bounds: { ...unbounded, subscribe: { limit: anyInteger } },
  });
  implement(StreamingService, right, {
    // @ts-expect-error a bound of numbers for a text
    bounds: { ...unbounded, subscribe: { customerId: anyInteger, limit: anyInteger } },
  });

  // @ts-expect-error a call without a signal
  client.subscribe({ limit: 1 });
  // @ts-expect-error an unknown field in the request
  client.subscribe({ limits: 1 }, { signal });
  // @ts-expect-error a wrong type in the request
  client.subscribe({ limit: "1" }, { signal });
  // @ts-expect-error one request where a stream is due
  client.uploadOrders({ customerId: "cus-001" }, { signal });
  // @ts-expect-error an unknown method
  client.brew({}, { signal });
  // @ts-expect-error answers are a loop, not a promise
  client.chat(each([{ text: "hi" }]), { signal }).then(() => {});
}

test("what does not compile does not run either: a handler is missing", async () => {
  const { chat: _, ...rest } = right;
  const incomplete = implement(StreamingService, rest as typeof right, { bounds: unbounded });
  await expect(serveImplementations(incomplete)).rejects.toThrow(
    "orders.v1.StreamingService has no handler for Chat",
  );
});

test("what is wrong is checked, and never run", () => {
  expect(wrong).toBeTypeOf("function");
});

test("handlers that compile are served", async () => {
  await using server = await serveImplementations(
    implement(StreamingService, right, { bounds: unbounded }),
  );
  const client = server.dial().client(StreamingService);
  for await (const event of client.subscribe({ customerId: "a", limit: 7 }, { signal: never })) {
    expect(event).toMatchObject({ customerId: "a", amountCents: 7n });
  }
});
