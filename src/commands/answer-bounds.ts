/**
 * The bounds of what a server sends to our clients, service by service. A server may be broken, hostile
 * or of another contract: what is out of bounds is never stored, printed or logged.
 *
 * Texts for people are cut. Anything else out of bounds ends the call with DATA_LOSS, but for the
 * cloud's commands: see `checkedByReader`.
 */

import { maxCommandPayloadBytes, maxCommandSequence } from "../bridge/inbox.ts";
import { StatusError } from "../errors.ts";
import type { StreamingService } from "../gen/orders/v1/streaming_pb.ts";
import type { BridgeApi } from "../gen/sync/v1/bridge_api_pb.ts";
import type { HeadOffice } from "../gen/sync/v1/head_office_pb.ts";
import { DigestQuestionSchema, type SyncEngine } from "../gen/sync/v1/sync_engine_pb.ts";
import {
  type AnswerBounds,
  anyInteger,
  bytes,
  checkedByReader,
  checkOf,
  integer,
  list,
  text,
  textForPeople,
} from "../grpc/bounds.ts";
import type { AnswerHeaders } from "../grpc/dial.ts";
import {
  faultOfName,
  maxNameBytes,
  maxTakenPayloadBytes,
  maxTextLength,
  maxTimestamp,
} from "../store-event.ts";

/** The longest id, name or other short text that a lesson's server may send, in bytes of UTF-8. */
export const maxShortTextBytes = 1024;

/** The longest text of a chat message, in bytes of UTF-8: as long as our server takes one. */
export const maxChatTextBytes = 64 * 1024;

/** The longest id that is repeated from a request, in bytes of UTF-8: 1,024 characters of it. */
export const maxRepeatedIdBytes = 4 * 1024;

/** The most refusals that a summary names, as the contract says. */
const maxRefusals = 500;

/** The most further events of a bundle, as the contract says. */
const maxFurtherEvents = 255;

/** The most stores that a command is issued for, as the contract says. */
const maxQueued = 10_000;

/** The most stores that can have a command: those that the cloud knows, and those that it awaits. */
const maxStores = 11_000;

/** The most alarms of a store; the contract lets it report ten. */
const maxAlarms = 64;

/** The length of a digest, in bytes. */
const digestBytes = 32;

const maxInt32 = 2 ** 31 - 1;

const name = text(maxNameBytes);
const shortText = text(maxShortTextBytes);
const repeatedId = text(maxRepeatedIdBytes);
const reason = textForPeople(maxTextLength);
const count = integer(0, maxInt32);
const longCount = integer(0, Number.MAX_SAFE_INTEGER);
const timestamp = integer(0, maxTimestamp);

/** A time as protobuf has it: from the year 1 to 9999. */
const wellKnownTime = {
  seconds: integer(-62_135_596_800, Math.floor(maxTimestamp / 1000)),
  nanos: integer(0, 999_999_999),
};

export const streamingAnswers: AnswerBounds<typeof StreamingService> = {
  // An amount is shown as it came.
  subscribe: {
    orderId: shortText,
    customerId: shortText,
    amountCents: anyInteger,
    emittedAt: wellKnownTime,
  },
  uploadOrders: { received: count, accepted: count, rejected: count, totalCents: anyInteger },
  chat: { from: shortText, text: text(maxChatTextBytes), sentAt: wellKnownTime },
};

export const syncEngineAnswers: AnswerBounds<typeof SyncEngine> = {
  // One bad command must not keep back those after it: see `Inbox.receive`.
  watchCommands: checkedByReader,
  uploadBufferedEvents: {
    accepted: count,
    rejected: count,
    duplicates: count,
    refused: count,
    checksum: anyInteger,
    refusals: list(maxRefusals, { eventId: repeatedId, code: anyInteger, reason }),
  },
  operationalChannel: {
    eventId: repeatedId,
    reason,
    retryAfterMs: count,
    code: anyInteger,
    also: list(maxFurtherEvents, name),
    checksum: anyInteger,
  },
  reportStatus: {
    ledgerId: name,
    clockOffsetMs: integer(-maxTimestamp, maxTimestamp),
    otherBox: reason,
  },
  answerDigest: {},
};

export const bridgeApiAnswers: AnswerBounds<typeof BridgeApi> = {
  recordEvent: tillAck(),
  recordEvents: tillAck(),
  bridgeStatus: {
    ...{ storeId: name, epoch: name, link: name, version: name, why: reason },
    ...{ pending: longCount, parked: longCount, oldestUnacked: timestamp, bytes: longCount },
    ...{ receivedSequence: longCount, appliedSequence: longCount, commandsParked: longCount },
    alarms: list(maxAlarms, reason),
    tills: count,
  },
};

function tillAck() {
  const code = integer(0, maxInt32);
  return { eventId: repeatedId, seq: longCount, epoch: name, code, reason };
}

export const headOfficeAnswers: AnswerBounds<typeof HeadOffice> = {
  issueCommand: {
    commandId: name,
    queued: list(maxQueued, { storeId: name, sequence: longCount }),
  },
  cancelCommand: {
    stores: list(maxStores, { storeId: name, sequence: longCount, state: anyInteger }),
  },
  forgetStore: {},
  listStores: {
    ...{ storeId: name, epoch: name, version: name, alarms: list(maxAlarms, reason) },
    // Most of these numbers are what a store has said of itself. They are shown as they came: one
    // store that talks nonsense must not end the list of all.
    ...{ lastSeen: anyInteger, reportedAt: anyInteger, oldestUnacked: anyInteger },
    ...{ depth: anyInteger, bytes: anyInteger, parked: anyInteger, commandsParked: anyInteger },
    ...{ gaps: anyInteger, currentGaps: anyInteger, seen: anyInteger, conflicts: anyInteger },
    openConflicts: anyInteger,
    ...{ queuedSequence: anyInteger, receivedSequence: anyInteger, appliedSequence: anyInteger },
    ...{ clockOffsetMs: anyInteger, epochs: anyInteger, asOf: anyInteger },
  },
  listEvents: {
    // To go on after this position is what a caller does next.
    position: integer(1, Number.MAX_SAFE_INTEGER),
    ...{ eventId: name, storeId: name, type: name, payload: text(maxTakenPayloadBytes) },
    ...{ timestamp, seq: longCount, epoch: name, receivedAt: timestamp, checksum: anyInteger },
  },
  listCommands: {
    ...{ storeId: name, commandId: name, type: name, payloadJson: text(maxCommandPayloadBytes) },
    ...{ sequence: integer(0, maxCommandSequence), issuedAt: timestamp },
    ...{ state: anyInteger, reason },
  },
  digest: {
    part: {
      cell: {
        ...{ type: name, day: name, count: longCount, digest: bytes(digestBytes) },
        pruned: longCount,
      },
      event: { eventId: name, type: name, timestamp, digest: bytes(digestBytes), state: name },
      loss: reason,
    },
  },
};

/**
 * What is wrong with a question that the cloud asks among its commands; undefined if nothing is. A
 * question is not kept, so the call that it ends loses nothing: who asks will ask again.
 */
export const questionFault = checkOf(DigestQuestionSchema, {
  questionId: name,
  range: { fromDay: name, toDay: name, type: name },
});

/**
 * The id of the cloud's ledger, from the headers of an answer; undefined from a cloud that does not say.
 * Throws `StatusError` DATA_LOSS for one out of bounds.
 */
export function ledgerIdOf(headers: AnswerHeaders): string | undefined {
  const [value] = headers.get("brewctl-ledger");
  const id = value === undefined ? undefined : String(value);
  const fault = id === undefined ? undefined : faultOfName("brewctl-ledger", id);
  if (fault !== undefined) {
    throw new StatusError("DATA_LOSS", `the server sent a header that is out of bounds: ${fault}`);
  }
  return id;
}

/** Reads the highest seq that the ledger has seen of our epoch, with the same errors as `ledgerIdOf`. */
export function seenOf(headers: AnswerHeaders): number | undefined {
  const [value] = headers.get("brewctl-seen");
  if (value === undefined) {
    return undefined;
  }
  const seen = /^\d{1,16}$/.test(String(value)) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(seen)) {
    const expected = `expected a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`;
    throw new StatusError(
      "DATA_LOSS",
      `the server sent a header that is out of bounds: brewctl-seen has ${String(value).length} characters; ${expected}`,
    );
  }
  return seen;
}
