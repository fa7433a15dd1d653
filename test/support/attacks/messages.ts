/** Attacks on the server's memory by large, half, compressed or unread messages. */

import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { StreamingService } from "../../../src/gen/orders/v1/streaming_pb.ts";
import { HeadOffice } from "../../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../../src/gen/sync/v1/sync_engine_pb.ts";
import { frame } from "../raw-call.ts";
import type { Answers } from "./answers.ts";
import { atOnce, untilAborted } from "./patience.ts";
import { type AttackOptions, gather, Peer, pathOf, requestOf, type Target } from "./peer.ts";
import { flags, frameOf, frameTypes, grpcHeaders, headerBlock, Wire } from "./wire.ts";

const mebibyte = 1024 * 1024;

/** The largest message that a server takes, in bytes. */
const maxMessage = 4 * mebibyte;

/** Sends one message of `bytes` bytes in DATA frames of one byte each. */
export async function byteFrames(
  target: Target,
  { bytes = maxMessage, onSent, signal }: AttackOptions & { readonly bytes?: number },
): Promise<Answers> {
  using wire = await Wire.dial(target);
  const headers = headerBlock(grpcHeaders(pathOf(StreamingService.method.uploadOrders)));
  await wire.write(frameOf(frameTypes.headers, flags.endHeaders, 1, headers), { signal });
  // The declared length is never reached, so that the message stays under way.
  const message = frame(Buffer.alloc(bytes - 1), { length: bytes });
  await wire.sendData(1, message, { frameBytes: 1, signal });
  onSent?.();
  await untilAborted(new Promise((resolve) => wire.socket.once("close", resolve)), signal);
  return wire.answers;
}

/** Opens streams and sends on each a few compressed messages, whose inflated size is `bytes` each. */
export async function gzipStreams(
  target: Target,
  {
    streams = 300,
    messages = 3,
    bytes = maxMessage,
    onSent,
    signal,
  }: AttackOptions & {
    readonly streams?: number;
    readonly messages?: number;
    readonly bytes?: number;
  },
): Promise<Answers> {
  using peer = new Peer(target);
  const text = "x".repeat(bytes - 64);
  const raw = requestOf(StreamingService.method.uploadOrders, { customerId: text }).subarray(5);
  const one = frame(gzipSync(raw), { flag: 1 });
  const calls = Array.from({ length: streams }, () =>
    peer.open(StreamingService.method.uploadOrders, { headers: { "grpc-encoding": "gzip" } }),
  );
  const all = Buffer.concat(Array.from({ length: messages }, () => one));
  await untilAborted(Promise.all(calls.map((call) => call.send(all))), signal);
  await peer.seen({ signal });
  onSent?.();
  return await gather(calls, { signal });
}

/** Opens streams and sends on each a message that lacks its last byte. */
export async function halfMessages(
  target: Target,
  {
    streams = 150,
    bytes = maxMessage,
    onSent,
    signal,
  }: AttackOptions & { readonly streams?: number; readonly bytes?: number },
): Promise<Answers> {
  using peer = new Peer(target);
  const half = frame(Buffer.alloc(bytes - 1), { length: bytes });
  const calls = Array.from({ length: streams }, () =>
    peer.open(StreamingService.method.uploadOrders),
  );
  await untilAborted(Promise.all(calls.map((call) => call.send(half))), signal);
  onSent?.();
  return await gather(calls, { signal });
}

/** Opens chats, sends large messages for as long as the server takes them, and reads no echo. */
export async function unreadChats(
  target: Target,
  {
    chats = 200,
    messages = 4,
    bytes = maxMessage - 1_024,
    onSent,
    signal,
  }: AttackOptions & {
    readonly chats?: number;
    readonly messages?: number;
    readonly bytes?: number;
  },
): Promise<Answers> {
  // A window of no bytes: the server can send no echo at all.
  using peer = new Peer(target, { settings: { initialWindowSize: 0 } });
  const one = requestOf(StreamingService.method.chat, {
    // The text of a message has a bound of its own.
    from: "x".repeat(bytes),
    text: "x",
  });
  const calls = Array.from({ length: chats }, () =>
    peer.open(StreamingService.method.chat, { reads: false }),
  );
  let sent = 0;
  const sending = Promise.all(
    calls.map(async (call) => {
      for (let i = 0; i < messages && !signal.aborted; i++) {
        await untilAborted(call.send(one), signal);
        sent += 1;
      }
    }),
  );
  // The server stops reading at some point, which is what it should do: that ends the sending.
  await Promise.race([sending, stalled(() => sent, { signal })]);
  onSent?.();
  return await gather(calls, { signal });
}

/** Resolves when a number has not changed for a second, or when the signal aborts. */
async function stalled(
  of: () => number,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  for (let before = -1; before !== of() && !signal.aborted; ) {
    before = of();
    await untilAborted(sleep(1_000), signal);
  }
}

/** Records large events, and then opens streams that list them and reads none. */
export async function unreadEvents(
  target: Target,
  {
    events = 200,
    bytes = 2 * mebibyte,
    readers = 8,
    onSent,
    signal,
  }: AttackOptions & {
    readonly events?: number;
    readonly bytes?: number;
    readonly readers?: number;
  },
): Promise<Answers> {
  using stack = new DisposableStack();
  // The window of one connection would make the recording slow.
  const peers = Array.from({ length: 4 }, () => stack.use(new Peer(target)));
  const payload = "x".repeat(bytes);
  await atOnce(
    peers.length,
    events,
    async (i) => {
      const event = { storeId: "large-events", eventId: `large-${i}`, type: "Sale", payload };
      await peers[i % peers.length]?.call(SyncEngine.method.uploadBufferedEvents, event);
    },
    { signal },
  );
  using reader = new Peer(target, { settings: { initialWindowSize: 0 } });
  const body = requestOf(HeadOffice.method.listEvents, {});
  const calls = Array.from({ length: readers }, () =>
    reader.open(HeadOffice.method.listEvents, { reads: false, body }),
  );
  await reader.seen({ signal });
  onSent?.();
  return await gather(calls, { signal });
}
