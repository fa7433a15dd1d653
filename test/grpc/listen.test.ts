/** Where a server listens, and what it says when it cannot; a client that finds nobody. */

import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect, test } from "vitest";
import { type Address, parseAddress } from "../../src/address.ts";
import { dial } from "../../src/grpc/dial.ts";
import { listen } from "../../src/grpc/serve.ts";
import { failure } from "../support/serve-handlers.ts";
import { never, serveLesson } from "../support/start-server.ts";
import { closedPort } from "../support/temp.ts";
import { testLog } from "../support/test-log.ts";

async function listenAt(text: string) {
  const server = await listen({
    address: parseAddress(text),
    implementations: [],
    log: testLog(),
  });
  return {
    port: server.port ?? 0,
    [Symbol.asyncDispose]: () => server.stop({ graceMs: 0, force: AbortSignal.abort() }),
  };
}

async function isReachable(address: Address): Promise<boolean> {
  const connection = dial(address);
  const outcome = connection.ready({ signal: never }).then(
    () => true,
    () => false,
  );
  return await outcome.finally(() => connection.close());
}

test.each(["127.0.0.1:0", "localhost:0", ":0"])("%s takes any free port", async (text) => {
  await using server = await listenAt(text);
  expect(server.port).toBeGreaterThan(0);
  expect(await isReachable({ kind: "tcp", host: "127.0.0.1", port: server.port })).toBe(true);
  expect(await isReachable({ kind: "tcp", host: "localhost", port: server.port })).toBe(true);
  // As in `:50052`: this machine.
  expect(await isReachable({ kind: "tcp", host: "", port: server.port })).toBe(true);
});

test("a port of another gRPC server is in use", async () => {
  await using first = await serveLesson();
  expect(await failure(listenAt(`127.0.0.1:${first.port}`))).toMatchObject({
    name: "UsageError",
    message: `cannot listen on 127.0.0.1:${first.port}: it is already in use`,
    hint: expect.stringContaining("--addr"),
  });
});

test("a port of any other program is in use, and the server leaves nothing behind", async () => {
  const other = createServer();
  await once(other.listen(0, "127.0.0.1"), "listening");
  const { port } = other.address() as AddressInfo;
  for (const text of [`127.0.0.1:${port}`, `localhost:${port}`]) {
    expect(String(await failure(listenAt(text)))).toContain("already in use");
  }
  other.close();
  await once(other, "close");
  await using server = await listenAt(`127.0.0.1:${port}`);
  expect(server.port).toBe(port);
});

test.each([
  ["brew.invalid:0", "no such host"],
  ["192.0.2.1:0", "this machine has no such address"],
])("%s: %s", async (text, why) => {
  expect(await failure(listenAt(text))).toMatchObject({
    name: "UsageError",
    message: `cannot listen on ${text}: ${why}`,
  });
});

test("a client that finds nobody is told how to start a server", async () => {
  const port = await closedPort();
  const address = { kind: "tcp", host: "127.0.0.1", port } as const;
  const connection = dial(address);
  const options = { signal: never };
  expect(await failure(connection.ready(options))).toMatchObject({
    code: "UNAVAILABLE",
    message: `no server at 127.0.0.1:${port}`,
    hint: `start one with: brewctl serve --addr 127.0.0.1:${port}`,
  });
  expect(await failure(connection.ready({ ...options, waitMs: 300 }))).toMatchObject({
    code: "UNAVAILABLE",
    message: `no server at 127.0.0.1:${port} after waiting 0.3 s`,
  });
  connection.close();
});

test("a client that waits finds a server that comes up later", async () => {
  const port = await closedPort();
  const connection = dial({ kind: "tcp", host: "127.0.0.1", port });
  await failure(connection.ready({ signal: never }));
  const ready = connection.ready({ signal: never, waitMs: 20_000 });
  await using _ = await listenAt(`127.0.0.1:${port}`);
  await ready;
  connection.close();
});

test("a host that does not exist is named, and where it may have come from", async () => {
  const connection = dial({ kind: "tcp", host: "brew.invalid", port: 50052 });
  expect(await failure(connection.ready({ signal: never }))).toMatchObject({
    code: "UNAVAILABLE",
    message: "no such host: brew.invalid:50052",
    hint: expect.stringContaining("BREWCTL_ADDR"),
  });
  connection.close();
});
