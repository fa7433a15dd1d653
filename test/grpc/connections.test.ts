/** What a server lets one peer take, on real connections. The limits are small here. */

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect, Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { Connections } from "../../src/grpc/connections.ts";
import { defaultLimits } from "../../src/grpc/limits.ts";
import { peerAddress } from "../../src/grpc/peer-address.ts";
import { Refusals } from "../../src/grpc/refusals.ts";
import { rapidReset } from "../support/attacks/floods.ts";
import { serve } from "../support/brewctl.ts";
import { frame, type RawClient, rawClient } from "../support/raw-call.ts";
import { chat, each } from "../support/serve-handlers.ts";
import { never, serveLesson } from "../support/start-server.ts";
import { testLog } from "../support/test-log.ts";

const subscribe = "/orders.v1.StreamingService/Subscribe";
const uploadPath = "/orders.v1.StreamingService/UploadOrders";
const endless = frame(Buffer.alloc(0));
const RESOURCE_EXHAUSTED = 8;

/** A subscription without an end, once its first event is here. */
async function begun(client: RawClient) {
  const stream = client.open(subscribe);
  stream.end(endless);
  await once(stream, "data");
  return stream;
}

/** A connection that says nothing. */
async function silent(port: number): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {});
  socket.resume();
  await once(socket, "connect");
  return socket;
}

/** How many connections Linux lets a server have waiting; others are taken to allow 100. */
function mostQueued(): number {
  try {
    return Number(readFileSync("/proc/sys/net/core/somaxconn", "utf8"));
  } catch {
    return 100;
  }
}

describe("a connection too many", () => {
  test("takes the place of the oldest one without a call, and the log says so once", async () => {
    await using server = await serveLesson({ limits: { maxConnectionsPerPeer: 3 } });
    await using busy = rawClient(server.port);
    await begun(busy);
    const idle = [await silent(server.port), await silent(server.port)];
    const closed = idle.map((socket) => once(socket, "close"));
    for (let i = 0; i < 5; i++) {
      await using other = rawClient(server.port);
      expect((await other.call(uploadPath, endless)).code).toBe(0);
    }
    await Promise.all(closed.slice(0, 1));
    const lines = server.log.lines.filter((line) => line.includes("maxConnectionsPerPeer"));
    expect(lines).toEqual([
      "WARN connection without a call closed for another limit=maxConnectionsPerPeer at_most=3 peer=127.0.0.1",
    ]);
    expect(busy.session.destroyed).toBe(false);
    for (const socket of idle) {
      socket.destroy();
    }
  });

  test("is closed while all are in use, and the calls that run are not touched", async () => {
    await using server = await serveLesson({ limits: { maxConnections: 1 } });
    await using busy = rawClient(server.port);
    const stream = await begun(busy);
    const refused = await silent(server.port).catch(() => undefined);
    if (refused !== undefined && !refused.closed) {
      await once(refused, "close");
    }
    await once(stream, "data");
    expect(await server.log.line("connection refused")).toContain("limit=maxConnections");
  });

  test("takes the place of one of the peer that has most, whoever comes", () => {
    const limits = { ...defaultLimits, maxConnections: 5, maxConnectionsPerPeer: 4 };
    const refusals = new Refusals({ log: testLog() });
    const connections = new Connections({ limits, refusals, clock: systemClock });
    const from = (remoteAddress: string) => {
      const socket = Object.defineProperty(new Socket(), "remoteAddress", { value: remoteAddress });
      connections.accept(socket);
      return socket;
    };
    const first = from("192.0.2.1");
    const flood = Array.from({ length: 6 }, () => from("192.0.2.2"));
    const second = from("192.0.2.1");
    expect([first, second].map(({ destroyed }) => destroyed)).toEqual([false, false]);
    expect(flood.map(({ destroyed }) => destroyed)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
    ]);
    connections.destroy();
  });

  test("is not one any more when the others have gone", async () => {
    await using server = await serveLesson({ limits: { maxConnectionsPerPeer: 1 } });
    for (let i = 0; i < 3; i++) {
      let code: number | undefined;
      // The server may hear a moment later that the one before has gone.
      while (code !== 0) {
        await using client = rawClient(server.port);
        ({ code } = await client.call(uploadPath, endless));
      }
    }
  });
});

test("a connection that makes no call in time is closed, whether it speaks HTTP/2 or not", async () => {
  await using server = await serveLesson({ limits: { firstCallTimeoutMs: 1 } });
  const socket = await silent(server.port);
  const session = connectHttp2(`http://127.0.0.1:${server.port}`);
  session.on("error", () => {});
  await Promise.all([once(socket, "close"), once(session, "close")]);
  expect(await server.log.line("no call in time")).toContain("limit=firstCallTimeoutMs");
});

test("a connection that opens calls and resets them at once is closed within one turn", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const closed = once(client.session, "close");
  const { signal } = new AbortController();
  await rapidReset(server, { count: 1_000, signal });
  const line = await server.log.line("it opens calls and resets them");
  expect(line).toContain("limit=maxStreamsPerConnection at_most=100 peer=127.0.0.");
  expect(server.log.lines.filter((line) => line.includes("subscribe started")).length).toBeLessThan(
    250,
  );
  expect((await client.call(uploadPath, endless)).code).toBe(0);
  client.session.close();
  await closed;
});

test("as many connections wait to be accepted as the system allows", async () => {
  await using server = await serve();
  const port = Number(server.addr.split(":").at(-1));
  server.child.kill("SIGSTOP");
  const count = Math.min(700, mostQueued());
  const sockets = Array.from({ length: count }, () => connect(port, "127.0.0.1"));
  try {
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
  } finally {
    server.child.kill("SIGCONT");
    for (const socket of sockets) {
      socket.destroy();
    }
  }
});

describe("a call too many", () => {
  test.each([
    [
      "of one peer",
      { maxStreamsPerPeer: 2 },
      "2 calls of 127.0.0.1 are open; at most 2 of one peer",
    ],
    ["of all", { maxStreams: 2 }, "2 calls are open; at most 2 are allowed"],
  ])("%s is refused by name, until one has ended", async (_, limits, message) => {
    await using server = await serveLesson({ limits });
    await using first = rawClient(server.port);
    await using second = rawClient(server.port);
    const stream = await begun(first);
    await begun(second);
    const refused = await second.call(subscribe, endless);
    expect(refused.code).toBe(RESOURCE_EXHAUSTED);
    expect(refused.message).toContain(message);
    stream.close(8);
    await server.log.line("subscribe ended: client gone");
    await begun(first);
  });

  test("of one connection waits, and a client of ours opens another connection instead", async () => {
    await using server = await serveLesson({ limits: { maxStreamsPerConnection: 100 } });
    const over = new AbortController();
    const calls = Array.from({ length: 250 }, () =>
      server.client.subscribe({}, { signal: over.signal })[Symbol.asyncIterator](),
    );
    for (const call of calls) {
      expect((await call.next()).done).toBe(false);
    }
    over.abort();
    await Promise.allSettled(calls.map((call) => call.next()));
  });
});

describe("bytes that wait", () => {
  /** Sends half of a message of 1 MiB and falls silent. */
  const half = (client: RawClient) => {
    const stream = client.open(uploadPath);
    const answer = once(stream, "response").then(([headers]) => ({
      code: Number(headers["grpc-status"]),
      message: String(headers["grpc-message"]),
    }));
    stream.write(frame(Buffer.alloc(512 * 1024), { length: 1024 * 1024 }));
    return answer;
  };

  test("beyond the limit of a connection end the call that holds most, and no other", async () => {
    await using server = await serveLesson({
      limits: { maxWaitingBytesPerConnection: 1_200_000 },
    });
    await using client = rawClient(server.port);
    const stream = await begun(client);
    const answers = [half(client), half(client), half(client)];
    const first = await Promise.race(answers);
    expect(first.code).toBe(RESOURCE_EXHAUSTED);
    expect(decodeURI(first.message)).toMatch(/at most 1200000 are allowed/);
    await once(stream, "data");
    expect((await client.call(uploadPath, endless)).code).toBe(0);
  });

  test("beyond the limit of all are those of the connection that holds most", async () => {
    await using server = await serveLesson({ limits: { maxWaitingBytes: 1_200_000 } });
    await using hog = rawClient(server.port);
    await using other = rawClient(server.port);
    const small = other.open(uploadPath);
    small.write(frame(Buffer.alloc(10), { length: 20 }));
    const answer = await Promise.race([half(hog), half(hog), half(hog)]);
    expect(answer.code).toBe(RESOURCE_EXHAUSTED);
    expect(decodeURI(answer.message)).toContain("this connection has most of them");
    expect((await other.call(uploadPath, endless)).code).toBe(0);
    expect(small.closed).toBe(false);
  });

  test("are free again when the call has ended", async () => {
    await using server = await serveLesson({ limits: { maxWaitingBytes: 600_000 } });
    for (let i = 0; i < 5; i++) {
      await using client = rawClient(server.port);
      const stream = client.open(uploadPath);
      stream.write(frame(Buffer.alloc(500 * 1024), { length: 512 * 1024 }));
      await once(client.session, "remoteSettings");
      stream.close(8);
      await server.log.line("upload ended: client gone");
    }
    expect(server.log.lines.filter((line) => line.startsWith("WARN"))).toEqual([]);
  });

  test("of answers that nobody reads count as well, and the stream is reset", async () => {
    await using server = await serveLesson({
      limits: { maxWaitingBytesPerConnection: 256 * 1024 },
      echoDelayMs: 0,
    });
    await using client = rawClient(server.port);
    const stream = client.open("/orders.v1.StreamingService/Chat");
    const closed = new Promise((resolve) => stream.once("close", resolve));
    // Texts of 60 kB go in, and their echoes are not taken.
    const text = Buffer.concat([Buffer.from([0x12, 0xe0, 0xd4, 0x03]), Buffer.alloc(60_000, 0x78)]);
    stream.pause();
    for (let i = 0; i < 40; i++) {
      stream.write(frame(text));
    }
    await closed;
    expect(await server.log.line("call refused")).toContain("maxWaitingBytesPerConnection");
    expect((await client.call(uploadPath, endless)).code).toBe(0);
  });
});

test("more metadata than allowed is refused by name, and other calls of the connection go on", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const stream = await begun(client);
  const answer = await client.call(subscribe, endless, { "x-large": "x".repeat(9_000) });
  expect(answer.code).toBe(RESOURCE_EXHAUSTED);
  expect(answer.message).toMatch(/the metadata has \d+ bytes; at most 8192 are allowed/);
  await once(stream, "data");
});

test("a call whose deadline has passed when it comes reaches no handler", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  const answers = await Promise.all(
    Array.from({ length: 50 }, () => client.call(subscribe, endless, { "grpc-timeout": "1n" })),
  );
  expect(answers.map(({ code }) => code)).toEqual(Array(50).fill(4));
  expect(server.log.lines.join("\n")).not.toContain("subscribe started");
});

test("a client that gathers messages sends them all, in order, and so does the server", async () => {
  await using server = await serveLesson({ echoDelayMs: 0 });
  const texts = Array.from({ length: 2_000 }, (_, i) => (i % 7 === 0 ? "" : `text ${i}`));
  const echoes: string[] = [];
  for await (const { text } of server.client.chat(each(texts.map(chat)), { signal: never })) {
    echoes.push(text);
  }
  expect(echoes).toEqual(texts.map((text) => `echo: ${text}`));
});

test.each([
  ["127.0.0.1", "127.0.0.1"],
  ["::ffff:10.1.2.3", "10.1.2.3"],
  ["::1", "::1"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:db8::6", "2001:db8:0:0::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
  [undefined, undefined],
])("a peer at %s counts as %s", (address, peer) => {
  expect(peerAddress(address)).toBe(peer);
});
