/** A cloud and a bridge for the fuzzer (fuzz.ts), and what can be wrong with them. */

import { Health } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { BridgeApi } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import type { Answer } from "../support/attacks/answers.ts";
import { untilAborted } from "../support/attacks/patience.ts";
import { Peer } from "../support/attacks/peer.ts";
import { type Running, start } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";
import { type FuzzCase, type FuzzedServer, writesOf } from "./fuzz-case.ts";

/** How long a case waits for an answer before it goes away, in milliseconds: some calls are endless. */
const patienceMs = 100;

/** How long a server may take to read a case, in milliseconds; it need not read all of it. */
const takenMs = 2_000;

/** How long a good call may take, in milliseconds. */
const goodMs = 15_000;

/** What a log must not have: a fault of ours, or a stack. */
const faultInLog = /handler failed|^ERROR|^\s+at .+:\d+:\d+|a fault inside brewctl/m;

/** Starts and replaces the servers, calls them and looks for trouble. */
export class FuzzedServers implements AsyncDisposable {
  #files = tempFolder("fuzz-");
  readonly #running = new Map<FuzzedServer, { process: Running; port: number; logRead: number }>();

  /** Starts new servers with new files, instead of those that there are. */
  async start(): Promise<void> {
    await this.#end();
    this.#files = tempFolder("fuzz-");
    const serve = ["serve", "--addr", "127.0.0.1:0", "--tick", "10ms"];
    const cloud = start([...serve, "--data-dir", this.#files.file("ledger")]);
    const [, port] = await cloud.output(/port=(\d+)/);
    this.#running.set("cloud", { process: cloud, port: Number(port), logRead: 0 });
    const bridge = start([
      ...["store-sync", "run", "--store", "store-01", "--listen", "127.0.0.1:0"],
      ...["--buffer", this.#files.file("buffer.db"), "--addr", `127.0.0.1:${port}`],
    ]);
    const [, at] = await bridge.output(/listen=127\.0\.0\.1:(\d+)/);
    this.#running.set("bridge", { process: bridge, port: Number(at), logRead: 0 });
  }

  /** Makes a random call and goes away from it after a moment. */
  async call(fuzzed: FuzzCase): Promise<Answer> {
    const { port = 0 } = this.#running.get(fuzzed.at) ?? {};
    using peer = new Peer({ port });
    const call = peer.openPath(fuzzed.path, { headers: fuzzed.headers });
    const taken = AbortSignal.timeout(takenMs);
    for (const bytes of writesOf(fuzzed)) {
      if (!taken.aborted) {
        await untilAborted(call.send(bytes), taken);
      }
    }
    if (fuzzed.end === "half-close") {
      call.stream?.end();
    } else if (fuzzed.end === "reset") {
      call.stream?.close(8);
    }
    // The server has the call before the patience begins, however busy the machine is.
    await peer.seen({ signal: taken });
    let answer: Answer = { kind: "no answer", message: "" };
    await untilAborted(
      call.ended.then((came) => {
        answer = came;
      }),
      AbortSignal.timeout(patienceMs),
    );
    return answer;
  }

  /** What is wrong with a server; undefined if nothing is. */
  async trouble(): Promise<string | undefined> {
    for (const [name, server] of this.#running) {
      const { process: running, port } = server;
      const log = running.stderr.slice(server.logRead);
      server.logRead = running.stderr.length;
      const line = faultInLog.exec(log);
      const good = await goodAnswers(name, port);
      const what =
        running.child.exitCode !== null || running.child.signalCode !== null
          ? `the process ended with ${running.child.exitCode ?? running.child.signalCode}`
          : good !== "OK, OK"
            ? `good calls are answered with: ${good}`
            : line !== null
              ? `in the log: ${log.slice(line.index, line.index + 300)}`
              : undefined;
      if (what !== undefined) {
        return `${name}: ${what}`;
      }
    }
    return undefined;
  }

  async #end(): Promise<void> {
    for (const { process: running } of this.#running.values()) {
      running.child.kill("SIGKILL");
      await running.ended;
    }
    this.#running.clear();
    this.#files[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }
}

/** How good calls are answered, such as `OK, OK`. */
async function goodAnswers(name: FuzzedServer, port: number): Promise<string> {
  using peer = new Peer({ port });
  const good =
    name === "cloud"
      ? peer.call(StreamingService.method.subscribe, { limit: 1 })
      : peer.call(BridgeApi.method.bridgeStatus, {});
  let kinds = `no answer within ${goodMs} ms`;
  await untilAborted(
    Promise.all([good, peer.call(Health.method.check, {})]).then((answers) => {
      kinds = answers.map(({ kind }) => kind).join(", ");
    }),
    AbortSignal.timeout(goodMs),
  );
  return kinds;
}
