/**
 * The places inside grpc-js and Node on which src/grpc/grpc-js-internals.ts relies, each by itself, so
 * that a release that moves one of them says which. What is built on them is tested elsewhere.
 */

import { once } from "node:events";
import { connect, createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import {
  Client,
  credentials,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type StatusObject,
} from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { StatusError } from "../../src/errors.ts";
import {
  clientStreamOf,
  type InnerCall,
  innerCallOf,
  leaveWithoutHalfClose,
  onEachCall,
  stopReading,
  together,
  transportCallOf,
} from "../../src/grpc/grpc-js-internals.ts";

const identity = (bytes: Buffer) => bytes;
const path = "/test.Service/Chat";
const method = {
  path,
  requestStream: true,
  responseStream: true,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
} as const;

/** A server of one method, which is told of the inner call and has this handler. */
async function serve(
  onCall: (call: InnerCall) => void,
  chat: (call: ServerDuplexStream<Buffer, Buffer>) => void,
) {
  const server = new Server({ interceptors: [onEachCall(onCall)] });
  server.addService({ chat: method }, { chat });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  return {
    call: () => client.makeBidiStreamRequest(path, identity, identity).on("error", () => {}),
    [Symbol.dispose]() {
      client.close();
      server.forceShutdown();
    },
  };
}

test("a call of a server has its stream, its socket, its metadata and its deadline", async () => {
  const seen = Promise.withResolvers<InnerCall>();
  using server = await serve(
    (call) => seen.resolve(call),
    (call) => {
      expect(innerCallOf(call).http2.session).toBeDefined();
      call.end();
    },
  );
  const call = server.call();
  const inner = await seen.promise;
  expect(inner.http2.aborted).toBe(false);
  expect(inner.http2.session?.ping).toEqual(expect.any(Function));
  expect((inner.socket as { remoteAddress?: string }).remoteAddress).toBe("127.0.0.1");
  expect(inner.metadata.get("user-agent")).toHaveLength(1);
  expect(inner.deadline).toBe(Number.POSITIVE_INFINITY);
  call.resume().end();
  await once(call, "status");
});

test("incoming bytes pass the decoder that it was given, one message a read", async () => {
  using server = await serve(
    (call) => call.decodeWith((bytes) => [bytes, Buffer.from("two")]),
    (call) => {
      const messages: string[] = [];
      call.on("data", (message: Buffer) => messages.push(message.toString("latin1")));
      call.on("end", () => {
        call.write(Buffer.from(messages.join("|")));
        call.end();
      });
    },
  );
  const call = server.call();
  call.end(Buffer.from("one"));
  const [answer] = await once(call, "data");
  expect(String(answer)).toBe("\0\0\0\0\x03one|two");
});

test("a socket that an HTTP/2 session reads can be stopped and started", async () => {
  const accepted = Promise.withResolvers<Socket>();
  const server = createServer();
  server.on("connection", (socket: Socket) => accepted.resolve(socket));
  const streams: string[] = [];
  server.on("stream", (stream: ServerHttp2Stream, headers) => {
    streams.push(String(headers[":path"]));
    stream.respond({ ":status": 200 }, { endStream: true });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const socket = await accepted.promise;
  await once(session, "remoteSettings");
  const start = stopReading(socket);
  const request = session.request({ ":path": "/late" }).resume();
  // A round trip through another connection: by then it would have come.
  const other = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  await once(other.request({ ":path": "/other" }).resume(), "end");
  expect(streams).toEqual(["/other"]);
  start();
  await once(request, "end");
  expect(streams).toEqual(["/other", "/late"]);
  session.destroy();
  other.destroy();
  server.close();
});

test("a call that is failed at once reaches no handler", async () => {
  using server = await serve(
    (call) => call.fail(new StatusError("ABORTED", "no")),
    () => expect.unreachable(),
  );
  const call = server.call();
  const status = new Promise<StatusObject>((resolve) => call.on("status", resolve));
  call.resume().end();
  expect(await status).toMatchObject({ code: 10, details: "no" });
});

test("messages that go together arrive one by one, in both directions", async () => {
  const texts = ["a", "", "bcd"];
  const messages = texts.map((text) => Buffer.from(text));
  using server = await serve(
    () => {},
    (call) => {
      const received: string[] = [];
      call.on("data", (message: Buffer) => received.push(String(message)));
      call.on("end", () => {
        expect(received).toEqual(texts);
        call.write(together(messages, 4));
        call.end();
      });
    },
  );
  const call = server.call();
  const received: string[] = [];
  call.on("data", (message: Buffer) => received.push(String(message)));
  call.end(together(messages, 4));
  await once(call, "status");
  expect(received).toEqual(texts);
});

test("a client's answers pass a decoder that keeps no pieces", async () => {
  const server = createServer();
  server.on("stream", (stream: ServerHttp2Stream) => {
    stream.on("error", () => {});
    stream.respond(
      { ":status": 200, "content-type": "application/grpc" },
      { waitForTrailers: true },
    );
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    const size = 100_000;
    const bytes = Buffer.concat([Buffer.from([0, 0, 1, 0x86, 0xa0]), Buffer.alloc(size, 1)]);
    // In frames of their own; a decoder that keeps pieces has as many Buffers.
    for (let at = 0; at < bytes.length; at += 1_000) {
      stream.write(bytes.subarray(at, at + 1_000));
    }
    stream.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const call = client.makeBidiStreamRequest(path, identity, identity).on("error", () => {});
  call.end();
  const [answer] = await once(call, "data");
  expect(answer).toHaveLength(100_000);
  const decoder = decoderOf(call);
  expect(decoder?.readPartialMessage).toEqual([]);
  expect(decoder?.readMessageSize).toBe(0);
  client.close();
  server.close();
});

/** grpc-js's own decoder of a client's call, which must have seen nothing. */
function decoderOf(call: object) {
  const layer = transportCallOf(call) as
    | { readonly decoder?: { readPartialMessage: unknown[]; readMessageSize: number } }
    | undefined;
  return layer?.decoder;
}

test("a client that leaves resets its stream and does not half-close it", async () => {
  const server = createServer();
  const ended = Promise.withResolvers<string[]>();
  server.on("stream", (stream: ServerHttp2Stream) => {
    const events: string[] = [];
    stream.respond({ ":status": 200, "content-type": "application/grpc" });
    stream.on("error", () => {});
    stream.on("data", () => {});
    stream.on("end", () => events.push(`end, aborted=${stream.aborted}`));
    stream.on("close", () => ended.resolve([...events, `reset with ${stream.rstCode}`]));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const client = new Client(
    `127.0.0.1:${(server.address() as AddressInfo).port}`,
    credentials.createInsecure(),
  );
  const call = client.makeBidiStreamRequest(path, identity, identity).on("error", () => {});
  expect(clientStreamOf(call)).toBeUndefined();
  call.resume();
  call.write(Buffer.from("one"));
  await once(call, "metadata");
  expect(clientStreamOf(call)?.session).toBeDefined();
  leaveWithoutHalfClose(call);
  call.cancel();
  expect(await ended.promise).toEqual(["end, aborted=true", "reset with 8"]);
  client.close();
  server.close();
});
