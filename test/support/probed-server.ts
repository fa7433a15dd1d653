/** The real `brewctl serve` with the probe in it, for tests of what a server keeps and withstands. */

import { expect } from "vitest";
import { Health } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import type { Answers } from "./attacks/answers.ts";
import { type AttackOptions, Peer, type Target } from "./attacks/peer.ts";
import { type Running, type RunOptions, type Served, serve } from "./brewctl.ts";
import { askProbe, probeEnv } from "./probe-client.ts";
import { type TempFolder, tempFolder } from "./temp.ts";

export interface ProbedServer extends Served, Target {
  readonly folder: TempFolder;
  /** The bytes that are in use after a garbage collection, in the heap and beside it. */
  held(): Promise<number>;
  /** The most of these bytes until they do not grow any more, while good calls are answered. */
  mostHeld(): Promise<number>;
}

/** How long the event loop of a server may take to come back, in milliseconds. */
const comesBackMs = 10_000;

/** Memory has come to rest when so many looks in a row saw no more than so many bytes of growth. */
const quietLooks = 4;
const quietBytes = 1024 * 1024;

/** Starts a server whose ledger is in `ledger` of a temporary folder that goes with it. */
export async function serveProbed(
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<ProbedServer> {
  const folder = tempFolder();
  const probe = folder.file("probe.sock");
  const all = ["--tick", "10ms", "--data-dir", folder.file("ledger"), ...args];
  const served = await serve(all, { ...options, env: probeEnv(probe) });
  const server = Object.create(null, Object.getOwnPropertyDescriptors(served)) as Served;
  const held = async () => {
    const asked = await askProbe(probe, { signal: AbortSignal.timeout(comesBackMs) });
    return asked.heapUsed + asked.external;
  };
  const probed: ProbedServer = Object.assign(server, {
    port: portOf(served.addr),
    folder,
    held,
    async mostHeld() {
      let most = 0;
      for (let quiet = 0; quiet < quietLooks; quiet++) {
        await stillServes(probed);
        const now = await held();
        if (now > most + quietBytes) {
          quiet = 0;
        }
        most = Math.max(most, now);
      }
      return most;
    },
    async [Symbol.asyncDispose]() {
      await served[Symbol.asyncDispose]();
      folder[Symbol.dispose]();
    },
  });
  return probed;
}

export const portOf = (addr: string): number => Number(addr.slice(addr.lastIndexOf(":") + 1));

/** Checks that the process is the one that was started and that it answers good calls. */
export async function stillServes(server: Running & Target): Promise<void> {
  using peer = new Peer(server);
  const answers = await Promise.all([
    peer.call(StreamingService.method.subscribe, { limit: 1 }),
    peer.call(Health.method.check, {}),
  ]);
  expect(answers.map(({ kind }) => kind)).toEqual(["OK", "OK"]);
  expect(server.child).toMatchObject({ exitCode: null, signalCode: null });
}

/** How long an attack of a test may last, in milliseconds. */
const maxAttackMs = 25_000;

/** Attacks, looks when everything has been sent, and then lets go. */
export async function during<T>(
  attack: (options: AttackOptions) => Promise<Answers>,
  look: () => Promise<T>,
): Promise<{ readonly answers: Answers; readonly seen: T }> {
  const seen = Promise.withResolvers<void>();
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, AbortSignal.timeout(maxAttackMs)]);
  const attacking = attack({ signal, onSent: seen.resolve });
  try {
    // An attack that fails has sent nothing.
    await Promise.race([seen.promise, attacking]);
    const found = await look();
    over.abort();
    return { seen: found, answers: await attacking };
  } finally {
    over.abort();
    await attacking;
  }
}

/** Attacks until every call has its answer. */
export async function answersTo(
  attack: (options: AttackOptions) => Promise<Answers>,
): Promise<Answers> {
  return await attack({ signal: AbortSignal.timeout(maxAttackMs) });
}
