/**
 * (i) The lesson's server beside the same server on grpc-go, and our client beside a client on
 * grpc-go. One load client in Go drives both servers in turn, with messages of 100 bytes. Only where
 * there is a Go toolchain.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import {
  type OrderInput,
  OrderInputSchema,
  StreamingService,
} from "../src/gen/orders/v1/streaming_pb.ts";
import { type Client, dial } from "../src/grpc/dial.ts";
import { type Figure, figure, inTurn, type Target } from "./measure.ts";
import {
  buildPeers,
  canRunGo,
  type Load,
  type LoadResult,
  type PeerServer,
  runLoad,
  serveBrewctl,
  servePeers,
} from "./peer-programs.ts";
import { cpuMs } from "./processes.ts";

const rounds = 5;
const warmUp = 1;
const messageBytes = 100;

/** The server in Go gets so many times the messages, so that its rounds are not too short. */
const moreForGo = 3;

interface Contest {
  readonly name: string;
  readonly what: string;
  /** The load of so many messages. */
  readonly load: (count: number) => Load;
  /** How many messages of each stream a round has for our server: about a second. */
  readonly count: number;
  readonly target?: Target;
}

const streams = (count: number) => ["-streams", String(count)];
const window = (messages: number) => ["-window", String(messages)];
const sized = (count: number) => ["-count", String(count), "-bytes", String(messageBytes)];

const contests: readonly Contest[] = [
  {
    ...{ name: "subscribe/1", what: "1 subscriber", count: 80_000, target: { atLeast: 0.28 } },
    load: (count) => ["subscribe", ...sized(count)],
  },
  {
    ...{ name: "subscribe/50", what: "50 subscribers", count: 1_600, target: { atLeast: 0.28 } },
    load: (count) => ["subscribe", ...sized(count), ...streams(50)],
  },
  {
    ...{ name: "upload", what: "an upload of 200,000", count: 200_000, target: { atLeast: 0.3 } },
    load: (count) => ["upload", ...sized(count)],
  },
  {
    ...{ name: "ping-pong", what: "a chat that waits for each echo", count: 5_000 },
    load: (count) => ["chat", ...sized(count)],
  },
  {
    ...{
      name: "pipelined/1",
      what: "a chat that does not",
      count: 40_000,
      target: { atLeast: 0.2 },
    },
    load: (count) => ["chat", ...sized(count), ...window(1_000)],
  },
  {
    ...{ name: "pipelined/50", what: "50 such chats", count: 800, target: { atLeast: 0.2 } },
    load: (count) => ["chat", ...sized(count), ...window(1_000), ...streams(50)],
  },
];

export async function peers(): Promise<Figure[]> {
  if (!canRunGo()) {
    console.error("peers: left out, since there is no Go here; get it from https://go.dev/dl");
    return [];
  }
  const folder = mkdtempSync(join(tmpdir(), "brewctl-bench-"));
  try {
    const program = join(folder, "peers");
    buildPeers(program);
    using ours = await serveBrewctl();
    using theirs = await servePeers(program);
    const figures: Figure[] = [];
    for (const contest of contests) {
      figures.push(...(await servers({ program, ours, theirs }, contest)));
    }
    return [...figures, ...(await uploadingClients(program, theirs))];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Servers {
  /** The load client. */
  readonly program: string;
  readonly ours: PeerServer;
  readonly theirs: PeerServer;
}

async function servers(
  { program, ours, theirs }: Servers,
  { name, what, load, count, target }: Contest,
): Promise<Figure[]> {
  const taken = { ours: [] as Cost[], theirs: [] as Cost[] };
  await inTurn(
    {
      ours: async () => {
        taken.ours.push(await costOf(ours, () => runLoad(program, ours, load(count))));
      },
      theirs: async () => {
        const theirLoad = load(count * moreForGo);
        taken.theirs.push(await costOf(theirs, () => runLoad(program, theirs, theirLoad)));
      },
    },
    { rounds, warmUp },
  );
  const bench = `peers/${name}`;
  const [our, their] = [taken.ours.slice(warmUp), taken.theirs.slice(warmUp)];
  const rate = ({ messages, seconds }: Cost) => messages / seconds;
  const serverUs = ({ messages, serverMs }: Cost) => (serverMs * 1000) / messages;
  return [
    figure(
      bench,
      `messages per second, ${what}, ours : grpc-go`,
      "×",
      ratios(our, their, rate),
      target,
    ),
    figure(`${bench}/ours`, "messages per second, ours", "/s", our.map(rate)),
    figure(`${bench}/theirs`, "messages per second, grpc-go", "/s", their.map(rate)),
    ...processor(`${bench}/cpu`, "a message costs the server", [our, their], serverUs),
  ];
}

/** What a round of load was and took. */
interface Cost extends LoadResult {
  /** The server's processor time in milliseconds; NaN where the system does not tell. */
  readonly serverMs: number;
}

async function costOf(server: PeerServer, run: () => Promise<LoadResult>): Promise<Cost> {
  const before = cpuMs(server.pid) ?? Number.NaN;
  const result = await run();
  return { ...result, serverMs: (cpuMs(server.pid) ?? Number.NaN) - before };
}

/** One round after the other, ours divided by theirs. */
function ratios(our: readonly Cost[], their: readonly Cost[], value: (cost: Cost) => number) {
  return our.map((cost, round) => {
    const other = their[round];
    return other === undefined ? Number.NaN : value(cost) / value(other);
  });
}

/** The microseconds of both; nothing where the system does not tell. */
function processor(
  bench: string,
  what: string,
  [our, their]: readonly [readonly Cost[], readonly Cost[]],
  value: (cost: Cost) => number,
): Figure[] {
  const [ourUs, theirUs] = [our.map(value), their.map(value)];
  return [...ourUs, ...theirUs].every(Number.isFinite)
    ? [
        figure(`${bench}/ours`, `${what}, ours`, "µs", ourUs),
        figure(`${bench}/theirs`, `${what}, grpc-go`, "µs", theirUs),
      ]
    : [];
}

const uploadCount = 150_000;

/** What a record costs either end when our client uploads to grpc-go, and when grpc-go's does. */
async function uploadingClients(program: string, server: PeerServer): Promise<Figure[]> {
  const taken = { ours: [] as Cost[], theirs: [] as Cost[] };
  const connection = dial({ kind: "tcp", host: "127.0.0.1", port: server.port });
  try {
    await inTurn(
      {
        ours: async () => {
          const upload = () => uploadFromHere(connection.client(StreamingService));
          taken.ours.push(await costOf(server, upload));
        },
        theirs: async () => {
          const load: Load = ["upload", ...sized(uploadCount * moreForGo)];
          taken.theirs.push(await costOf(server, () => runLoad(program, server, load)));
        },
      },
      { rounds, warmUp },
    );
  } finally {
    connection.close();
  }
  const [our, their] = [taken.ours.slice(warmUp), taken.theirs.slice(warmUp)];
  const rate = ({ messages, seconds }: Cost) => messages / seconds;
  const clientUs = ({ messages, cpuSeconds }: Cost) => (cpuSeconds * 1e6) / messages;
  const serverUs = ({ messages, serverMs }: Cost) => (serverMs * 1000) / messages;
  const bench = "peers/upload-client";
  const what = "records per second to grpc-go, our client : its own";
  return [
    figure(bench, what, "×", ratios(our, their, rate)),
    ...processor(`${bench}/client`, "a record costs the client", [our, their], clientUs),
    ...processor(`${bench}/server`, "it costs grpc-go's server, by client", [our, their], serverUs),
  ];
}

/** As `brewctl upload` does, but without its lines. The client is this process. */
async function uploadFromHere(client: Client<typeof StreamingService>): Promise<LoadResult> {
  const { signal } = new AbortController();
  const startedAt = performance.now();
  const before = process.cpuUsage();
  const { received } = await client.uploadOrders(records(), { signal });
  const { user, system } = process.cpuUsage(before);
  if (received !== uploadCount) {
    throw new Error(`the server received ${received} of ${uploadCount} records`);
  }
  return {
    messages: received,
    seconds: (performance.now() - startedAt) / 1000,
    cpuSeconds: (user + system) / 1e6,
  };
}

/** Each has `messageBytes` on the wire, of which 11 are not the customer's. */
async function* records(): AsyncGenerator<OrderInput, void> {
  const customerId = "cus-042".padEnd(messageBytes - 11, "x");
  for (let i = 0; i < uploadCount; i += 1) {
    yield create(OrderInputSchema, {
      customerId,
      amountCents: BigInt(100 + 10 * i),
      currency: "USD",
    });
  }
}
