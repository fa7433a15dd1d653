/**
 * The bounds of every request that the services take. The contract (proto/) states those that a
 * client must know, and docs/limits.md lists all of them.
 */

import { maxCommandPayloadBytes } from "../engine/dispatch.ts";
import { maxAlarms, maxParkedCommands, maxTextLength } from "../engine/ledger.ts";
import { digestBytes, faultOfDay } from "../event-digest.ts";
import type { Health } from "../gen/grpc/health/v1/health_pb.ts";
import type { ServerReflection } from "../gen/grpc/reflection/v1/reflection_pb.ts";
import type { StreamingService } from "../gen/orders/v1/streaming_pb.ts";
import type { BridgeApi } from "../gen/sync/v1/bridge_api_pb.ts";
import type { HeadOffice } from "../gen/sync/v1/head_office_pb.ts";
import type { SyncEngine } from "../gen/sync/v1/sync_engine_pb.ts";
import {
  anyInteger,
  bytes,
  checkedByHandler,
  integer,
  list,
  type RequestBounds,
  text,
  textThat,
} from "../grpc/bounds.ts";
import { faultOfName, maxNameBytes, maxTimestamp } from "../store-event.ts";

/** The longest text of a chat message, in bytes: 64 of them wait for their echo, so 4 MiB a chat. */
export const maxChatTextBytes = 64 * 1024;

/** The largest count, size or sequence that a peer may send: what a double holds exactly. */
export const maxCount = Number.MAX_SAFE_INTEGER;

/** The most stores that one request may name. */
export const maxNamedStores = 10_000;

/** The longest alarm, reason or other sentence, in bytes: a UTF-16 unit takes at most three. */
export const maxSentenceBytes = 3 * maxTextLength;

/** The longest name of a service, a symbol or a file that a client may ask for, in bytes. */
export const maxSymbolBytes = 512;

/** An id, a type or a version: 1 to `maxNameBytes` bytes, without control characters. */
const name = textThat(faultOfName);

const optionalName = textThat(faultOfName, { optional: true });

const day = textThat(faultOfDay);

const count = integer(0, maxCount);

const sentence = text(maxSentenceBytes);

const symbol = text(maxSymbolBytes);

export const streamingBounds: RequestBounds<typeof StreamingService> = {
  // A limit of 0 or less means that the subscription has no end.
  subscribe: { customerId: text(maxNameBytes), limit: anyInteger },
  // A bad record is counted as rejected and does not end the upload.
  uploadOrders: checkedByHandler,
  chat: {
    from: text(maxNameBytes),
    text: text(maxChatTextBytes),
    sentAt: { seconds: anyInteger, nanos: anyInteger },
  },
};

export const syncEngineBounds: RequestBounds<typeof SyncEngine> = {
  watchCommands: {
    storeId: name,
    lastAppliedSequence: count,
    epoch: optionalName,
    ledgerId: optionalName,
    lastAppliedCommandId: optionalName,
  },
  // A bad event is refused, with a code, and does not end the stream.
  uploadBufferedEvents: checkedByHandler,
  operationalChannel: checkedByHandler,
  reportStatus: {
    storeId: name,
    depth: count,
    bytes: count,
    oldestUnacked: count,
    parked: count,
    epoch: optionalName,
    sentAt: count,
    version: optionalName,
    ledgerId: optionalName,
    receivedSequence: count,
    appliedSequence: count,
    commandsParked: count,
    parkedCommands: list(maxParkedCommands, { commandId: name, reason: sentence }),
    alarms: list(maxAlarms, sentence),
  },
  answerDigest: {
    questionId: text(maxNameBytes),
    part: {
      cell: { type: name, day, count, digest: bytes(digestBytes), pruned: count },
      event: {
        eventId: name,
        type: name,
        timestamp: integer(0, maxTimestamp),
        digest: bytes(digestBytes),
        state: text(maxNameBytes),
      },
      fault: sentence,
      loss: sentence,
    },
  },
};

export const headOfficeBounds: RequestBounds<typeof HeadOffice> = {
  issueCommand: {
    storeIds: list(maxNamedStores, name),
    commandId: optionalName,
    type: name,
    payloadJson: text(maxCommandPayloadBytes),
  },
  cancelCommand: { commandId: name, storeIds: list(maxNamedStores, name) },
  forgetStore: { storeId: name },
  listStores: { storeIds: list(maxNamedStores, name) },
  listEvents: { storeId: optionalName, after: count },
  listCommands: { storeId: optionalName },
  digest: {
    storeId: name,
    // The handler names the two sides that there are.
    side: anyInteger,
    range: { fromDay: day, toDay: day, type: optionalName },
  },
};

export const bridgeApiBounds: RequestBounds<typeof BridgeApi> = {
  // A till hears of a bad event as of any other refusal, and the bridge's log has it.
  recordEvent: checkedByHandler,
  recordEvents: checkedByHandler,
  bridgeStatus: {},
};

export const healthBounds: RequestBounds<typeof Health> = {
  check: { service: symbol },
  list: {},
  watch: { service: symbol },
};

export const reflectionBounds: RequestBounds<typeof ServerReflection> = {
  serverReflectionInfo: {
    host: symbol,
    messageRequest: {
      fileByFilename: symbol,
      fileContainingSymbol: symbol,
      fileContainingExtension: { containingType: symbol, extensionNumber: anyInteger },
      allExtensionNumbersOfType: symbol,
      listServices: symbol,
    },
  },
};
