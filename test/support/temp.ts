/** Things that tests borrow from the machine and give back. */

import { existsSync, mkdtempSync, rmSync, statfsSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { removeAtEnd } from "./reaper.ts";

export interface TempFolder extends Disposable {
  readonly path: string;
  /** The path of a file in it. */
  file(name: string): string;
}

/** A folder of its own for a test, removed at the end of the scope. */
export function tempFolder(prefix = "brewctl-"): TempFolder {
  return folderIn(tmpdir(), prefix);
}

/** The least free space that makes Linux's shared memory usable for a test's small files, in bytes. */
const minMemoryBytes = 64 * 1024 * 1024;

/**
 * A `tempFolder` whose files are in memory where the machine offers that, so that an fsync takes no
 * time. For tests that open hundreds of databases: on a busy disk each fsync takes up to 100 ms, and
 * such a test simulates crashes by copying files, which an fsync has no part in.
 */
export function memoryFolder(): TempFolder {
  const memory = "/dev/shm";
  const { bavail, bsize } = existsSync(memory) ? statfsSync(memory) : { bavail: 0, bsize: 0 };
  return folderIn(bavail * bsize >= minMemoryBytes ? memory : tmpdir(), "brewctl-");
}

function folderIn(parent: string, prefix: string): TempFolder {
  const path = mkdtempSync(join(parent, prefix));
  // A test that runs into its time limit does not get to the end of its scopes.
  removeAtEnd(path);
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]() {
      rmSync(path, { recursive: true, force: true });
    },
  };
}

/** A port of loopback on which nobody listens. */
export async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export interface MuteServer extends AsyncDisposable {
  readonly addr: string;
  /** Resolves when somebody has connected. */
  readonly dialled: Promise<void>;
}

/** Accepts connections, as TCP does, and never says anything. */
export async function muteServer(): Promise<MuteServer> {
  const dialled = Promise.withResolvers<void>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.resume();
    dialled.resolve();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    addr: `127.0.0.1:${port}`,
    dialled: dialled.promise,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) {
        socket.destroy();
      }
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
