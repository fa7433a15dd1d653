/** The flow-control window of a peer, by how far it is. */

import { connect } from "node:http2";
import { expect, test } from "vitest";
import { cutWire } from "../support/cut-wire.ts";
import { serveHandlers } from "../support/serve-handlers.ts";

/** Makes a call through a wire of this delay, and resolves with the windows of the connection then. */
async function windowOver(delayMs: number): Promise<number> {
  await using server = await serveHandlers({
    async *chat(messages) {
      for await (const message of messages) {
        yield message;
      }
    },
  });
  await using wire = await cutWire(server.port);
  wire.delay(delayMs);
  const session = connect(`http://127.0.0.1:${wire.port}`);
  try {
    await new Promise((resolve) => session.once("remoteSettings", resolve));
    const stream = session.request({
      ":method": "POST",
      ":path": "/orders.v1.StreamingService/Chat",
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.on("error", () => {});
    // A near peer's window has not changed when a later ping is answered.
    const answered = () => new Promise((resolve) => session.ping(resolve));
    await answered();
    await answered();
    await answered();
    return session.state.remoteWindowSize ?? 0;
  } finally {
    session.destroy();
  }
}

test("a far peer may have more on its way than a near one", async () => {
  expect(await windowOver(0)).toBe(65_535);
  expect(await windowOver(510)).toBe(512 * 1024);
});
