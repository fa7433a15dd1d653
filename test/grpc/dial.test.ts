/** Waiting for a server, attempt after attempt. What a silent peer does is in traps.test.ts. */

import { connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import { StatusError } from "../../src/errors.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { collect, each, failure, order, serveHandlers } from "../support/serve-handlers.ts";
import { never, serveLesson } from "../support/start-server.ts";
import { tcpServer } from "../support/tcp-server.ts";

const local = (port: number) => ({ kind: "tcp", host: "127.0.0.1", port }) as const;

function pass(from: Socket, port: number): void {
  const onward = connect(port, "127.0.0.1").on("error", () => {});
  from.pipe(onward).pipe(from);
  from.on("close", () => onward.destroy());
}

test("waiting outlasts attempts that fail, however they do", async () => {
  await using server = await serveLesson();
  let dialled = 0;
  // Refused, then silent, then refused again, then there.
  await using peer = await tcpServer((socket) => {
    dialled += 1;
    if (dialled >= 4) {
      pass(socket, server.port);
    } else if (dialled !== 2) {
      socket.destroy();
    }
  });
  const connection = dial(local(peer.port), { attemptMs: 200 });
  await connection.ready({ signal: never, waitMs: 20_000 });
  // On a busy machine the one that gets through may need another try.
  expect(dialled).toBeGreaterThanOrEqual(4);
  connection.close();
});

test("a client that was refused dials again when it is told to", async () => {
  await using server = await serveLesson();
  let dialled = 0;
  await using peer = await tcpServer((socket) => {
    dialled += 1;
    if (dialled <= 3) {
      socket.destroy();
    } else {
      pass(socket, server.port);
    }
  });
  const connection = dial(local(peer.port));
  for (let i = 1; i <= 3; i += 1) {
    expect(await failure(connection.ready({ signal: never }))).toMatchObject({
      code: "UNAVAILABLE",
    });
    expect(dialled).toBe(i);
  }
  await connection.ready({ signal: never });
  connection.close();
});

test("something that answers in another language is named", async () => {
  await using peer = await tcpServer((socket) => {
    socket.end("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
  });
  const connection = dial(local(peer.port));
  expect(await failure(connection.ready({ signal: never }))).toMatchObject({
    message: `no gRPC server at 127.0.0.1:${peer.port}`,
    hint: expect.stringContaining("does not speak gRPC"),
  });
  connection.close();
});

test("a request that does not encode makes no call", async () => {
  await using server = await serveLesson();
  expect(() => server.client.subscribe({ limit: 2 ** 40 }, { signal: never })).toThrow(/limit/);
  await collect(server.client.subscribe({ limit: 1 }, { signal: never }));
  expect(server.log.lines.filter((line) => line.startsWith("subscribe started"))).toHaveLength(1);
});

test("the server's status stands, whatever the source does after it", async () => {
  await using server = await serveHandlers({
    async uploadOrders() {
      throw new StatusError("RESOURCE_EXHAUSTED", "quota");
    },
  });
  const ended = Promise.withResolvers<void>();
  async function* source() {
    yield order();
    await ended.promise;
    throw new Error("the source failed later");
  }
  const connection = server.dial();
  const client = connection.client(StreamingService);
  const outcome = failure(client.uploadOrders(source(), { signal: never }));
  // The status is on its way; another call there and back, and it has come.
  await failure(client.uploadOrders(each([]), { signal: never }));
  ended.resolve();
  expect(await outcome).toMatchObject({ code: "RESOURCE_EXHAUSTED", message: "quota" });
});
