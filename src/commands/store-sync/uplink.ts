/** The bridge's wire to the cloud, on gRPC: sync.v1.SyncEngine. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Address } from "../../address.ts";
import type { DigestPart } from "../../bridge/digesting.ts";
import type { LedgerSeen, Recorded } from "../../bridge/outbox.ts";
import type { Answer, Bundle, StoreReport, Uplink, UplinkOptions } from "../../bridge/uplink.ts";
import type { Clock } from "../../clock.ts";
import { messageOf, StatusError } from "../../errors.ts";
import { ackChecksum, checksumOf, messageChecksum, summaryChecksum } from "../../event-checksum.ts";
import { DigestRangeSchema } from "../../gen/sync/v1/digest_pb.ts";
import {
  type AnswerDigestRequestSchema,
  type EventAck,
  RefusalCode,
  type ReportStatusRequestSchema,
  type StoreEvent,
  StoreEventSchema,
  SyncEngine,
} from "../../gen/sync/v1/sync_engine_pb.ts";
import { type AnswerHeaders, type CallOptions, dial, type ReadyOptions } from "../../grpc/dial.ts";
import { mapped } from "../../mapped.ts";
import { maxTextLength } from "../../store-event.ts";
import { version } from "../../version.ts";
import { ledgerIdOf, questionFault, seenOf, syncEngineAnswers } from "../answer-bounds.ts";

export interface UplinkTo extends Uplink {
  /** Waits for so many milliseconds for the cloud to come up. */
  waitReady(options: { readonly signal: AbortSignal; readonly waitMs: number }): Promise<void>;
  close(): void;
}

/**
 * The longest time in milliseconds in which a flushed batch neither gets its summary nor has more of it
 * taken by the wire. A connection that has died is noticed sooner; this is for a cloud that is there and
 * says nothing.
 */
const summaryTimeoutMs = 60_000;

/** The slowest line on which a batch is given the time it needs, in characters per millisecond: 16 kbit/s. */
const slowestRate = 2;

/** How long a report may take on a near path, in milliseconds: the next one comes soon enough. */
const reportTimeoutMs = 5_000;

/** How many round trips more a report may take: one is its own, the others wait for the line. */
const reportRoundTrips = 3;

/** As the contract has it. */
const maxAlarms = 10;

export interface UplinkToOptions {
  readonly storeId: string;
  /** Is asked at each call: the epoch changes when the events get new numbers. */
  readonly epoch: () => string;
  readonly clock: Clock;
  /** The id that a bridge gave itself at its start; only one bridge of a buffer runs at a time. */
  readonly box?: string;
  /**
   * Is told with the answer to each report which other box speaks for the store; empty if none does.
   * The cloud says so only to a bridge that has an id.
   */
  readonly onOtherBox?: (otherBox: string) => void;
}

export function uplinkTo(
  address: Address,
  { storeId, epoch, clock, box, onOtherBox }: UplinkToOptions,
): UplinkTo {
  const boxHeader: Readonly<Record<string, string>> =
    box === undefined ? {} : { "brewctl-box": box };
  const connection = dial(address, { isWatchful: true });
  const client = connection.client(SyncEngine, { bounds: syncEngineAnswers });

  const callOptions = ({ signal, onLedger }: UplinkOptions): CallOptions => {
    const current = epoch();
    return {
      signal,
      metadata: {
        "brewctl-store": encodeURIComponent(storeId),
        "brewctl-epoch": current,
        "brewctl-checksums": "1",
        ...boxHeader,
      },
      onHeaders(headers) {
        takesBundles = headers.get("brewctl-bundles").length > 0;
        sendsChecksums = headers.get("brewctl-checksums").length > 0;
        const ledger = ledgerOf(headers, current);
        if (ledger !== undefined) {
          onLedger(ledger);
        }
      },
    };
  };

  /** Whether the cloud takes bundles, as the headers of this connection's last answer said. */
  let takesBundles = false;
  /** Whether each answer has a checksum, as the same headers said. */
  let sendsChecksums = false;
  const checkAnswer = (checksum: number | undefined, expected: number) => {
    if (checksum === undefined ? sendsChecksums : checksum !== expected) {
      throw new StatusError(
        "DATA_LOSS",
        "an answer of the cloud does not have its checksum: it was changed on the way",
      );
    }
  };
  const ready = (options: ReadyOptions) => {
    // It may be another cloud now, which would lose them.
    takesBundles = false;
    sendsChecksums = false;
    return connection.ready(options);
  };

  async function* onWire(bundles: AsyncIterable<Bundle>): AsyncGenerator<StoreEvent, void> {
    for await (const [first, ...rest] of bundles) {
      if (first === undefined) {
        continue;
      }
      if (takesBundles) {
        const more = rest.map((event) =>
          eventOf(event, storeId, {
            storeId: "",
            epoch: event.epoch === first.epoch ? "" : event.epoch,
          }),
        );
        yield Object.assign(eventOf(first, storeId), { more });
      } else {
        for (const event of [first, ...rest]) {
          yield eventOf(event, storeId);
        }
      }
    }
  }

  return {
    get roundTripMs() {
      return connection.roundTripMs;
    },
    connect: ({ signal }) => ready({ signal }),
    waitReady: ({ signal, waitMs }) => ready({ signal, waitMs }),
    async upload(bundles, options) {
      const patience = new Patience(clock, options);
      const { signal } = patience;
      const sending = onWire(patience.renewedBy(bundles));
      const answer = client.uploadBufferedEvents(sending, {
        ...callOptions({ ...options, signal }),
        onSent: options.onSent,
      });
      const summary = await answer.finally(() => patience.end());
      checkAnswer(summary.checksum, summaryChecksum(summary));
      const { accepted, rejected, duplicates, refused, refusals } = summary;
      return {
        ...{ accepted, rejected, duplicates, refused },
        refusals: refusals.map(({ eventId, code, reason, retryable }) => ({
          kind: "refused",
          ...{ eventId, reason },
          isSeqTaken: code === RefusalCode.SEQ_TAKEN,
          isRetryable: retryable,
          isCorrupt: code === RefusalCode.CORRUPT,
          retryAfterMs: 0,
        })),
      };
    },
    channel: (bundles, options) =>
      mapped(client.operationalChannel(onWire(bundles), callOptions(options)), (ack) => {
        checkAnswer(ack.checksum, ackChecksum(ack));
        return answersOf(ack);
      }),
    async *watch(cursor, options) {
      const handshake = {
        storeId,
        epoch: epoch(),
        lastAppliedSequence: BigInt(cursor?.sequence ?? 0),
        ledgerId: cursor?.ledgerId ?? "",
        lastAppliedCommandId: cursor?.commandId ?? "",
        answersQuestions: options.onQuestion !== undefined,
      };
      for await (const command of client.watchCommands(handshake, callOptions(options))) {
        const { commandId, type, payloadJson, sequence, issuedAt, question } = command;
        if (question !== undefined) {
          const fault = questionFault(question);
          if (fault !== undefined) {
            throw new StatusError("DATA_LOSS", `the cloud sent a question whose ${fault}`);
          }
          const { questionId, range = create(DigestRangeSchema) } = question;
          options.onQuestion?.({ questionId, range });
          continue;
        }
        const numbers = { sequence: Number(sequence), issuedAt: Number(issuedAt) };
        yield { commandId, type, payloadJson, ...numbers };
      }
    },
    async report(report, { signal }) {
      const message = onReport(report, storeId, epoch());
      const { clockOffsetMs, otherBox } = await client.reportStatus(message, {
        signal,
        metadata: boxHeader,
        deadline: clock.monotonic() + reportTimeoutMs + reportRoundTrips * connection.roundTripMs,
      });
      onOtherBox?.(otherBox);
      return Number(clockOffsetMs);
    },
    async answer(questionId, parts, { signal }) {
      await client.answerDigest(answering(questionId, parts), { signal });
    },
    close: () => connection.close(),
  };
}

/** Ends a call with DEADLINE_EXCEEDED when nothing has come of it for too long. */
class Patience {
  readonly signal: AbortSignal;
  readonly #clock: Clock;
  readonly #over = new AbortController();
  readonly #lost = new AbortController();
  #until: number;

  constructor(clock: Clock, { signal }: { readonly signal: AbortSignal }) {
    this.#clock = clock;
    this.#until = clock.monotonic() + summaryTimeoutMs;
    this.signal = AbortSignal.any([signal, this.#lost.signal]);
    this.#wait();
  }

  end(): void {
    this.#over.abort();
  }

  /** Passes bundles on. Each one that the wire asks for shows that those before it are taken. */
  async *renewedBy(bundles: AsyncIterable<Bundle>): AsyncGenerator<Bundle, void> {
    for await (const bundle of bundles) {
      const size = bundle.reduce((sum, { payload }) => sum + payload.length, 0);
      this.#until = this.#clock.monotonic() + summaryTimeoutMs + size / slowestRate;
      yield bundle;
    }
  }

  async #wait(): Promise<void> {
    try {
      for (let left = summaryTimeoutMs; left > 0; left = this.#until - this.#clock.monotonic()) {
        await this.#clock.sleep(left, this.#over);
      }
      const why = `no summary and no progress for ${summaryTimeoutMs / 1_000} s`;
      this.#lost.abort(new StatusError("DEADLINE_EXCEEDED", why));
    } catch {
      // The call has ended.
    }
  }
}

function onReport(
  report: StoreReport,
  storeId: string,
  epoch: string,
): MessageInitShape<typeof ReportStatusRequestSchema> {
  const { ledgerId, parkedCommands, alarms } = report;
  return {
    ...{ storeId, epoch, ledgerId, version },
    depth: BigInt(report.pending),
    parked: BigInt(report.parked),
    bytes: BigInt(report.bytes),
    oldestUnacked: BigInt(report.oldestUnacked ?? 0),
    sentAt: BigInt(report.sentAt),
    receivedSequence: BigInt(report.receivedSequence),
    appliedSequence: BigInt(report.appliedSequence),
    commandsParked: BigInt(report.commandsParked),
    parkedCommands: parkedCommands.map(({ commandId, reason }) => ({
      commandId,
      reason: cut(reason),
    })),
    alarms: alarms.slice(0, maxAlarms).map(cut),
  };
}

const cut = (text: string) => text.slice(0, maxTextLength).toWellFormed();

/** The first message names the question, also where there is nothing to say. */
async function* answering(
  questionId: string,
  parts: AsyncIterable<DigestPart>,
): AsyncGenerator<MessageInitShape<typeof AnswerDigestRequestSchema>, void> {
  yield { questionId };
  try {
    for await (const part of parts) {
      yield { questionId, part: onAnswer(part) };
    }
  } catch (error) {
    yield { questionId, part: { case: "fault", value: cut(messageOf(error)) } };
  }
}

function onAnswer(
  part: DigestPart,
): NonNullable<MessageInitShape<typeof AnswerDigestRequestSchema>["part"]> {
  switch (part.kind) {
    case "loss":
      return { case: "loss", value: cut(part.what) };
    case "cell": {
      const { type, day, count, digest } = part.cell;
      const counts = { count: BigInt(count), pruned: BigInt(part.pruned) };
      return { case: "cell", value: { type, day, digest, ...counts } };
    }
    case "event": {
      const { eventId, type, timestamp, digest, state } = part;
      return {
        case: "event",
        value: { eventId, type, digest, state, timestamp: BigInt(timestamp) },
      };
    }
  }
}

/** What a cloud of ours says of its ledger; another one says nothing. */
function ledgerOf(headers: AnswerHeaders, epoch: string): LedgerSeen | undefined {
  const ledgerId = ledgerIdOf(headers);
  return ledgerId === undefined ? undefined : { ledgerId, epoch, seen: seenOf(headers) };
}

/** `named` is what the message says of where the event comes from: in a bundle the first one says it. */
function eventOf(
  event: Recorded,
  storeId: string,
  named = { storeId, epoch: event.epoch },
): StoreEvent {
  const { eventId, type, payload, timestamp, epoch, seq } = event;
  // One that was recorded without a checksum is protected on the wire at least.
  const { checksum: own = checksumOf(event) } = event;
  return create(StoreEventSchema, {
    ...{ eventId, type, payload },
    ...named,
    timestamp: BigInt(timestamp),
    seq: BigInt(seq),
    checksum: messageChecksum(own, { storeId, epoch, seq }),
  });
}

/** Of an event, or of those of a bundle. */
function answersOf(ack: EventAck): readonly Answer[] {
  const also = ack.also.map((eventId): Answer => ({ kind: "accepted", eventId }));
  return [answerOf(ack), ...also];
}

function answerOf({
  eventId,
  ok,
  duplicate,
  reason,
  retryable,
  retryAfterMs,
  code,
}: EventAck): Answer {
  if (ok) {
    return { kind: duplicate ? "duplicate" : "accepted", eventId };
  }
  return {
    kind: "refused",
    ...{ eventId, reason, retryAfterMs },
    isSeqTaken: code === RefusalCode.SEQ_TAKEN,
    isCorrupt: code === RefusalCode.CORRUPT,
    // A cloud that knows only the original contract gives no code; its NACK means: later.
    isRetryable: retryable || code === RefusalCode.UNSPECIFIED,
  };
}
