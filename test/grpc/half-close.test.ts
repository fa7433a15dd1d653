/**
 * The place inside grpc-js from which `half-close.ts` takes the HTTP/2 stream of a call. That a
 * cancel is told from a half-close at all is tested in traps.test.ts.
 */

import { Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { wireService } from "../../src/grpc/definition.ts";
import { dial } from "../../src/grpc/dial.ts";
import { streamOf } from "../../src/grpc/half-close.ts";
import { collect } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";

test("grpc-js keeps the stream of a call where we look for it", async () => {
  const server = new Server();
  let seen: { ping: unknown; aborted: unknown } | undefined;
  server.addService(wireService(StreamingService, StreamingService.typeName), {
    chat(call: ServerDuplexStream<Buffer, Buffer>) {
      const stream = streamOf(call);
      seen = { ping: stream?.session?.ping, aborted: stream?.aborted };
      call.end();
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const connection = dial({ kind: "tcp", host: "127.0.0.1", port });
  try {
    const client = connection.client(StreamingService);
    await collect(client.chat((async function* () {})(), { signal: never }));
    expect(seen).toEqual({ ping: expect.any(Function), aborted: expect.any(Boolean) });
  } finally {
    connection.close();
    server.forceShutdown();
  }
});

test("a call without such a stream is not one we would trip over", () => {
  expect(streamOf({})).toBeUndefined();
  expect(streamOf({ call: {} })).toBeUndefined();
});
