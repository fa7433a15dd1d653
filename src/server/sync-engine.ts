/**
 * SyncEngine (proto/sync/v1/sync_engine.proto): events of stores into the ledger, commands out of
 * their queues. The clients are commands/store-sync/{flush,channel,watch}.ts.
 *
 * An answer leaves only after the commit of what it answers. All streams commit together, see
 * group-commit.ts, so that a fsync is shared by whoever waits for one.
 */

import { create } from "@bufbuild/protobuf";
import type { Box } from "../engine/boxes.ts";
import { type OfferedEvent, type Outcome, refusalOf } from "../engine/ledger.ts";
import { messageOf, StatusError } from "../errors.ts";
import { ackChecksum, summaryChecksum } from "../event-checksum.ts";
import {
  type CloudCommand,
  CloudCommandSchema,
  type EventAck,
  EventAckSchema,
  RefusalCode,
  RefusalSchema,
  type StoreEvent,
  SyncEngine,
  UploadSummarySchema,
} from "../gen/sync/v1/sync_engine_pb.ts";
import { type CallContext, type Handlers, type Implementation, implement } from "../grpc/serve.ts";
import type { Logger } from "../log.ts";
import { mapped } from "../mapped.ts";
import { merged } from "../merged.ts";
import { beginning, plain } from "../plain.ts";
import { readAhead } from "../read-ahead.ts";
import { faultOfName, maxNameBytes } from "../store-event.ts";
import { syncEngineBounds } from "./bounds.ts";
import type { Cloud, OpenCloud, Taken } from "./cloud.ts";
import type { Faults } from "./faults.ts";
import type { Questions } from "./questions.ts";
import { RefusalLog } from "./refusal-log.ts";

export interface SyncEngineOptions {
  readonly cloud: Cloud;
  readonly questions: Questions;
  readonly faults: Faults;
  readonly log: Logger;
}

/** Of a stream; then it is not read any further. Above any window that a store of ours has. */
export const maxUnanswered = 4096;

/** Named in a summary. A store of ours sends no more events than that in a call. */
export const maxRefusals = 500;

/**
 * Of an id in an answer, in characters: far more than an event that is taken may have. 500 refusals
 * that repeat whatever they were sent could be too long for any client.
 */
const maxIdLength = 1024;

/** How long a store is asked to wait before it sends a refused event again, in milliseconds. */
const retryAfterMs = 200;

interface Offered {
  readonly eventId: string;
  readonly answer: Outcome | Promise<Taken>;
}

/** Who a call is from, as its metadata says; undefined where it says nothing. */
interface Caller {
  readonly store: string | undefined;
  readonly epoch: string | undefined;
  /** Whether it promises a checksum with each event. */
  readonly hasChecksums: boolean;
  readonly box: Box | undefined;
}

/** What a message has brought: one event, or a bundle. */
interface OfferedBundle {
  readonly offers: readonly Offered[];
  /** Ends the call behind them. */
  readonly failure?: StatusError;
}

/** Of a bundle; the contract says so. */
export const maxBundle = 256;

export function syncEngine({ cloud, questions, faults, log }: SyncEngineOptions): Implementation {
  /** Offers a call's events to the ledger as they come, and tells the log what became of them. */
  function taking(messages: AsyncIterable<StoreEvent>, context: CallContext, open: OpenCloud) {
    const { commits, ledger } = open;
    const tally = { accepted: 0, duplicates: 0, refused: 0 };
    const refusals = new RefusalLog({ log });
    let { store, hasChecksums, box } = callerOf(context);
    let leave = store === undefined ? undefined : ledger.presence.enter(store);
    let came = 0;

    const offer = (event: StoreEvent): Offered["answer"] => {
      const taken = offered(event);
      if (hasChecksums && taken.messageChecksum === undefined) {
        // The bits that flipped have made another field of it.
        return { kind: "refused", code: "corrupt", reason: "the event has lost its checksum" };
      }
      const refusal = refusalOf(taken);
      if (refusal !== undefined) {
        return refusal;
      }
      if (store === undefined) {
        store = event.storeId;
        leave = ledger.presence.enter(store);
      }
      if (event.storeId !== store && hasChecksums) {
        // The event is intact, so the metadata is not: another call has to bring it.
        throw new StatusError(
          "DATA_LOSS",
          `the metadata names store ${JSON.stringify(store)}, and an intact event ${JSON.stringify(event.storeId)}`,
        );
      }
      if (event.storeId !== store) {
        const reason = `store_id is not ${JSON.stringify(store)}, whose stream this is`;
        return { kind: "refused", code: "invalid", reason };
      }
      if (faults.refuses()) {
        return { kind: "try later", reason: "refused on purpose (--fault-nack)" };
      }
      return faults.delayed(commits.add(taken), context);
    };

    const bundles = mapped(messages, (message): OfferedBundle => {
      if (store !== undefined && box !== undefined) {
        ledger.boxes.hear(store, box);
      }
      const { storeId, epoch, more } = message;
      if (more.length >= maxBundle) {
        const count = more.length + 1;
        throw new StatusError(
          "INVALID_ARGUMENT",
          `a bundle of ${count}; expected ${maxBundle} at most`,
        );
      }
      const offers: Offered[] = [];
      const take = (event: StoreEvent) => {
        came += 1;
        faults.dropsAt(came);
        log.debug(() => `[${short(event.storeId)}] ${short(event.type)} at ${timeOf(event)}`);
        const eventId = beginning(event.eventId, maxIdLength);
        offers.push({ eventId, answer: offer(event) });
      };
      try {
        take(message);
        for (const event of more) {
          event.storeId ||= storeId;
          event.epoch ||= epoch;
          take(event);
        }
        return { offers };
      } catch (error) {
        if (error instanceof StatusError && offers.length > 0) {
          return { offers, failure: error };
        }
        throw error;
      }
    });

    /** Throws if the ledger could not store it: then the call has no answer for what follows either. */
    const noted = (eventId: string, answer: Taken): Outcome => {
      if (answer.kind === "not stored") {
        const message = "the ledger cannot store events now; the server's log says why";
        throw new StatusError("UNAVAILABLE", message);
      }
      if (answer.kind === "accepted") {
        tally.accepted += 1;
      } else if (answer.kind === "duplicate") {
        tally.duplicates += 1;
      } else {
        tally.refused += 1;
        if (answer.kind === "refused") {
          const { code, reason } = answer;
          refusals.refused(`event refused: ${code}`, { store, event_id: eventId, reason });
        }
      }
      return answer;
    };

    const ended = (what: string, { signal }: CallContext, own = "") => {
      leave?.();
      refusals.end({ store });
      const why = signal.aborted ? (signal.reason as StatusError).message : own;
      log.info(`${what} ended${why && ": "}${why}`, { store: store ?? "unknown", ...tally });
    };
    const sizeOf = ({ offers }: OfferedBundle) => offers.length;
    return { bundles: readAhead(bundles, maxUnanswered, sizeOf), noted, tally, ended };
  }

  /** What the store should know of the ledger, before the first answer. */
  function introduce({ ledger }: OpenCloud, context: CallContext): Caller {
    const caller = callerOf(context);
    const { store, epoch, box, hasChecksums } = caller;
    if (store !== undefined && box !== undefined) {
      ledger.boxes.hear(store, box);
    }
    const seen =
      store === undefined || epoch === undefined
        ? {}
        : { "brewctl-seen": String(ledger.highestSeen(store, epoch)) };
    const promised = hasChecksums ? { "brewctl-checksums": "1" } : {};
    context.sendHeaders({
      ...{ "brewctl-ledger": ledger.id, "brewctl-bundles": "1" },
      ...seen,
      ...promised,
    });
    return caller;
  }

  const handlers: Handlers<typeof SyncEngine> = {
    async *watchCommands(
      { storeId, lastAppliedSequence, ledgerId, lastAppliedCommandId, answersQuestions },
      context,
    ) {
      const open = cloud.forCall();
      const { signal, flushed } = context;
      introduce(open, context);
      await open.know(storeId);
      const leave = open.ledger.presence.enter(storeId);
      const { box } = callerOf(context);
      const place = { box: box?.id, from: box?.from };
      log.info(`Store ${plain(storeId)} connected. Streaming commands...`, place);
      const cursor =
        lastAppliedSequence === undefined
          ? undefined
          : { sequence: Number(lastAppliedSequence), ledgerId, commandId: lastAppliedCommandId };
      let sent = 0;
      const commands = mapped(open.dispatch.watch(storeId, cursor, { flushed, signal }), commandOf);
      const asked = () =>
        mapped(questions.to(storeId, { signal }), (question) =>
          create(CloudCommandSchema, { question }),
        );
      try {
        for await (const message of answersQuestions ? merged(commands, asked()) : commands) {
          yield message;
          if (message.question !== undefined) {
            continue;
          }
          sent += 1;
          // Where two boxes speak for a store, the log tells which of them has got a command.
          if (box !== undefined && open.ledger.boxes.rivalOf(storeId, box) !== undefined) {
            const fields = { store: storeId, command_id: message.commandId, ...place };
            log.info("command sent to one of two boxes", fields);
          }
        }
      } finally {
        leave();
        const why = (signal.reason as StatusError | undefined)?.message ?? "";
        log.info(`Store ${plain(storeId)} disconnected: ${why}`, { sent });
      }
    },

    async uploadBufferedEvents(events, context) {
      const open = cloud.forCall();
      const { hasChecksums } = introduce(open, context);
      const { bundles, noted, tally, ended } = taking(events, context, open);
      const refusals = [];
      let why = "";
      try {
        for await (const { offers, failure } of bundles) {
          for (const { eventId, answer: due } of offers) {
            const answer = noted(eventId, await due);
            if (answer.kind !== "accepted" && answer.kind !== "duplicate") {
              if (refusals.length < maxRefusals) {
                refusals.push(create(RefusalSchema, { eventId, ...onWire(answer) }));
              }
            }
          }
          if (failure !== undefined) {
            throw failure;
          }
        }
        if (faults.losesAnswer()) {
          why = "summary lost on purpose (--fault-lose-ack)";
          throw new StatusError("UNAVAILABLE", why);
        }
        const { accepted, duplicates, refused } = tally;
        const rejected = duplicates + refused;
        const summary = { accepted, rejected, duplicates, refused, refusals };
        const checksum = hasChecksums ? { checksum: summaryChecksum(summary) } : {};
        return create(UploadSummarySchema, { ...summary, ...checksum });
      } catch (error) {
        why ||= messageOf(error);
        throw error;
      } finally {
        ended("flush", context, why);
      }
    },

    async *operationalChannel(events, context) {
      const open = cloud.forCall();
      const { hasChecksums } = introduce(open, context);
      const sealed = (ack: EventAck): EventAck =>
        hasChecksums ? Object.assign(ack, { checksum: ackChecksum(ack) }) : ack;
      const { bundles, noted, ended } = taking(events, context, open);
      let why = "store closed send";
      try {
        for await (const { offers, failure } of bundles) {
          /** Of events that were accepted in a row. */
          let ack: EventAck | undefined;
          for (const { eventId, answer: due } of offers) {
            const answer = noted(eventId, await due);
            if (faults.losesAnswer()) {
              continue;
            }
            if (ack !== undefined && answer.kind === "accepted") {
              ack.also.push(eventId);
              continue;
            }
            if (ack !== undefined) {
              yield sealed(ack);
              ack = undefined;
            }
            if (answer.kind === "accepted") {
              ack = ackOf(eventId, answer);
            } else {
              yield sealed(ackOf(eventId, answer));
            }
          }
          if (ack !== undefined) {
            yield sealed(ack);
          }
          if (failure !== undefined) {
            throw failure;
          }
        }
      } catch (error) {
        why = messageOf(error);
        throw error;
      } finally {
        ended("channel", context, why);
      }
    },

    async reportStatus(report, context) {
      const { box } = callerOf(context);
      const { ledger, report: keep } = cloud.forCall();
      const { storeId, epoch, version, ledgerId, parkedCommands, alarms } = report;
      const clockOffsetMs = await keep({
        ...{ storeId, epoch, version, ledgerId, parkedCommands, alarms },
        depth: Number(report.depth),
        bytes: Number(report.bytes),
        oldestUnacked: Number(report.oldestUnacked),
        parked: Number(report.parked),
        sentAt: Number(report.sentAt),
        receivedSequence: Number(report.receivedSequence),
        appliedSequence: Number(report.appliedSequence),
        commandsParked: Number(report.commandsParked),
      });
      if (box !== undefined) {
        ledger.boxes.hear(storeId, box);
      }
      const rival = box === undefined ? undefined : ledger.boxes.rivalOf(storeId, box);
      return {
        ledgerId: ledger.id,
        clockOffsetMs: BigInt(clockOffsetMs),
        otherBox: rival === undefined ? "" : `${rival.id} at ${rival.from}`,
      };
    },

    async answerDigest(parts) {
      await questions.answer(parts);
      return {};
    },
  };
  return implement(SyncEngine, handlers, { bounds: syncEngineBounds });
}

/** Throws INVALID_ARGUMENT for metadata that no store of that name or epoch could have sent. */
function callerOf({ metadata, peer }: CallContext): Caller {
  const [name] = metadata.get("brewctl-store");
  const [epoch] = metadata.get("brewctl-epoch");
  const [box] = metadata.get("brewctl-box");
  const caller = {
    store: name === undefined ? undefined : decodedName(String(name)),
    epoch: epoch === undefined || epoch === "" ? undefined : String(epoch),
    hasChecksums: metadata.get("brewctl-checksums").length > 0,
    box: box === undefined ? undefined : { id: String(box), from: hostOf(peer) },
  };
  const fault =
    faultIn("brewctl-store", caller.store) ??
    faultIn("brewctl-epoch", caller.epoch) ??
    (caller.box === undefined || /^[0-9A-Za-z]{1,64}$/.test(caller.box.id)
      ? undefined
      : "brewctl-box in the metadata is not 1 to 64 letters and digits");
  if (fault !== undefined) {
    throw new StatusError("INVALID_ARGUMENT", fault);
  }
  return caller;
}

/** The address without the port, which is another one for each connection. */
function hostOf(peer: string): string {
  return peer === "unknown" ? "a unix socket" : peer.replace(/:\d+$/, "");
}

function faultIn(key: string, value: string | undefined): string | undefined {
  return value === undefined ? undefined : faultOfName(`${key} in the metadata`, value);
}

function decodedName(name: string): string {
  try {
    return decodeURIComponent(name);
  } catch {
    throw new StatusError("INVALID_ARGUMENT", "brewctl-store in the metadata is not URI-encoded");
  }
}

/** Text of an event that was not checked yet, fit for a line of the log. */
function short(text: string): string {
  return plain(beginning(text, maxNameBytes));
}

function offered(event: StoreEvent): OfferedEvent {
  const { eventId, storeId, type, payload, timestamp, epoch, seq, checksum } = event;
  return {
    ...{ eventId, storeId, type, payload, epoch, messageChecksum: checksum },
    timestamp: Number(timestamp),
    seq: Number(seq),
  };
}

const refusalCodes = {
  invalid: RefusalCode.INVALID,
  conflict: RefusalCode.CONFLICT,
  "seq taken": RefusalCode.SEQ_TAKEN,
  corrupt: RefusalCode.CORRUPT,
} as const;

function onWire(answer: Extract<Outcome, { reason: string }>) {
  const { reason } = answer;
  return answer.kind === "try later"
    ? { code: RefusalCode.TRY_LATER, reason, retryable: true }
    : { code: refusalCodes[answer.code], reason, retryable: answer.code === "corrupt" };
}

function ackOf(eventId: string, answer: Outcome): EventAck {
  switch (answer.kind) {
    case "accepted":
      return create(EventAckSchema, { eventId, ok: true });
    case "duplicate":
      return create(EventAckSchema, { eventId, ok: true, duplicate: true });
    case "refused":
      return create(EventAckSchema, { eventId, ...onWire(answer) });
    case "try later":
      return create(EventAckSchema, { eventId, ...onWire(answer), retryAfterMs });
  }
}

function commandOf(command: {
  commandId: string;
  type: string;
  payloadJson: string;
  sequence: number;
  issuedAt: number;
}): CloudCommand {
  const { commandId, type, payloadJson, sequence, issuedAt } = command;
  return create(CloudCommandSchema, {
    ...{ commandId, type, payloadJson },
    sequence: BigInt(sequence),
    issuedAt: BigInt(issuedAt),
  });
}

/** In UTC, as the original prints it. */
function timeOf({ timestamp }: StoreEvent): string {
  const date = new Date(Number(timestamp));
  return Number.isNaN(date.getTime()) ? "?" : date.toISOString().slice(11, 19);
}
