/** Handlers of the test's own for the lesson's rpcs, and what tests of streams have in common. */

import { create, type DescService } from "@bufbuild/protobuf";
import { Health } from "../../src/gen/grpc/health/v1/health_pb.ts";
import {
  type ChatMessage,
  ChatMessageSchema,
  type OrderInput,
  OrderInputSchema,
  StreamingService,
} from "../../src/gen/orders/v1/streaming_pb.ts";
import { checkedByHandler, type RequestBounds } from "../../src/grpc/bounds.ts";
import type { Client } from "../../src/grpc/dial.ts";
import { type Handlers, implement } from "../../src/grpc/serve.ts";
import { never, serveImplementations, type TestServer } from "./start-server.ts";

export type Lesson = Client<typeof StreamingService>;

/** For handlers that take whatever comes. */
export const unbounded: RequestBounds<typeof StreamingService> = {
  subscribe: checkedByHandler,
  uploadOrders: checkedByHandler,
  chat: checkedByHandler,
};

/** The same for any service. */
export function unboundedOf(service: DescService): RequestBounds<DescService> {
  return Object.fromEntries(service.methods.map(({ localName }) => [localName, checkedByHandler]));
}

/** A server of these handlers, and a client of it. An rpc left out answers with nothing. */
export async function serveHandlers(
  handlers: Partial<Handlers<typeof StreamingService>>,
): Promise<TestServer & { client: Lesson }> {
  const server = await serveImplementations(
    implement(
      StreamingService,
      {
        async *subscribe() {},
        async uploadOrders() {
          return {};
        },
        async *chat() {},
        ...handlers,
      },
      { bounds: unbounded },
    ),
  );
  return Object.assign(server, { client: server.dial().client(StreamingService) });
}

/** Reads a call to its end, whichever it is. */
export async function collect<T>(
  answers: AsyncIterable<T>,
): Promise<{ messages: T[]; error: unknown }> {
  const messages: T[] = [];
  try {
    for await (const message of answers) {
      messages.push(message);
    }
  } catch (error) {
    return { messages, error };
  }
  return { messages, error: undefined };
}

/** What a call that must not succeed rejects with. */
export async function failure(outcome: Promise<unknown>): Promise<unknown> {
  return await outcome.then(
    (value) => {
      throw new Error(`expected a failure, got ${value}`);
    },
    (error) => error,
  );
}

export const order = (customerId = "cus-001", amountCents = 100n): OrderInput =>
  create(OrderInputSchema, { customerId, amountCents, currency: "USD" });

export const chat = (text: string): ChatMessage =>
  create(ChatMessageSchema, { from: "test", text });

/** These messages, and then the end of the stream. */
export async function* each<T>(messages: Iterable<T>): AsyncGenerator<T> {
  yield* messages;
}

/** These messages, and then silence until `until` resolves. */
export async function* thenWait<T>(messages: Iterable<T>, until: Promise<void>): AsyncGenerator<T> {
  yield* messages;
  await until;
}

/** A source of at most `max` messages that counts what was taken, and knows when it was closed. */
export function counted<T>(make: (i: number) => T, max: number) {
  const closed = Promise.withResolvers<void>();
  let taken = 0;
  const messages = (async function* () {
    try {
      while (taken < max) {
        taken += 1;
        yield make(taken);
      }
    } finally {
      closed.resolve();
    }
  })();
  return {
    messages,
    closed: closed.promise,
    get taken() {
      return taken;
    },
  };
}

/**
 * Resolves with `count` when it has come to rest: unchanged while a hundred calls on another
 * connection went to the server and back. Whoever is not held up goes on meanwhile. A buffer is
 * refilled only when it is empty, so a few calls would not do.
 */
export async function atRest(server: TestServer, count: () => number): Promise<number> {
  const other = server.dial().client(Health);
  for (;;) {
    const before = count();
    for (let i = 0; i < 100; i++) {
      // UNIMPLEMENTED is as good an answer as any.
      await other.check({}, { signal: never }).catch(() => {});
    }
    if (count() === before) {
      return before;
    }
  }
}
