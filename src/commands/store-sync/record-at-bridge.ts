/**
 * `store-sync record --bridge`: what a till does. The events go to the store's bridge, which answers
 * when they are on its disk.
 *
 * rpc: sync.v1.BridgeApi/RecordEvent, RecordEvents (proto/sync/v1/bridge_api.proto)
 * handler: server/bridge-api.ts
 */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Address } from "../../address.ts";
import type { NewEvent } from "../../bridge/outbox.ts";
import { isTransient, StatusError, UsageError } from "../../errors.ts";
import { checksumOf } from "../../event-checksum.ts";
import {
  BridgeApi,
  type TillAck,
  TillAckSchema,
  type TillEventSchema,
} from "../../gen/sync/v1/bridge_api_pb.ts";
import { dial } from "../../grpc/dial.ts";
import { plain } from "../../plain.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import { faultOfEvent, maxRecordedPayloadBytes } from "../../store-event.ts";
import { bridgeApiAnswers } from "../answer-bounds.ts";
import type { CommandContext } from "../client-call.ts";
import { lines } from "../input.ts";
import { ndjson } from "../output.ts";
import { parseEvent } from "./event-input.ts";
import { newIds } from "./new-id.ts";
import type { RecordFlags } from "./record.ts";

type TillEvent = MessageInitShape<typeof TillEventSchema>;

export async function recordAtBridge(
  address: Address,
  flags: RecordFlags,
  { terminal, clock, stdin, interrupted }: CommandContext,
): Promise<Exit> {
  const newId = newIds(() => clock.now());
  const over = new AbortController();
  const signal = AbortSignal.any([interrupted, terminal.outputLost, over.signal]);
  // A bridge that has died without a word is noticed within seconds: a customer waits.
  const connection = dial(address, { isWatchful: true });
  const client = connection.client(BridgeApi, { bounds: bridgeApiAnswers });
  try {
    await connection.ready({ signal }).catch((error) => {
      throw error instanceof StatusError ? withoutBridge(error) : error;
    });
    return flags.input === undefined ? await recordOne() : await recordAll(flags.input);
  } catch (error) {
    if (error instanceof Stop) {
      return error.exit;
    }
    throw error;
  } finally {
    over.abort(new Stop("over"));
    connection.close();
  }

  async function recordOne(): Promise<Exit> {
    const { type = "", payload = "", eventId = newId(), timestamp } = flags;
    const event = onWire({ type, payload, eventId, timestamp }, flags);
    const ack = await client.recordEvent(event, { signal }).catch((error) => {
      throw isTransient(error) ? withoutAnswer(error, `event ${plain(eventId)} has`, "it") : error;
    });
    await print(type, ack);
    return 0;
  }

  async function recordAll(path: string): Promise<Exit> {
    /** Without an answer yet, in order. */
    const sent: { readonly where: string; readonly type: string }[] = [];
    let recorded = 0;
    let refused = 0;
    const refuse = (why: string) => {
      refused += 1;
      terminal.complain(`brewctl: ${plain(why)}`);
    };

    async function* sending(): AsyncGenerator<TillEvent, void> {
      for await (const line of lines(path, { stdin, signal })) {
        try {
          const event = onWire(parseEvent(line, newId), flags);
          sent.push({ where: line.where, type: event.type ?? "" });
          yield event;
        } catch (error) {
          if (!(error instanceof StatusError) || error.code !== "INVALID_ARGUMENT") {
            throw error;
          }
          refuse(error instanceof UsageError ? error.message : `${line.where}: ${error.message}`);
        }
      }
    }

    try {
      for await (const ack of client.recordEvents(sending(), { signal })) {
        const { where = "", type = "" } = sent.shift() ?? {};
        if (ack.code === 0) {
          recorded += 1;
          await print(type, ack);
        } else {
          refuse(`${where}: ${ack.reason}`);
        }
      }
      if (sent.length > 0) {
        throw new StatusError("INTERNAL", "the bridge ended the stream before it was over");
      }
    } catch (error) {
      throw withUnanswered(error, sent.length);
    } finally {
      const more = refused > 0 ? `, ${refused} refused` : "";
      terminal.say(`recorded ${recorded} ${recorded === 1 ? "event" : "events"}${more}`);
    }
    return refused > 0 ? 2 : 0;
  }

  async function print(type: string, ack: TillAck): Promise<void> {
    const { eventId, seq, duplicate } = ack;
    await terminal.print(
      flags.output === "ndjson"
        ? ndjson(TillAckSchema, ack)
        : `recorded [${plain(type)}] id=${plain(eventId)} seq=${seq}${duplicate ? " (it was already)" : ""}`,
    );
  }
}

/** Throws `StatusError` INVALID_ARGUMENT for what the bridge would refuse, and could not be sent at all. */
function onWire(event: NewEvent, { store }: RecordFlags): TillEvent {
  const { type, payload, eventId, timestamp } = event;
  const fault = faultOfEvent({ ...event, timestamp: timestamp ?? 0 }, maxRecordedPayloadBytes);
  if (fault !== undefined) {
    throw new StatusError("INVALID_ARGUMENT", `event ${JSON.stringify(eventId)}: ${fault}`);
  }
  return {
    ...{ type, payload, eventId, storeId: store ?? "" },
    ...(timestamp === undefined ? {} : { timestamp: BigInt(timestamp) }),
    checksum: checksumOf({ type, payload, eventId, timestamp }),
  };
}

function withoutBridge({ code, message }: StatusError): StatusError {
  return new StatusError(code, message.replace(/^no server at/, "no bridge at"), {
    hint: "start it with: brewctl store-sync run; or record into its file, without --bridge",
  });
}

/** The same error, and what it means for what was sent. */
function withUnanswered(error: unknown, count: number): unknown {
  if (!(error instanceof StatusError) || error instanceof UsageError || count === 0) {
    return error;
  }
  return count === 1
    ? withoutAnswer(error, "1 event has", "it")
    : withoutAnswer(error, `${count} events have`, "them");
}

function withoutAnswer(error: StatusError, events: string, them: "it" | "them"): StatusError {
  const ids = them === "it" ? "eventId" : "eventIds";
  const hint = `${events} no answer and may or may not be recorded; record ${them} again, under the same ${ids}`;
  return new StatusError(error.code, error.message, { hint, cause: error });
}
