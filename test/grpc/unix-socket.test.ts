/** Listening on a unix socket, and whom it pushes aside. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Address } from "../../src/address.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { implement, listen, type RunningServer } from "../../src/grpc/serve.ts";
import { collect, failure, unbounded } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testLog } from "../support/test-log.ts";

async function listenAt(path: string, peers: string[] = []): Promise<AsyncDisposable> {
  const lesson = implement(
    StreamingService,
    {
      async *subscribe(_, { peer }) {
        peers.push(peer);
        yield {};
      },
      async uploadOrders() {
        return {};
      },
      async *chat() {},
    },
    { bounds: unbounded },
  );
  const server: RunningServer = await listen({
    address: { kind: "unix", path },
    implementations: [lesson],
    log: testLog(),
  });
  expect(server.port).toBeUndefined();
  return {
    [Symbol.asyncDispose]: () => server.stop({ graceMs: 0, force: AbortSignal.abort() }),
  };
}

async function callAt(path: string): Promise<unknown> {
  const address: Address = { kind: "unix", path };
  const connection = dial(address);
  try {
    await connection.ready({ signal: never });
    const client = connection.client(StreamingService);
    const { messages, error } = await collect(client.subscribe({}, { signal: never }));
    return error ?? messages.length;
  } finally {
    connection.close();
  }
}

test("a server on a unix socket is called there, and takes its file away", async () => {
  using folder = tempFolder();
  const path = folder.file("brew.sock");
  const peers: string[] = [];
  {
    await using _ = await listenAt(path, peers);
    expect(await callAt(path)).toBe(1);
    expect(peers).toEqual(["unknown"]);
  }
  expect(existsSync(path)).toBe(false);
});

test("the socket of a server that was killed is replaced", async () => {
  using folder = tempFolder();
  const path = folder.file("brew.sock");
  const script = `require("net").createServer().listen(${JSON.stringify(path)}, () => console.log("up"))`;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "ignore"] });
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(existsSync(path)).toBe(true);
  await using _ = await listenAt(path);
  expect(await callAt(path)).toBe(1);
});

test("the socket of a server that lives is left alone", async () => {
  using folder = tempFolder();
  const path = folder.file("brew.sock");
  await using _ = await listenAt(path);
  const error = await failure(listenAt(path));
  expect(error).toMatchObject({
    name: "UsageError",
    message: `cannot listen on unix:${path}: it is already in use`,
  });
  expect(await callAt(path)).toBe(1);
});

test("a file that is no socket is left alone", async () => {
  using folder = tempFolder();
  const path = folder.file("orders.csv");
  writeFileSync(path, "precious");
  expect(await failure(listenAt(path))).toMatchObject({
    name: "UsageError",
    message: `cannot listen on unix:${path}: a file that is no socket is in the way`,
  });
  expect(readFileSync(path, "utf8")).toBe("precious");
});

test("a folder that does not exist is named", async () => {
  using folder = tempFolder();
  const path = folder.file("nowhere/brew.sock");
  expect(await failure(listenAt(path))).toMatchObject({ name: "UsageError" });
});

test("a client of a socket that is not there is told how to start a server", async () => {
  using folder = tempFolder();
  const path = folder.file("brew.sock");
  expect(await failure(callAt(path))).toMatchObject({
    code: "UNAVAILABLE",
    message: `no server at unix:${path}`,
    hint: `start one with: brewctl serve --addr unix:${path}`,
  });
});
