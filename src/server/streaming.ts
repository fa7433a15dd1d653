/**
 * StreamingService (proto/orders/v1/streaming.proto): the three streams of the Brew lesson. The
 * clients are commands/subscribe.ts, commands/upload.ts and commands/chat.ts.
 *
 * Each handler logs how it began or ended in the words of the original lesson: who closed whom.
 */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Clock, type Random, ticks } from "../clock.ts";
import type { StatusError } from "../errors.ts";
import {
  type ChatMessage,
  ChatMessageSchema,
  type OrderEvent,
  OrderEventSchema,
  type OrderInput,
  StreamingService,
  UploadSummarySchema,
} from "../gen/orders/v1/streaming_pb.ts";
import { type Handlers, type Implementation, implement } from "../grpc/serve.ts";
import type { Logger } from "../log.ts";
import { readAhead } from "../read-ahead.ts";
import { maxNameBytes } from "../store-event.ts";
import { streamingBounds } from "./bounds.ts";

export interface StreamingOptions {
  /** The time from one event of a subscription to the next, in milliseconds; 0: no wait. */
  readonly tickMs: number;
  /** The time before each echo, in milliseconds; 0: no wait. */
  readonly echoDelayMs: number;
  /** How long each record of an upload takes, in milliseconds; 0: no time. */
  readonly uploadDelayMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** How many messages of a chat may wait for their echo. Then the handler stops reading. */
const maxEchoesAhead = 64;

/** How much they may hold together, in bytes. With this a chat that nobody reads stays small. */
const maxBytesAhead = 256 * 1024;

const maxInt64 = 2n ** 63n - 1n;

export function streaming(options: StreamingOptions): Implementation {
  const { tickMs, echoDelayMs, uploadDelayMs, clock, random, log } = options;
  let orders = 0;

  const orderEvent = (customerId: string, at: number): OrderEvent => {
    orders += 1;
    return create(OrderEventSchema, {
      // Two subscribers tick in the same millisecond; the counter keeps their orders apart.
      orderId: `ord-${at}-${orders}`,
      customerId: customerId || `cus-${String(Math.floor(random() * 100)).padStart(3, "0")}`,
      amountCents: BigInt(100 + Math.floor(random() * 9900)),
      emittedAt: timestampFromMs(at),
    });
  };

  const handlers: Handlers<typeof StreamingService> = {
    async *subscribe({ customerId, limit }, { signal }) {
      log.info("subscribe started", { customer_id: customerId, limit });
      let sent = 0;
      try {
        for await (const at of ticks(clock, tickMs, { signal })) {
          yield orderEvent(customerId, at);
          sent += 1;
          if (sent === limit) {
            return;
          }
        }
      } finally {
        log.info(`subscribe ended: ${endOf(signal, "limit reached")}`, { sent });
      }
    },

    async uploadOrders(orders, { signal }) {
      const summary = create(UploadSummarySchema);
      try {
        for await (const order of orders) {
          const { customerId, amountCents } = order;
          if (uploadDelayMs > 0) {
            // Meanwhile nobody reads: the client's window fills, and its `write()` answers false.
            await clock.sleep(uploadDelayMs, { signal });
          }
          summary.received += 1;
          const totalCents = summary.totalCents + amountCents;
          if (
            amountCents <= 0n ||
            customerId === "" ||
            totalCents > maxInt64 ||
            !isWithinBounds(order)
          ) {
            summary.rejected += 1;
            continue;
          }
          summary.accepted += 1;
          summary.totalCents = totalCents;
        }
        return summary;
      } finally {
        const { received, accepted, rejected } = summary;
        const why = signal.aborted ? `: ${endOf(signal, "")}` : "";
        log.info(`upload ended${why}`, { received, accepted, rejected });
      }
    },

    async *chat(messages, { signal }) {
      try {
        for await (const { text } of readAhead(messages, maxEchoesAhead, shareOfText)) {
          if (echoDelayMs > 0) {
            await clock.sleep(echoDelayMs, { signal });
          }
          yield echo(text, clock.now());
        }
      } finally {
        log.info(`chat ended: ${endOf(signal, "client closed send")}`);
      }
    },
  };
  return implement(StreamingService, handlers, { bounds: streamingBounds });
}

/** The places that a text takes among those that wait: one, or more if it is large. */
function shareOfText({ text }: ChatMessage): number {
  return Math.max(1, (Buffer.byteLength(text) * maxEchoesAhead) / maxBytesAhead);
}

/** Says whether a record of an upload is within the bounds of its fields, as every request is. */
function isWithinBounds({ customerId, currency }: OrderInput): boolean {
  return [customerId, currency].every((text) => Buffer.byteLength(text) <= maxNameBytes);
}

function echo(text: string, at: number): ChatMessage {
  return create(ChatMessageSchema, {
    from: "server",
    text: `echo: ${text}`,
    sentAt: timestampFromMs(at),
  });
}

/** Why a handler has ended, for the log: what ended the call from outside, else `own`. */
function endOf(signal: AbortSignal, own: string): string {
  return signal.aborted ? (signal.reason as StatusError).message : own;
}
