/** Listening on a unix socket, and whom it pushes aside. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, lstatSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { describe, expect, test } from "vitest";
import type { Address } from "../../src/address.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { implement, listen, type RunningServer } from "../../src/grpc/serve.ts";
import { bindWithMode } from "../../src/grpc/socket-mode.ts";
import { reap } from "../support/reaper.ts";
import { collect, failure, unbounded } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testLog } from "../support/test-log.ts";

async function listenAt(
  path: string,
  { peers = [], socketMode }: { peers?: string[]; socketMode?: number } = {},
): Promise<AsyncDisposable> {
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
    socketMode,
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
    await using _ = await listenAt(path, { peers });
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
  reap(child);
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

describe("who may connect to it", () => {
  const modeOf = (path: string) => lstatSync(path).mode & 0o777;

  /** Sets the umask of this process until the end of the scope. */
  function withUmask(umask: number): Disposable {
    const before = process.umask(umask);
    return { [Symbol.dispose]: () => void process.umask(before) };
  }

  test.each([0o000, 0o022, 0o077, 0o777])(
    "is the owner and the group, or whom the mode says, with a umask of %o",
    async (umask) => {
      using folder = tempFolder();
      using _ = withUmask(umask);
      await using usual = await listenAt(folder.file("usual"));
      await using tight = await listenAt(folder.file("tight"), { socketMode: 0o600 });
      await using wide = await listenAt(folder.file("wide"), { socketMode: 0o666 });
      expect(["usual", "tight", "wide"].map((name) => modeOf(folder.file(name)))).toEqual([
        ...[0o660, 0o600, 0o666],
      ]);
      expect(process.umask()).toBe(umask);
      expect([usual, tight, wide]).toHaveLength(3);
    },
  );

  test("is never more than that, not even at the moment when it is bound", async () => {
    using folder = tempFolder();
    using _ = withUmask(0);
    const path = folder.file("s");
    const server = createServer();
    // A server that binds itself, since it does so before `listen` returns.
    const first = await bindWithMode(0o600, async () => {
      server.listen(path);
      return modeOf(path);
    });
    expect(first).toBe(0o600);
    await new Promise((resolve) => server.close(resolve));
  });

  test("is as each was asked for where several begin to listen together", async () => {
    using folder = tempFolder();
    using _ = withUmask(0o027);
    const modes = [0o600, 0o666, 0o660, 0o777];
    const servers = await Promise.all(
      modes.map((socketMode, i) => listenAt(folder.file(`${i}`), { socketMode })),
    );
    expect(modes.map((_, i) => modeOf(folder.file(`${i}`)))).toEqual(modes);
    expect(process.umask()).toBe(0o027);
    for (const server of servers) {
      await server[Symbol.asyncDispose]();
    }
  });

  test("does not depend on what else the process does, which sees the umask as it was", async () => {
    using folder = tempFolder();
    using _ = withUmask(0o022);
    const seen = new Set<number>();
    let isOver = false;
    const watch = () => {
      seen.add(process.umask());
      if (!isOver) {
        setImmediate(watch);
      }
    };
    watch();
    await using _server = await listenAt(folder.file("s"), { socketMode: 0o600 });
    isOver = true;
    expect([...seen]).toEqual([0o022]);
  });

  test("stays so when it could not be bound", async () => {
    using _ = withUmask(0o022);
    expect(await failure(listenAt("/proc/nowhere.sock"))).toMatchObject({ name: "UsageError" });
    expect(process.umask()).toBe(0o022);
  });
});
