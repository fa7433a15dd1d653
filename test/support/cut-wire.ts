/** A TCP proxy that does to a connection what networks do: cut it, swallow it, slow it down. */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface CutWire extends AsyncDisposable {
  /** Dial this instead of the server. */
  readonly port: number;
  /** How many bytes have come from those who dialled. */
  readonly bytesUp: number;
  /** Breaks the connections there are, with a reset; new ones are refused until `heal`. */
  cut(): void;
  /** From now on nothing passes in either direction, and nobody is told. */
  blackhole(): void;
  /** Takes and passes new connections again; those swallowed before stay so. */
  heal(): void;
  /** Holds every chunk back for so long, in milliseconds, in each direction. */
  delay(ms: number): void;
  /** Passes each chunk on its way to the server as this function returns it. */
  alter(change: (chunk: Buffer) => Buffer): void;
  /**
   * Passes so many bytes per second in each direction, shared by all connections. What does not pass in
   * time is left to the sender's kernel. It is for connections that are made after this call.
   */
  rate(bytesPerSecond: number): void;
}

/** The chunk that a slow line passes at a time, in bytes. */
const slowChunk = 512;

/** How many chunks of a connection a slow line takes before it stops reading. */
const slowChunks = 8;

/** To a port of loopback, or to the path of a unix socket. */
export async function cutWire(target: number | string): Promise<CutWire> {
  const sockets = new Set<Socket>();
  let mode: "pass" | "cut" | "blackhole" = "pass";
  let bytesUp = 0;
  let delayMs = 0;
  let altered = (chunk: Buffer) => chunk;
  let bytesPerMs = Number.POSITIVE_INFINITY;
  /** When the line will have passed what it was given, for each direction. */
  const freeAt = { up: 0, down: 0 };

  /** Passes on at the line's rate what is read; connections take turns, a chunk at a time. */
  const slowly = (from: Socket, to: Socket, way: "up" | "down") => {
    const chunks: Buffer[] = [];
    let delivered: Promise<unknown> = Promise.resolve();
    let isPassing = false;
    const passAll = async () => {
      isPassing = true;
      for (let chunk = chunks.shift(); chunk !== undefined; chunk = chunks.shift()) {
        const passing = chunk;
        freeAt[way] = Math.max(performance.now(), freeAt[way]) + passing.length / bytesPerMs;
        await sleep(Math.max(0, freeAt[way] - performance.now()));
        const arrived = sleep(delayMs);
        delivered = delivered.then(() => arrived).then(() => to.write(passing));
        if (chunks.length < slowChunks) {
          from.resume();
        }
      }
      isPassing = false;
    };
    return (bytes: Buffer) => {
      for (let at = 0; at < bytes.length; at += slowChunk) {
        chunks.push(bytes.subarray(at, at + slowChunk));
      }
      if (chunks.length >= slowChunks) {
        from.pause();
      }
      if (!isPassing) {
        passAll();
      }
    };
  };

  const server = createServer((inner) => {
    if (mode === "cut") {
      inner.resetAndDestroy();
      return;
    }
    const outer =
      typeof target === "number" ? connect(target, "127.0.0.1") : connect({ path: target });
    let isSwallowed = mode === "blackhole";
    const pass = (
      from: Socket,
      to: Socket,
      {
        way,
        changed = (chunk) => chunk,
      }: { way: "up" | "down"; changed?: (chunk: Buffer) => Buffer },
    ) => {
      sockets.add(from);
      const passSlowly =
        bytesPerMs === Number.POSITIVE_INFINITY ? undefined : slowly(from, to, way);
      // What was held back passes in order, also when the delay is less meanwhile.
      let held: Promise<unknown> = Promise.resolve();
      let holding = 0;
      from.on("data", (original: Buffer) => {
        const chunk = changed(original);
        bytesUp += way === "up" ? chunk.length : 0;
        isSwallowed ||= mode === "blackhole";
        if (isSwallowed) {
          return;
        }
        if (passSlowly !== undefined) {
          passSlowly(chunk);
        } else if (delayMs > 0 || holding > 0) {
          const due = sleep(delayMs);
          const before = held;
          holding += 1;
          held = due
            .then(() => before)
            .then(() => {
              holding -= 1;
              to.write(chunk);
            });
        } else if (!to.write(chunk)) {
          from.pause();
          to.once("drain", () => from.resume());
        }
      });
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        if (!isSwallowed && mode !== "blackhole") {
          to.destroy();
        }
      });
    };
    pass(inner, outer, { way: "up", changed: (chunk) => altered(chunk) });
    pass(outer, inner, { way: "down" });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  return {
    port: (server.address() as { port: number }).port,
    get bytesUp() {
      return bytesUp;
    },
    cut() {
      mode = "cut";
      for (const socket of sockets) {
        // A unix socket knows no reset.
        if (socket.localAddress === undefined) {
          socket.destroy();
        } else {
          socket.resetAndDestroy();
        }
      }
    },
    blackhole() {
      mode = "blackhole";
    },
    heal() {
      mode = "pass";
    },
    delay(ms) {
      delayMs = ms;
    },
    alter(change) {
      altered = change;
    },
    rate(bytesPerSecond) {
      bytesPerMs = bytesPerSecond / 1000;
    },
    async [Symbol.asyncDispose]() {
      mode = "cut";
      for (const socket of sockets) {
        socket.destroy();
      }
      server.close();
      await once(server, "close");
    },
  };
}
