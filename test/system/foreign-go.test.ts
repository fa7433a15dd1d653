/**
 * brewctl beside grpc-go, both ways: the client of the one with the server of the other. What both
 * see must agree, also when a call is cut short.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { brewctl, type Served, serve, start } from "../support/brewctl.ts";
import { buildPeers, runPeer, servePeer, startPeer } from "../support/go-peer.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

let folder: TempFolder;
let peers: string;

beforeAll(async () => {
  folder = tempFolder();
  peers = folder.file("peers");
  await buildPeers(peers);
  // In milliseconds: on a machine that has never done it, it compiles grpc-go.
}, 600_000);

afterAll(() => folder[Symbol.dispose]());

/** How the server says that uploads ended, a line for each; waits until it has said so of `count`. */
async function uploadsEnded(server: Served, count: number): Promise<string[]> {
  await server.output(new RegExp(`^.*peer started.*\n(?:.*upload ended.*\n){${count}}`));
  return server.stderr.split("\n").filter((line) => line.includes("upload ended"));
}

// Between two records nothing is under way, so the server reads whatever ends the stream at once.
const slowUpload = ["upload", "--count", "10000", "--pause", "40ms"];

test("uploads of brewctl that are cancelled are never complete for a server in Go", async () => {
  await using server = await servePeer(peers);
  const cancels = 15;
  for (let i = 1; i <= cancels; i += 1) {
    await using client = start([...slowUpload, "--addr", server.addr]);
    await client.output(/^sent #3\b/m);
    client.child.kill("SIGINT");
    expect((await client.ended).signal).toBe("SIGINT");
    await uploadsEnded(server, i);
  }
  const ends = await uploadsEnded(server, cancels);
  expect(ends.filter((line) => !line.includes("client gone"))).toEqual([]);
  expect(ends).toHaveLength(cancels);
});

test("uploads of brewctl whose deadline passes are never complete for a server in Go", async () => {
  await using server = await servePeer(peers);
  const deadlines = 8;
  const codes: (number | null)[] = [];
  for (let i = 1; i <= deadlines; i += 1) {
    const args = ["--addr", server.addr, "--deadline", `${600 + 5 * i}ms`];
    codes.push((await brewctl([...slowUpload, ...args])).code);
    await uploadsEnded(server, i);
  }
  const ends = await uploadsEnded(server, deadlines);
  expect(ends.filter((line) => !line.includes("client gone"))).toEqual([]);
  expect(codes).toEqual(Array.from({ length: deadlines }, () => 68));
});

// Both at once, since they wait most of the time.
test.concurrent.for(["watch", "channel"])(
  "an idle %s pings a server in Go as often as it allows, and says so",
  async (command) => {
    // A client of ours pings every five seconds at first. grpc-go by default allows a ping every five
    // minutes; with seven seconds instead, the same happens in half a minute.
    const minPingMs = 7_000;
    await using server = await servePeer(peers, ["-min-ping", `${minPingMs}ms`, "-log-pings"]);
    using folder = tempFolder();
    const store = ["--store", "store-01", "--buffer", folder.file("buffer.db")];
    const recorded = await brewctl(["store-sync", "record", "--type", "Sale", ...store]);
    expect(recorded.code).toBe(0);
    await using client = start(["store-sync", command, ...store, "--addr", server.addr]);

    const [, firstPingMs] = await server.output(pingOn(1));
    if (Number(firstPingMs) < minPingMs) {
      // It is too fast for this server, which closes the connection after some of these pings. The next
      // connection must stay, and anyone who reads along must learn why there is another one.
      const again = new RegExp(`(?:${command} started[^]*){2}`);
      await server.output(again);
      const none = sleep(2 * minPingMs, undefined, { ref: false });
      const ping = await Promise.race([server.output(pingOn(2)), none]);
      expect(Number(ping?.[1] ?? Number.POSITIVE_INFINITY)).toBeGreaterThan(minPingMs);
      expect(client.stderr).toMatch(/\bpings?\b/);
    }
    expect(client.child.exitCode).toBe(null);
  },
);

/** A client's ping as the server in Go logs it, with the age of its connection in milliseconds. */
function pingOn(connection: number): RegExp {
  return new RegExp(`msg=ping connection=${connection} age_ms=(\\d+)`);
}

test("a client in Go that is interrupted is gone for brewctl's server", async () => {
  await using server = await serve(["--tick", "5ms"]);
  await using client = startPeer(peers, "subscribe", ["-addr", server.addr, "-count", "100000"]);
  await server.output(/^subscribe started/m);
  client.child.kill("SIGINT");
  expect((await client.ended).code).toBe(1);
  await server.output(/^subscribe ended: client gone sent=\d+$/m);
});

test("brewctl subscribes to a server in Go", async () => {
  await using server = await servePeer(peers, ["-tick", "1ms"]);
  const args = ["subscribe", "--addr", server.addr, "--limit", "200", "--customer", "cus-007"];
  const { code, stdout } = await brewctl([...args, "-o", "ndjson"]);
  expect(code).toBe(0);
  const events = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(new Set(events.map(({ orderId }) => orderId)).size).toBe(200);
  expect(events.every(({ customerId }) => customerId === "cus-007")).toBe(true);
  await server.output(/msg="subscribe ended: limit reached" sent=200/);
});

test("brewctl uploads to a server in Go, and they count the same", async () => {
  await using server = await servePeer(peers);
  const args = ["upload", "--addr", server.addr, "--pause", "0"];
  const { code, stdout } = await brewctl(args);
  expect(code).toBe(0);
  expect(stdout).toContain("summary: received=20 accepted=17 rejected=3 total_cents=3570");
  await server.output(/msg="upload ended" received=20 accepted=17 rejected=3$/m);
  expect(await brewctl([...args, "--fail-on-rejected"])).toMatchObject({ code: 3 });
});

test("brewctl chats with a server in Go, whose echoes come in order while it still sends", async () => {
  await using server = await servePeer(peers, ["-echo-delay", "20ms"]);
  const args = ["chat", "--addr", server.addr, "--count", "20", "--interval", "1ms"];
  const { code, stdout } = await brewctl([...args, "-o", "ndjson"]);
  expect(code).toBe(0);
  const texts = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).text);
  expect(texts).toEqual(Array.from({ length: 20 }, (_, i) => `echo: ping ${i + 1}`));
  await server.output(/msg="chat ended: client closed send"/);
});

test("a client in Go subscribes to brewctl's server", async () => {
  await using server = await serve(["--tick", "0"]);
  const args = ["-addr", server.addr, "-streams", "8", "-count", "500"];
  expect(await runPeer(peers, "subscribe", args)).toMatchObject({ messages: 4000 });
  await server.output(/^subscribe ended: limit reached sent=500$/m);
});

test("a client in Go uploads to brewctl's server, and they count the same", async () => {
  await using server = await serve();
  const args = ["-addr", server.addr, "-count", "20", "-bad", "3"];
  const counts = { accepted: 17, rejected: 3, totalCents: 3570 };
  expect(await runPeer(peers, "upload", args)).toMatchObject(counts);
  await server.output(/^upload ended received=20 accepted=17 rejected=3$/m);
});

test.each([
  { how: "one message at a time", window: "1" },
  { how: "without waiting for the echoes", window: "1000" },
])("a client in Go chats with brewctl's server, $how", async ({ window }) => {
  await using server = await serve(["--echo-delay", "0"]);
  const args = ["-addr", server.addr, "-streams", "4", "-count", "500", "-window", window];
  expect(await runPeer(peers, "chat", args)).toMatchObject({ messages: 2000 });
  await server.output(/^chat ended: client closed send$/m);
});
