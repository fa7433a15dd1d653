/**
 * BridgeApi (proto/sync/v1/bridge_api.proto): a store's tills and other programs record their events.
 * The client of ours is commands/store-sync/record.ts with --bridge.
 *
 * Whatever comes, over whatever stream, is recorded together by one GroupCommit, so that one fsync
 * serves all who wait, and a till that is alone waits for nobody.
 */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { Address } from "../address.ts";
import { Bell } from "../bell.ts";
import type { Appended, NewEvent } from "../bridge/outbox.ts";
import type { Clock } from "../clock.ts";
import { type StatusCode, StatusError, statusCodes } from "../errors.ts";
import { checksumOf } from "../event-checksum.ts";
import {
  BridgeApi,
  type BridgeStatusResponse,
  type TillAck,
  type TillEvent,
} from "../gen/sync/v1/bridge_api_pb.ts";
import type { GroupCommit } from "../group-commit.ts";
import {
  type CallContext,
  type Handlers,
  type Implementation,
  implement,
  listen,
  type RunningServer,
  type StopOptions,
} from "../grpc/serve.ts";
import { interruptible } from "../interruptible.ts";
import type { Logger } from "../log.ts";
import { mapped } from "../mapped.ts";
import { beginning, plain } from "../plain.ts";
import { readAhead } from "../read-ahead.ts";
import { faultOfName } from "../store-event.ts";
import { bridgeApiBounds } from "./bounds.ts";
import { withOperations } from "./index.ts";
import { RefusalLog } from "./refusal-log.ts";
import { type TillLimits, TillStreams } from "./till-streams.ts";

export interface BridgeApiOptions {
  readonly storeId: string;
  /** Appends to the outbox. */
  readonly commits: GroupCommit<NewEvent, Appended>;
  readonly status: () => Omit<BridgeStatusResponse, "$typeName" | "$unknown" | "tills">;
  readonly clock: Clock;
  /** How many streams tills may have open, where that differs from the defaults. */
  readonly tillLimits?: TillLimits;
  readonly log: Logger;
}

/** Without an answer, of a stream; then it is not read any further. */
const maxUnanswered = 256;

/** Of these events, in characters: with it a till that floods takes no more of our memory. */
const maxUnansweredSize = 1024 * 1024;

/** Of an id and a reason in an answer, in characters; an id that is recorded has no more. */
const maxIdLength = 128;
const maxReasonLength = 512;

type Code = Exclude<StatusCode, "OK">;
type Ack = Partial<Pick<TillAck, "eventId" | "seq" | "epoch" | "duplicate" | "code" | "reason">>;

export function bridgeApi({
  storeId,
  commits,
  status,
  clock,
  tillLimits,
  log,
}: BridgeApiOptions): Implementation {
  const streams = new TillStreams({ clock, limits: tillLimits });
  /** Said once, and not for each event that a till tries meanwhile. */
  let isStuck = false;

  const record = async (event: TillEvent, refusals: RefusalLog): Promise<Ack> => {
    const { eventId, type, payload, timestamp } = event;
    const refused = (why: StatusError): Ack => {
      const ack = refusal(eventId, why);
      const { reason } = ack;
      refusals.refused("event refused", { event_id: ack.eventId, code: why.code, reason });
      return ack;
    };
    // The outbox checks the other fields before it keeps anything of them.
    const fault = event.storeId === "" ? undefined : faultOfName("store_id", event.storeId);
    if (fault !== undefined) {
      return refused(new StatusError("INVALID_ARGUMENT", fault));
    }
    if (event.storeId !== "" && event.storeId !== storeId) {
      const message = `this is the bridge of store ${storeId}, not of ${event.storeId}`;
      return refused(new StatusError("PERMISSION_DENIED", message));
    }
    const at = timestamp === undefined ? undefined : Number(timestamp);
    if (
      event.checksum !== undefined &&
      event.checksum !== checksumOf({ eventId, type, payload, timestamp: at })
    ) {
      const message =
        "the event does not have its checksum: it was changed on the way; send it again";
      return refused(new StatusError("UNAVAILABLE", message));
    }
    try {
      const appended = await commits.add({ eventId, type, payload, timestamp: at });
      if (isStuck) {
        isStuck = false;
        log.info("recording again");
      }
      if (appended.kind === "refused") {
        return refused(appended.why);
      }
      const { seq, epoch } = appended.event;
      return { eventId, seq: BigInt(seq), epoch, duplicate: !appended.isNew };
    } catch (error) {
      if (error instanceof StatusError) {
        if (!isStuck) {
          isStuck = true;
          log.error("nothing can be recorded", { why: error.message, hint: error.hint });
        }
        return refusal(eventId, error);
      }
      throw error;
    }
  };

  /** Reads on while answers are due, but not without end. */
  async function* offered(
    events: AsyncIterable<TillEvent>,
    refusals: RefusalLog,
    { signal }: CallContext,
  ) {
    const room = new Bell();
    let size = 0;
    for await (const event of events) {
      const own = sizeOf(event);
      size += own;
      const ack = record(event, refusals).finally(() => {
        size -= own;
        room.ring();
      });
      // Whoever waits for it hears of it; the stream may have ended before that.
      ack.catch(() => {});
      // In an object: a promise that is yielded is waited for, and each event would have an fsync of
      // its own.
      yield { ack };
      while (size > maxUnansweredSize) {
        await room.next({ signal });
      }
    }
  }

  const handlers: Handlers<typeof BridgeApi> = {
    async recordEvent(event) {
      const ack = await record(event, new RefusalLog({ log }));
      if (ack.code !== undefined) {
        throw new StatusError(codeOf(ack.code), ack.reason ?? "");
      }
      return ack;
    },

    async *recordEvents(events, context) {
      const { peer } = context;
      using stream = streams.open(peer);
      const refusals = new RefusalLog({ log });
      log.debug(() => `till connected peer=${plain(peer)}`);
      let answered = 0;
      try {
        const heard = mapped(interruptible(events, stream), (event) => {
          stream.heard();
          return event;
        });
        for await (const { ack } of readAhead(offered(heard, refusals, context), maxUnanswered)) {
          yield await ack;
          answered += 1;
        }
      } finally {
        refusals.end({ peer });
        log.debug(() => `till gone peer=${plain(peer)} answered=${answered}`);
      }
    },

    async bridgeStatus() {
      return { ...status(), tills: streams.size };
    },
  };
  return implement(BridgeApi, handlers, { bounds: bridgeApiBounds });
}

function sizeOf({ eventId, type, payload, storeId }: TillEvent): number {
  return eventId.length + type.length + payload.length + storeId.length;
}

function refusal(eventId: string, { code, message }: StatusError) {
  return {
    eventId: beginning(eventId, maxIdLength),
    code: statusCodes[code],
    reason: beginning(message, maxReasonLength),
  };
}

function codeOf(number: number): Code {
  const [name] = Object.entries(statusCodes).find(([, known]) => known === number) ?? [];
  return (name ?? "UNKNOWN") as Code;
}

export interface BridgeServerOptions extends BridgeApiOptions {
  /** One at least. */
  readonly addresses: readonly Address[];
  /** As in `ListenOptions`. */
  readonly socketMode?: number;
}

export interface BridgeServer {
  /** Where it listens, with the port that was free where any was asked for. */
  readonly addresses: readonly Address[];
  /** As `RunningServer.stop`, on all addresses. */
  stop(options: StopOptions): Promise<void>;
}

/** Lets tills in on all of these addresses. Throws `UsageError` if it cannot listen on one of them. */
export async function serveBridgeApi(options: BridgeServerOptions): Promise<BridgeServer> {
  const { log, socketMode } = options;
  const { implementations, stopServing } = withOperations([bridgeApi(options)]);
  const servers: RunningServer[] = [];
  const addresses: Address[] = [];
  const stop = async (how: StopOptions) => {
    stopServing();
    // Whoever watches the health hears of it before the watch itself is ended.
    await nextTurn();
    await Promise.all(servers.map((server) => server.stop(how)));
  };
  try {
    for (const address of options.addresses) {
      const server = await listen({ address, socketMode, implementations, log });
      servers.push(server);
      addresses.push(address.kind === "tcp" ? { ...address, port: server.port ?? 0 } : address);
    }
  } catch (error) {
    await stop({ graceMs: 0, force: AbortSignal.abort() });
    throw error;
  }
  return { addresses, stop };
}
