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
import { type Line, parsedLines, RefusedLines } from "../input.ts";
import { ndjson } from "../output.ts";
import { parseEvent } from "./event-input.ts";
import { newIds } from "./new-id.ts";
import { type RecordFlags, tellRecorded, timeOf } from "./record.ts";

type TillEvent = MessageInitShape<typeof TillEventSchema>;

/** An event of the input that was sent. */
interface Sent {
  /** Where its line stands. */
  readonly where: string;
  readonly event: NewEvent;
}

export async function recordAtBridge(
  address: Address,
  flags: RecordFlags,
  { terminal, clock, stdin, interrupted }: CommandContext,
): Promise<Exit> {
  const now = () => clock.now();
  const making = { newId: newIds(now), now };
  const timestamp = timeOf(flags, now());
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
    const { type = "", payload = "", eventId = making.newId() } = flags;
    const event = { type, payload, eventId, timestamp };
    const fault = faultOfNew(event);
    if (fault !== undefined) {
      throw new StatusError("INVALID_ARGUMENT", fault);
    }
    const ack = await client.recordEvent(onWire(event, flags), { signal }).catch((error) => {
      if (error instanceof Stop) {
        terminal.complain(`brewctl: ${tellWithoutAnswer(eventId)}`);
      }
      throw isTransient(error) ? withoutAnswer(error, eventId) : error;
    });
    await print(type, ack);
    return 0;
  }

  async function recordAll(path: string): Promise<Exit> {
    /** The events that have no answer yet, in order. */
    const unanswered: Sent[] = [];
    const refused = new RefusedLines(terminal);
    let sent = 0;
    let recorded = 0;

    const parse = (line: Line): Sent => {
      const event = parseEvent(line, making);
      const fault = faultOfNew(event);
      if (fault !== undefined) {
        throw new UsageError(`${line.where}: ${fault}`);
      }
      return { where: line.where, event };
    };

    async function* sending(): AsyncGenerator<TillEvent, void> {
      for await (const next of parsedLines(path, { stdin, signal, parse, refused })) {
        sent += 1;
        unanswered.push(next);
        yield onWire(next.event, flags);
      }
    }

    let isOver = false;
    try {
      for await (const ack of client.recordEvents(sending(), { signal })) {
        const { where = "", event } = unanswered.shift() ?? {};
        if (ack.code === 0) {
          recorded += 1;
          await print(event?.type ?? "", ack);
        } else {
          refused.add(new UsageError(`${where}: ${ack.reason}`));
        }
      }
      if (unanswered.length > 0) {
        throw new StatusError("INTERNAL", "the bridge ended the stream before it was over");
      }
      isOver = true;
    } catch (error) {
      if (!(error instanceof Stop)) {
        throw error;
      }
      return error.exit || refused.exit;
    } finally {
      const summary = tellRecorded(recorded, refused.count);
      if (isOver) {
        terminal.say(summary);
      } else {
        terminal.complain(summary);
        for (const line of tellUnanswered(sent, unanswered)) {
          terminal.complain(plain(line));
        }
      }
    }
    return refused.exit;
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

/** Why the bridge would refuse the event; undefined if it would not. */
function faultOfNew(event: NewEvent): string | undefined {
  const { eventId, timestamp = 0 } = event;
  const fault = faultOfEvent({ ...event, timestamp }, maxRecordedPayloadBytes);
  return fault === undefined ? undefined : `event ${JSON.stringify(eventId)}: ${fault}`;
}

function onWire(event: NewEvent, { store }: RecordFlags): TillEvent {
  const { type, payload, eventId, timestamp } = event;
  return {
    ...{ type, payload, eventId },
    storeId: store ?? "",
    ...(timestamp === undefined ? {} : { timestamp: BigInt(timestamp) }),
    checksum: checksumOf({ ...event, timestamp }),
  };
}

function withoutBridge({ code, message }: StatusError): StatusError {
  return new StatusError(code, message.replace(/^no server at/, "no bridge at"), {
    hint: "start it with: brewctl store-sync run; or record into its file, without --bridge",
  });
}

/** What is said of events that were sent and have no answer; nothing if there are none. */
function tellUnanswered(sent: number, unanswered: readonly Sent[]): string[] {
  const [first] = unanswered;
  return first === undefined
    ? []
    : [
        `sent ${sent}, ${sent - unanswered.length} answered, ${unanswered.length} without an answer, which may or may not be recorded`,
        `  record them again, from ${first.where} on; this is safe for lines that have an eventId`,
      ];
}

function tellWithoutAnswer(eventId: string): string {
  return `event ${plain(eventId)} has no answer and may or may not be recorded; record it again, under the same eventId`;
}

function withoutAnswer({ code, message }: StatusError, eventId: string): StatusError {
  return new StatusError(code, message, { hint: tellWithoutAnswer(eventId) });
}
