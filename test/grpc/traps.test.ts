/**
 * What grpc-js and HTTP/2 do that nobody expects, and that our glue in src/grpc/ must handle: one
 * test for each trap, named by what a handler or a caller may rely on nevertheless.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, connect, type Server } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { isTransient, StatusError } from "../../src/errors.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { reap } from "../support/reaper.ts";
import {
  atRest,
  chat,
  collect,
  counted,
  each,
  failure,
  order,
  serveHandlers,
} from "../support/serve-handlers.ts";
import { never, serveLesson } from "../support/start-server.ts";
import { tcpServer } from "../support/tcp-server.ts";

const silence = () => new Promise<void>(() => {});
const again = <T>(iterator: AsyncIterator<T>) => ({ [Symbol.asyncIterator]: () => iterator });
const portOf = (server: Server) => (server.address() as AddressInfo).port;
const local = (port: number) => ({ kind: "tcp", host: "127.0.0.1", port }) as const;

/** Handlers that tell for each call how its request loop ended. */
function watchLoops({ busyTurns }: { busyTurns: number }) {
  const begun: (() => void)[] = [];
  const endings: string[] = [];
  const isEnded: (() => void)[] = [];
  const watch = async (requests: AsyncIterable<unknown>) => {
    let ending = "half-closed";
    try {
      for await (const _ of requests) {
        begun.shift()?.();
        for (let i = 0; i < busyTurns; i++) {
          await nextTurn();
        }
      }
    } catch (error) {
      ending = (error as Error).message;
      throw error;
    } finally {
      endings.push(ending);
      isEnded.shift()?.();
    }
  };
  return {
    endings,
    handlers: {
      async uploadOrders(orders: AsyncIterable<unknown>) {
        await watch(orders);
        return {};
      },
      async *chat(messages: AsyncIterable<unknown>) {
        await watch(messages);
        yield {};
      },
    },
    /** Of the next call: its first message is there; its loop has ended. */
    begins: () => new Promise<void>((resolve) => begun.push(resolve)),
    ends: () => new Promise<void>((resolve) => isEnded.push(resolve)),
  };
}

test.each([
  ["an upload", "read at once", 0],
  ["an upload", "with a backlog", 3],
  ["a chat", "read at once", 0],
  ["a chat", "with a backlog", 3],
])("a cancelled call never looks half-closed: %s %s", async (shape, _, busyTurns) => {
  const loops = watchLoops({ busyTurns });
  await using server = await serveHandlers(loops.handlers);
  for (let round = 0; round < 50; round++) {
    const stop = new AbortController();
    const { signal } = stop;
    const begins = loops.begins();
    const ends = loops.ends();
    // Sends a while and falls silent, so that the cancel finds the stream idle or full.
    const source = (async function* () {
      for (let i = 0; i < (round % 5) * 40 + 1; i++) {
        yield {};
      }
      await silence();
    })();
    const call =
      shape === "an upload"
        ? server.client.uploadOrders(source, { signal })
        : collect(server.client.chat(source, { signal }));
    const ended = Promise.allSettled([call]);
    await begins;
    for (let i = 0; i < (round * 7) % 12; i++) {
      await nextTurn();
    }
    stop.abort();
    await ended;
    await ends;
  }
  expect(loops.endings).toEqual(Array(50).fill("client gone"));
});

test("a killed client never looks half-closed", async () => {
  const loops = watchLoops({ busyTurns: 1 });
  await using server = await serveHandlers(loops.handlers);
  const script = fileURLToPath(new URL("../support/endless-upload.ts", import.meta.url));
  for (let round = 0; round < 4; round++) {
    const begins = loops.begins();
    const ends = loops.ends();
    const child = spawn(process.execPath, [script, String(server.port)], { stdio: "ignore" });
    reap(child);
    const exited = once(child, "exit");
    await begins;
    for (let i = 0; i < round * 20; i++) {
      await nextTurn();
    }
    child.kill("SIGKILL");
    await Promise.all([exited, ends]);
  }
  expect(loops.endings).toEqual(Array(4).fill("client gone"));
});

test("what a handler throws ends the call, however full the stream is", async () => {
  await using server = await serveHandlers({
    async *subscribe() {
      for (let i = 0; i < 1000; i++) {
        yield { customerId: "x".repeat(1024) };
      }
      throw new StatusError("DATA_LOSS", "spilt");
    },
  });
  const { messages, error } = await collect(server.client.subscribe({}, { signal: never }));
  expect(messages).toHaveLength(1000);
  expect(error).toMatchObject({ code: "DATA_LOSS", message: "spilt" });
});

test("what a handler throws before its first wait ends the call", async () => {
  const thrower = () => {
    throw new StatusError("ABORTED", "at once");
  };
  await using server = await serveHandlers({
    subscribe: thrower,
    uploadOrders: thrower,
    chat: thrower,
  });
  const { subscribe, uploadOrders, chat } = server.client;
  const options = { signal: never };
  const errors = await Promise.all([
    collect(subscribe({}, options)).then(({ error }) => error),
    failure(uploadOrders(each([order()]), options)),
    collect(chat(each([{}]), options)).then(({ error }) => error),
  ]);
  for (const error of errors) {
    expect(error).toMatchObject({ code: "ABORTED", message: "at once" });
  }
});

test("a handler that leaves its request loop may still answer", async () => {
  await using server = await serveHandlers({
    async *chat(messages) {
      for await (const { text } of messages) {
        yield { text };
        break;
      }
      for (let i = 0; i < 100; i++) {
        yield { text: `${i}` };
      }
    },
  });
  const source = counted(() => chat("hi"), 1_000_000);
  const { messages, error } = await collect(
    server.client.chat(source.messages, { signal: never, deadline: performance.now() + 10_000 }),
  );
  expect(error).toBeUndefined();
  expect(messages.map(({ text }) => text)).toEqual([
    "hi",
    ...Array.from({ length: 100 }, (_, i) => `${i}`),
  ]);
});

test("a handler that waits for room wakes when the client goes", async () => {
  const source = counted(() => ({ customerId: "x".repeat(65_536) }), 2000);
  await using server = await serveHandlers({ subscribe: () => source.messages });
  const stop = new AbortController();
  const answers = server.client.subscribe({}, { signal: stop.signal })[Symbol.asyncIterator]();
  await answers.next();
  expect(await atRest(server, () => source.taken)).toBeLessThan(100);
  stop.abort();
  await source.closed;
});

test("a client that waits for room wakes when the server ends the call", async () => {
  const mayFail = Promise.withResolvers<void>();
  await using server = await serveHandlers({
    async uploadOrders() {
      await mayFail.promise;
      throw new StatusError("ABORTED", "enough");
    },
  });
  const source = counted(() => order("x".repeat(65_536)), 2000);
  const ended = failure(server.client.uploadOrders(source.messages, { signal: never }));
  expect(await atRest(server, () => source.taken)).toBeLessThan(100);
  mayFail.resolve();
  expect(await ended).toMatchObject({ code: "ABORTED" });
  await source.closed;
});

// 64 KiB fill the window of a stream, so what is sent beyond that lies in buffers: 16 messages in
// the sender's, 16 in the reader's, and a few in hand.
const [most, messageBytes] = [40, 65_536];

test("a client stream that nobody reads yet is flow-controlled", async () => {
  const mayRead = Promise.withResolvers<void>();
  await using server = await serveHandlers({
    async uploadOrders(orders) {
      await mayRead.promise;
      const { messages } = await collect(orders);
      return { received: messages.length };
    },
  });
  const source = counted(() => order("x".repeat(messageBytes)), 500);
  const summary = server.client.uploadOrders(source.messages, { signal: never });
  expect(await atRest(server, () => source.taken)).toBeLessThanOrEqual(most);
  mayRead.resolve();
  expect(await summary).toMatchObject({ received: 500 });
});

test("a server stream that nobody reads yet is flow-controlled", async () => {
  const source = counted(() => ({ customerId: "x".repeat(messageBytes) }), 500);
  await using server = await serveHandlers({ subscribe: () => source.messages });
  const answers = server.client.subscribe({}, { signal: never });
  expect(await atRest(server, () => source.taken)).toBeLessThanOrEqual(most);
  expect(source.taken).toBeGreaterThan(1);
  expect((await collect(answers)).messages).toHaveLength(500);
});

test("a server that is forced down looks transient to its clients", async () => {
  const source = counted(() => ({ customerId: "x".repeat(messageBytes) }), 500);
  await using server = await serveHandlers({ subscribe: () => source.messages });
  const answers = server.client.subscribe({}, { signal: never });
  await atRest(server, () => source.taken);
  await server.server.stop({ graceMs: 0, force: never });
  const { error } = await collect(answers);
  expect(error).toMatchObject({ code: "CANCELLED" });
  expect(isTransient(error)).toBe(true);
});

test("streams without an end do not hold a stop up", async () => {
  await using server = await serveLesson();
  const calls = Array.from({ length: 20 }, () =>
    server.client.subscribe({}, { signal: never })[Symbol.asyncIterator](),
  );
  await Promise.all(calls.map((call) => call.next()));
  const ended = Promise.all(calls.map((call) => collect(again(call))));
  await server.server.stop({ graceMs: 3_600_000, force: never });
  for (const { error } of await ended) {
    expect(error).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
  }
});

test("a peer that accepts and stays silent is given up", async () => {
  await using peer = await tcpServer(() => {});
  const connection = dial(local(peer.port), { attemptMs: 300 });
  const error = await failure(connection.ready({ signal: never }));
  connection.close();
  expect(error).toMatchObject({ code: "UNAVAILABLE" });
  expect(String(error)).toContain("no answer");
});

test("a peer that stays silent is given up at the deadline, or when the caller stops", async () => {
  await using peer = await tcpServer(() => {});
  const connection = dial(local(peer.port));
  const deadline = performance.now() + 200;
  expect(await failure(connection.ready({ signal: never, deadline }))).toMatchObject({
    code: "DEADLINE_EXCEEDED",
  });
  const reason = new Error("enough");
  const stop = new AbortController();
  const ended = failure(connection.ready({ signal: stop.signal, waitMs: 60_000 }));
  stop.abort(reason);
  expect(await ended).toBe(reason);
  connection.close();
});

test("a client that waits dials anew when a connection stays silent", async () => {
  await using server = await serveLesson();
  // The first connection goes nowhere, the ones after it reach the server.
  await using peer = await tcpServer((socket) => {
    if (peer.sockets.size > 1) {
      const onward = connect(server.port, "127.0.0.1").on("error", () => {});
      socket.pipe(onward).pipe(socket);
      socket.on("close", () => onward.destroy());
    }
  });
  const connection = dial(local(peer.port), { attemptMs: 1_000 });
  await connection.ready({ signal: never, waitMs: 20_000 });
  expect(peer.sockets.size).toBe(2);
  const { messages } = await collect(
    connection.client(StreamingService).subscribe({ limit: 2 }, { signal: never }),
  );
  expect(messages).toHaveLength(2);
  connection.close();
});

/** An HTTP/2 server that answers each call by hand, as a foreign or broken server might. */
async function http2Server(answer: (stream: ServerHttp2Stream) => void) {
  const server = createHttp2Server();
  server.on("stream", (stream) => {
    stream.on("error", () => {});
    stream.resume();
    answer(stream);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const connection = dial(local(portOf(server)));
  return {
    client: connection.client(StreamingService),
    async [Symbol.asyncDispose]() {
      connection.close();
      server.close();
      await once(server, "close");
    },
  };
}

// An empty message, of whatever type: not compressed, no bytes.
const frame = Buffer.alloc(5);
const headers = { ":status": 200, "content-type": "application/grpc" };

test.each([
  [
    "with another status than OK",
    (stream: ServerHttp2Stream) => {
      stream.respond(headers, { waitForTrailers: true });
      stream.on("wantTrailers", () =>
        stream.sendTrailers({ "grpc-status": "9", "grpc-message": "not%20yet" }),
      );
      stream.end(frame);
    },
    { code: "FAILED_PRECONDITION", message: "not yet" },
  ],
  [
    "without a status",
    (stream: ServerHttp2Stream) => {
      stream.respond(headers);
      stream.end(frame);
    },
    { name: "StatusError" },
  ],
  [
    "with a reset",
    (stream: ServerHttp2Stream) => {
      stream.respond(headers);
      stream.write(frame, () => setImmediate(() => stream.close(8)));
    },
    { name: "StatusError" },
  ],
])("a stream that ends %s has failed, whatever came before", async (_, answer, expected) => {
  await using server = await http2Server(answer);
  const { messages, error } = await collect(server.client.chat(each([]), { signal: never }));
  expect(messages).toHaveLength(1);
  expect(error).toMatchObject(expected);
  expect(await failure(server.client.uploadOrders(each([]), { signal: never }))).toMatchObject(
    expected,
  );
});
