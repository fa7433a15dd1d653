/** Floods of what HTTP/2 allows and no client needs. The server withstands them; tests keep it so. */

import { StreamingService } from "../../../src/gen/orders/v1/streaming_pb.ts";
import type { Answers } from "./answers.ts";
import { untilAborted } from "./patience.ts";
import { type AttackOptions, pathOf, requestOf, type Target } from "./peer.ts";
import { flags, frameOf, frameTypes, grpcHeaders, headerBlock, Wire } from "./wire.ts";

export interface FloodOptions extends AttackOptions {
  /** How many frames, or streams. */
  readonly count?: number;
}

const nothing = Buffer.alloc(0);
const subscribePath = pathOf(StreamingService.method.subscribe);
const subscribeHeaders = headerBlock(grpcHeaders(subscribePath));

/** Writes `count` pieces, a thousand at a time, and then waits for the connection's end or the signal. */
async function flood(
  target: Target,
  piece: (i: number) => Buffer,
  { count = 100_000, onSent, signal }: FloodOptions,
): Promise<Answers> {
  using wire = await Wire.dial(target);
  for (let i = 0; i < count && wire.isOpen && !signal.aborted; i += 1_000) {
    const pieces = Array.from({ length: Math.min(1_000, count - i) }, (_, j) => piece(i + j));
    await wire.write(Buffer.concat(pieces), { signal });
  }
  onSent?.();
  if (wire.isOpen) {
    await untilAborted(new Promise((resolve) => wire.socket.once("close", resolve)), signal);
  }
  return wire.answers;
}

/** Opens streams and resets each at once. */
export const rapidReset = (target: Target, options: FloodOptions): Promise<Answers> =>
  flood(
    target,
    (i) => {
      const streamId = 2 * i + 1;
      const cancel = Buffer.of(0, 0, 0, 8);
      return Buffer.concat([
        frameOf(frameTypes.headers, flags.endHeaders, streamId, subscribeHeaders),
        frameOf(frameTypes.reset, 0, streamId, cancel),
      ]);
    },
    options,
  );

export const settingsFlood = (target: Target, options: FloodOptions): Promise<Answers> =>
  flood(target, () => frameOf(frameTypes.settings, 0, 0, nothing), options);

export const pingFlood = (target: Target, options: FloodOptions): Promise<Answers> =>
  flood(target, () => frameOf(frameTypes.ping, 0, 0, Buffer.alloc(8)), options);

export const priorityFlood = (target: Target, options: FloodOptions): Promise<Answers> =>
  flood(
    target,
    (i) => frameOf(frameTypes.priority, 0, 2 * i + 1, Buffer.of(0, 0, 0, 0, 16)),
    options,
  );

/** Begins headers that never end. */
export const continuationFlood = (target: Target, options: FloodOptions): Promise<Answers> =>
  flood(
    target,
    (i) =>
      i === 0
        ? frameOf(frameTypes.headers, 0, 1, subscribeHeaders)
        : frameOf(frameTypes.continuation, 0, 1, headerBlock({ [`x-${i}`]: "y".repeat(100) })),
    options,
  );

/** Enters one long value into the table of HPACK and names it again and again, a byte a time. */
export async function hpackBomb(
  target: Target,
  { count = 4_000, onSent, signal }: FloodOptions,
): Promise<Answers> {
  using wire = await Wire.dial(target);
  // 0x40 enters the pair into the table, where its index is then 62, the first after the static ones.
  const name = headerBlock({ "x-bomb": "y".repeat(3_900) }).subarray(1);
  const entered = Buffer.concat([subscribeHeaders, Buffer.of(0x40), name]);
  const repeated = Buffer.alloc(count, 0x80 | 62);
  await wire.write(
    frameOf(frameTypes.headers, flags.endHeaders, 1, Buffer.concat([entered, repeated])),
    { signal },
  );
  const request = requestOf(StreamingService.method.subscribe, { limit: 1 });
  await wire.write(frameOf(frameTypes.data, flags.endStream, 1, request), { signal });
  onSent?.();
  await untilAborted(new Promise((resolve) => wire.socket.once("close", resolve)), signal);
  return wire.answers;
}

/** Greets like TLS does, as a client that was told to encrypt would. */
export const tlsHello = Buffer.from(
  "16030100310100002d0303000000000000000000000000000000000000000000000000000000000000000000000600130301002f0100",
  "hex",
);
