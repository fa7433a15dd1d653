/** Attacks by number: streams, calls and connections that ask for nothing but room. */

import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { StreamingService } from "../../../src/gen/orders/v1/streaming_pb.ts";
import { BridgeApi } from "../../../src/gen/sync/v1/bridge_api_pb.ts";
import { Answers, unanswered } from "./answers.ts";
import { attackerSocket } from "./attacker-socket.ts";
import { atOnce, untilAborted } from "./patience.ts";
import { type AttackOptions, gather, Peer, pathOf, requestOf, type Target } from "./peer.ts";
import { flags, frameOf, frameTypes, grpcHeaders, headerBlock, Wire } from "./wire.ts";

/** Opens endless subscriptions on one connection, also beyond the number that the server allows. */
export async function idleSubscribes(
  target: Target,
  { streams = 10_000, onSent, signal }: AttackOptions & { readonly streams?: number },
): Promise<Answers> {
  using wire = await Wire.dial(target);
  const headers = headerBlock(grpcHeaders(pathOf(StreamingService.method.subscribe)));
  const request = requestOf(StreamingService.method.subscribe, { limit: 0 });
  for (let i = 0; i < streams && wire.isOpen && !signal.aborted; i++) {
    const streamId = 2 * i + 1;
    await wire.write(
      Buffer.concat([
        frameOf(frameTypes.headers, flags.endHeaders, streamId, headers),
        frameOf(frameTypes.data, flags.endStream, streamId, request),
      ]),
      { signal },
    );
  }
  onSent?.();
  await untilAborted(new Promise((resolve) => wire.socket.once("close", resolve)), signal);
  return wire.answers;
}

/** Opens streams of a till on one connection and records nothing. The target is a bridge's port. */
export async function idleTills(
  target: Target,
  { streams = 1_000, onSent, signal }: AttackOptions & { readonly streams?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const calls = Array.from({ length: streams }, () => peer.open(BridgeApi.method.recordEvents));
  await peer.seen({ signal });
  onSent?.();
  return await gather(calls, { signal });
}

/** Makes calls whose deadline has passed when they arrive. */
export async function instantDeadlines(
  target: Target,
  { calls = 10_000, onSent, signal }: AttackOptions & { readonly calls?: number },
): Promise<Answers> {
  using peer = new Peer(target, { maxDials: 100 });
  const body = requestOf(StreamingService.method.subscribe, { limit: 1 });
  const headers = { "grpc-timeout": "1n" };
  const all = Array.from({ length: calls }, () =>
    peer.open(StreamingService.method.subscribe, { headers, body }),
  );
  await peer.seen({ signal });
  onSent?.();
  return await gather(all, { signal });
}

/** Opens connections and says nothing on them. */
export async function silentConnections(
  target: Target,
  { connections = 1_100, onSent, signal }: AttackOptions & { readonly connections?: number },
): Promise<Answers> {
  const answers = new Answers();
  const sockets: Socket[] = [];
  const closed: Promise<void>[] = [];
  await atOnce(
    50,
    connections,
    async () => {
      const socket = connect(attackerSocket(target.port));
      sockets.push(socket);
      let why = "connection closed";
      socket.on("error", (error) => {
        why = String((error as NodeJS.ErrnoException).code);
      });
      socket.resume();
      closed.push(
        new Promise((resolve) =>
          socket.once("close", () => {
            answers.add({ kind: signal.aborted ? unanswered : why, message: "" });
            resolve();
          }),
        ),
      );
      await Promise.race([once(socket, "connect"), once(socket, "close")]).catch(() => {});
    },
    { signal },
  );
  onSent?.();
  await untilAborted(Promise.all(closed), signal);
  for (const socket of sockets) {
    socket.destroy();
  }
  await Promise.all(closed);
  return answers;
}
