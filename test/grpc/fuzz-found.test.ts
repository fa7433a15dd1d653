/**
 * What the wire fuzzer (test/soak/fuzz.ts) has found, as small as it could be made. Each input is sent to
 * a real server, which must answer with a status that puts the blame on the client, and go on.
 */

import { expect, test } from "vitest";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { Peer, pathOf } from "../support/attacks/peer.ts";
import { serveProbed, stillServes } from "../support/probed-server.ts";
import { frame } from "../support/raw-call.ts";

interface Found {
  readonly title: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Each message in hexadecimal. */
  readonly messages: readonly string[];
  readonly kinds: readonly string[];
}

/** How long an answer may take, in milliseconds; a server that has stopped gives none. */
const answersMs = 10_000;

const found: readonly Found[] = [
  {
    title: "a cursor of -2^31 for a store without commands",
    path: pathOf(SyncEngine.method.watchCommands),
    messages: ["0a0a303030302d30302d30301080808080f8ffffffff01"],
    kinds: ["INVALID_ARGUMENT"],
  },
  {
    title: "events of two epochs whose seqs add up to more than 2^53",
    path: pathOf(SyncEngine.method.operationalChannel),
    // {event_id: "1", store_id: "s", type: "t", payload: "{}", seq: 2^53 - 1, epoch: "a"}, and "2", "b".
    messages: [
      "0a01311201731a0174" + "22027b7d" + "30ffffffffffffff0f" + "3a0161",
      "0a01321201731a0174" + "22027b7d" + "30ffffffffffffff0f" + "3a0162",
    ],
    kinds: ["OK"],
  },
];

test.each(found)("$title", async ({ path, headers = {}, messages, kinds }) => {
  await using server = await serveProbed();
  using peer = new Peer(server);
  const body = Buffer.concat(messages.map((hex) => frame(Buffer.from(hex, "hex"))));
  const late = new Promise<{ kind: string }>((resolve) =>
    AbortSignal.timeout(answersMs).addEventListener("abort", () => resolve({ kind: "no answer" })),
  );
  const { kind } = await Promise.race([peer.openPath(path, { headers, body }).ended, late]);
  expect(kinds).toContain(kind);
  // What was stored must not end a later call, such as the list of all stores.
  expect(await peer.call(HeadOffice.method.listStores, {})).toMatchObject({ kind: "OK" });
  expect(server.stderr).not.toMatch(/^ERROR/m);
  await stillServes(server);
});

test("a call that breaks off with a false length after the headers of its answer does not stop the server", async () => {
  await using server = await serveProbed();
  // Node forgot the stream before nghttp2 had its trailers, more often than not.
  for (let i = 0; i < 8; i++) {
    using peer = new Peer(server);
    const body = frame(Buffer.alloc(44), { flag: 1, length: 2 ** 32 - 1 });
    const call = peer.open(SyncEngine.method.operationalChannel, { body });
    expect(await call.ended).toMatchObject({ kind: expect.stringMatching(/EXHAUSTED|UNIMPL/) });
    await stillServes(server);
  }
});
