/**
 * The machine's clock is set while calls and connections wait. No duration may depend on it: neither a
 * deadline, nor the patience with a server that does not answer.
 */

import { afterEach, describe, expect, test, vi } from "vitest";
import { dial } from "../../src/grpc/dial.ts";
import { failure } from "../support/serve-handlers.ts";
import { loopback, never, serveLesson } from "../support/start-server.ts";
import { tcpServer } from "../support/tcp-server.ts";
import { closedPort } from "../support/temp.ts";

const hourMs = 3_600_000;

/** From now on the wall clock is ahead of what it was, or behind it. */
function setClock(aheadMs: number): void {
  const realNow = Date.now;
  vi.spyOn(Date, "now").mockImplementation(() => realNow() + aheadMs);
}
afterEach(() => {
  vi.restoreAllMocks();
});

describe.each([
  ["ahead by an hour", hourMs],
  ["back by an hour", -hourMs],
])("when the clock is set %s", (_, aheadMs) => {
  test("waiting for a server takes as long as was asked for", async () => {
    const connection = dial(loopback(await closedPort()));
    const begun = performance.now();
    const ended = failure(connection.ready({ signal: never, waitMs: 600 }));
    setClock(aheadMs);
    expect(await ended).toMatchObject({ code: "UNAVAILABLE" });
    expect(performance.now() - begun).toBeGreaterThanOrEqual(600);
    connection.close();
  });

  test("a server that accepts and stays silent is given up in time", async () => {
    const connected = Promise.withResolvers<void>();
    await using peer = await tcpServer(() => connected.resolve());
    const connection = dial(loopback(peer.port), { attemptMs: 400 });
    const begun = performance.now();
    const ended = failure(connection.ready({ signal: never }));
    await connected.promise;
    setClock(aheadMs);
    expect(await ended).toMatchObject({ code: "UNAVAILABLE" });
    expect(performance.now() - begun).toBeGreaterThanOrEqual(400);
    connection.close();
  });

  test("a call is over at its deadline, not before and not later", async () => {
    await using server = await serveLesson();
    const deadline = performance.now() + 800;
    const call = server.client.subscribe({ limit: 0 }, { signal: never, deadline });
    const iterator = call[Symbol.asyncIterator]();
    await iterator.next();
    setClock(aheadMs);
    const rest = (async () => {
      while (!(await iterator.next()).done) {}
    })();
    expect(await failure(rest)).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    expect(performance.now()).toBeGreaterThanOrEqual(deadline);
  });
});
