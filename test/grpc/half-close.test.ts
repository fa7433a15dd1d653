/**
 * The place inside grpc-js from which `half-close.ts` takes the HTTP/2 session of a call. That a
 * cancel is told from a half-close at all is tested in traps.test.ts.
 */

import { Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { wireService } from "../../src/grpc/definition.ts";
import { dial } from "../../src/grpc/dial.ts";
import { sessionOf } from "../../src/grpc/half-close.ts";
import { collect } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";

test("grpc-js keeps the session of a call where we look for it", async () => {
  const server = new Server();
  let session: ReturnType<typeof sessionOf>;
  server.addService(wireService(StreamingService, StreamingService.typeName), {
    chat(call: ServerDuplexStream<Buffer, Buffer>) {
      session = sessionOf(call);
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
    expect(session?.ping).toBeTypeOf("function");
  } finally {
    connection.close();
    server.forceShutdown();
  }
});

test("a call without such a session is not one we would trip over", () => {
  expect(sessionOf({})).toBeUndefined();
  expect(sessionOf({ call: { stream: {} } })).toBeUndefined();
});
