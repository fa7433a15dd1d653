/** A TCP proxy that does to a connection what networks do: cut it, swallow it, slow it down. */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export interface CutWire extends AsyncDisposable {
  /** Dial this instead of the server. */
  readonly port: number;
  /** Breaks the connections there are, with a reset; new ones are refused until `heal`. */
  cut(): void;
  /** From now on nothing passes in either direction, and nobody is told. */
  blackhole(): void;
  /** Takes and passes new connections again; those swallowed before stay so. */
  heal(): void;
  /** Holds every chunk back for so long, in milliseconds, in each direction. */
  delay(ms: number): void;
}

export async function cutWire(targetPort: number): Promise<CutWire> {
  const sockets = new Set<Socket>();
  let mode: "pass" | "cut" | "blackhole" = "pass";
  let delayMs = 0;

  const server = createServer((inner) => {
    if (mode === "cut") {
      inner.resetAndDestroy();
      return;
    }
    const outer = connect(targetPort, "127.0.0.1");
    let isSwallowed = mode === "blackhole";
    const pass = (from: Socket, to: Socket) => {
      sockets.add(from);
      from.on("data", (chunk) => {
        isSwallowed ||= mode === "blackhole";
        if (isSwallowed) {
          return;
        }
        if (delayMs > 0) {
          setTimeout(() => to.write(chunk), delayMs);
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
    pass(inner, outer);
    pass(outer, inner);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");

  return {
    port: (server.address() as { port: number }).port,
    cut() {
      mode = "cut";
      for (const socket of sockets) {
        socket.resetAndDestroy();
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
