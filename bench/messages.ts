/** The messages of all benchmarks: the lesson's, made anew for each, as a program does. */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  ChatMessageSchema,
  OrderEventSchema,
  OrderInputSchema,
} from "../src/gen/orders/v1/streaming_pb.ts";

const atMs = Date.UTC(2026, 0, 2, 3, 4, 5);

export const orderEvent = (i: number) =>
  create(OrderEventSchema, {
    orderId: `ord-${atMs}-${i}`,
    customerId: "cus-042",
    amountCents: 1234n,
    emittedAt: timestampFromMs(atMs),
  });

export const orderInput = (i: number) =>
  create(OrderInputSchema, {
    customerId: "cus-042",
    amountCents: BigInt(100 + i),
    currency: "USD",
  });

export const chatMessage = (text: string) =>
  create(ChatMessageSchema, { from: "bench", text, sentAt: timestampFromMs(atMs) });
