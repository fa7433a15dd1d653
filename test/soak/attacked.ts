/** A server that is attacked, with the good clients that want to be served meanwhile. */

import { type Ended, type Running, start } from "../support/brewctl.ts";
import { askProbe, type Figures, probeEnv } from "../support/probe-client.ts";
import type { TempFolder } from "../support/temp.ts";

export type Kind = "cloud" | "bridge";

/** How long the good clients took, in seconds; infinity for one that was not served. */
export interface GoodTimes {
  /** Five events of `brewctl subscribe` at a tick of 100 ms. */
  readonly subscribe?: number;
  /** Ten events of a store to the cloud, or of a till to the bridge. */
  readonly events?: number;
}

export interface Subject {
  readonly kind: Kind;
  readonly running: Running;
  readonly port: number;
  /** Lets the good clients have their turn. */
  good(): Promise<GoodTimes>;
  /** Rejects if the event loop does not come back within so many milliseconds. */
  ask(timeoutMs: number): Promise<Figures>;
  /** Kills a server that has stopped and starts another one with a new ledger or buffer. */
  replace(): Promise<void>;
  end(): Promise<void>;
}

/** How long a good client waits to be served, in milliseconds. */
const patienceMs = 20_000;

/** The number of files that many systems allow a process. A server must not need more. */
const fewFiles = ["sh", "-c", 'ulimit -n 1024; exec "$@"', "sh"];

/** Starts a server of this kind; a bridge has its cloud at `cloudPort`. */
export async function openSubject(kind: Kind, folder: TempFolder, cloudPort = 0): Promise<Subject> {
  let starts = 0;
  const probe = () => folder.file(`${kind}-${starts}.sock`);
  const begin = async (): Promise<{ running: Running; port: number }> => {
    starts += 1;
    const args =
      kind === "cloud"
        ? [
            ...["serve", "--addr", "127.0.0.1:0", "--tick", "100ms"],
            ...["--data-dir", folder.file(`ledger-${starts}`)],
          ]
        : [
            ...["store-sync", "run", "--store", "store-01", "--listen", "127.0.0.1:0"],
            ...["--buffer", folder.file(`bridge-${starts}.db`)],
            ...["--addr", `127.0.0.1:${cloudPort}`],
          ];
    const running = start(args, { env: probeEnv(probe()), under: fewFiles });
    const pattern = kind === "cloud" ? /port=(\d+)/ : /listen=127\.0\.0\.1:(\d+)/;
    const [, port] = await running.output(pattern);
    return { running, port: Number(port) };
  };
  let now = await begin();
  let passes = 0;

  const cloudTimes = async (): Promise<GoodTimes> => {
    const addr = ["--addr", `127.0.0.1:${now.port}`];
    const store = ["--store", "good-store", "--buffer", folder.file("good.db")];
    const record = start(["store-sync", "record", "--input", "-", ...store], {
      input: tenEvents(passes),
    });
    const { code, stderr } = await record.ended;
    if (code !== 0) {
      throw new Error(`the good store cannot record: ${stderr}`);
    }
    const [subscribe = 0, events = 0] = await Promise.all([
      timed(["subscribe", "--limit", "5", ...addr]),
      timed(["store-sync", "flush", ...store, ...addr]),
    ]);
    return { subscribe, events };
  };
  const bridgeTimes = async (): Promise<GoodTimes> => {
    const to = ["--store", "store-01", "--bridge", `127.0.0.1:${now.port}`];
    const args = ["store-sync", "record", "--input", "-", ...to];
    return { events: await timed(args, tenEvents(passes)) };
  };

  return {
    kind,
    get running() {
      return now.running;
    },
    get port() {
      return now.port;
    },
    async good() {
      passes += 1;
      return await (kind === "cloud" ? cloudTimes() : bridgeTimes());
    },
    ask: (timeoutMs) => askProbe(probe(), { signal: AbortSignal.timeout(timeoutMs) }),
    async replace() {
      await end(now.running);
      now = await begin();
    },
    end: () => end(now.running),
  };
}

function tenEvents(pass: number): string {
  return Array.from(
    { length: 10 },
    (_, i) =>
      `${JSON.stringify({ eventId: `${process.pid}-${pass}-${i}`, type: "Sale", payload: "{}" })}\n`,
  ).join("");
}

/** How long a command took, in seconds. */
async function timed(args: readonly string[], input?: string): Promise<number> {
  const began = performance.now();
  const running = start(args, input === undefined ? {} : { input });
  const timeout = setTimeout(() => running.child.kill("SIGKILL"), patienceMs);
  const { code }: Ended = await running.ended;
  clearTimeout(timeout);
  return code === 0 ? (performance.now() - began) / 1_000 : Number.POSITIVE_INFINITY;
}

async function end(running: Running): Promise<void> {
  running.child.kill("SIGKILL");
  await running.ended;
}
