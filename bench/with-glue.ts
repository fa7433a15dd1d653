/** The same three streams on our glue, in `src/grpc`. */

import { create } from "@bufbuild/protobuf";
import { StreamingService, UploadSummarySchema } from "../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../src/grpc/dial.ts";
import { implement, listen } from "../src/grpc/serve.ts";
import { streamingBounds } from "../src/server/bounds.ts";
import { chatMessage, orderEvent, orderInput } from "./messages.ts";
import type { Streams } from "./streams.ts";

const loopback = { kind: "tcp", host: "127.0.0.1" } as const;
const noLog = { debug() {}, info() {}, warn() {}, error() {} };
const never = new AbortController().signal;

/** Returns the port. */
export async function serveWithGlue(): Promise<number> {
  const implementation = implement(
    StreamingService,
    {
      async *subscribe({ limit }) {
        for (let i = 0; i < limit; i += 1) {
          yield orderEvent(i);
        }
      },
      async uploadOrders(orders) {
        let received = 0;
        for await (const _ of orders) {
          received += 1;
        }
        return create(UploadSummarySchema, { received });
      },
      async *chat(messages) {
        for await (const { text } of messages) {
          yield chatMessage(text);
        }
      },
    },
    { bounds: streamingBounds },
  );
  const options = { address: { ...loopback, port: 0 }, implementations: [implementation] };
  const { port } = await listen({ ...options, log: noLog });
  return port ?? 0;
}

export function streamsWithGlue(port: number): Streams {
  const connection = dial({ ...loopback, port });
  const client = connection.client(StreamingService);
  const call = { signal: never };
  return {
    async subscribe(count) {
      let received = 0;
      for await (const _ of client.subscribe({ limit: count }, call)) {
        received += 1;
      }
      return received;
    },
    async upload(count) {
      const summary = await client.uploadOrders(
        (async function* () {
          for (let i = 0; i < count; i += 1) {
            yield orderInput(i);
          }
        })(),
        call,
      );
      return summary.received;
    },
    async chat(count) {
      const pings = (async function* () {
        for (let i = 0; i < count; i += 1) {
          yield chatMessage(`ping ${i}`);
        }
      })();
      let received = 0;
      for await (const _ of client.chat(pings, call)) {
        received += 1;
      }
      return received;
    },
    close: () => connection.close(),
  };
}
