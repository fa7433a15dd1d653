/** The bridge's wire to the cloud, on gRPC: sync.v1.SyncEngine. */

import { create } from "@bufbuild/protobuf";
import type { Address } from "../../address.ts";
import type { LedgerSeen, Recorded } from "../../bridge/outbox.ts";
import type { Answer, Uplink, UplinkOptions } from "../../bridge/uplink.ts";
import type { Clock } from "../../clock.ts";
import {
  type EventAck,
  RefusalCode,
  StoreEventSchema,
  SyncEngine,
} from "../../gen/sync/v1/sync_engine_pb.ts";
import { type AnswerHeaders, type CallOptions, dial } from "../../grpc/dial.ts";
import { mapped } from "../../mapped.ts";

export interface UplinkTo extends Uplink {
  /** Waits for so many milliseconds for the cloud to come up. */
  waitReady(options: { readonly signal: AbortSignal; readonly waitMs: number }): Promise<void>;
  close(): void;
}

/**
 * The longest time that a flushed batch may wait for its summary, in milliseconds. A connection that
 * has died is noticed sooner; this is for a cloud that is there and says nothing.
 */
const summaryTimeoutMs = 60_000;

/** `epoch` is asked at each call: it changes when the events are numbered anew. */
export function uplinkTo(
  address: Address,
  { storeId, epoch, clock }: { storeId: string; epoch: () => string; clock: Clock },
): UplinkTo {
  const connection = dial(address, { isWatchful: true });
  const client = connection.client(SyncEngine);

  const callOptions = ({ signal, onLedger }: UplinkOptions): CallOptions => {
    const current = epoch();
    return {
      signal,
      metadata: { "brewctl-store": encodeURIComponent(storeId), "brewctl-epoch": current },
      onHeaders(headers) {
        const ledger = ledgerOf(headers, current);
        if (ledger !== undefined) {
          onLedger(ledger);
        }
      },
    };
  };

  const onWire = (events: AsyncIterable<Recorded>) =>
    mapped(events, ({ eventId, type, payload, timestamp, seq, epoch }) =>
      create(StoreEventSchema, {
        eventId,
        storeId,
        type,
        payload,
        timestamp: BigInt(timestamp),
        seq: BigInt(seq),
        epoch,
      }),
    );

  return {
    connect: ({ signal }) => connection.ready({ signal }),
    waitReady: ({ signal, waitMs }) => connection.ready({ signal, waitMs }),
    async upload(events, options) {
      const { accepted, duplicates, refused, refusals } = await client.uploadBufferedEvents(
        onWire(events),
        { ...callOptions(options), deadline: clock.now() + summaryTimeoutMs },
      );
      return {
        ...{ accepted, duplicates, refused },
        refusals: refusals.map(({ eventId, code, reason, retryable }) => ({
          kind: "refused",
          ...{ eventId, reason },
          isSeqTaken: code === RefusalCode.SEQ_TAKEN,
          isRetryable: retryable,
          retryAfterMs: 0,
        })),
      };
    },
    channel: (events, options) =>
      mapped(client.operationalChannel(onWire(events), callOptions(options)), answerOf),
    async *watch(cursor, options) {
      const handshake = {
        storeId,
        epoch: epoch(),
        lastAppliedSequence: BigInt(cursor?.sequence ?? 0),
        ledgerId: cursor?.ledgerId ?? "",
        lastAppliedCommandId: cursor?.commandId ?? "",
      };
      for await (const command of client.watchCommands(handshake, callOptions(options))) {
        const { commandId, type, payloadJson, sequence, issuedAt } = command;
        const numbers = { sequence: Number(sequence), issuedAt: Number(issuedAt) };
        yield { commandId, type, payloadJson, ...numbers };
      }
    },
    close: () => connection.close(),
  };
}

/** What a cloud of ours says of its ledger; another one says nothing. */
function ledgerOf(headers: AnswerHeaders, epoch: string): LedgerSeen | undefined {
  const [ledgerId] = headers.get("brewctl-ledger");
  const [seen] = headers.get("brewctl-seen");
  return ledgerId === undefined
    ? undefined
    : {
        ledgerId: String(ledgerId),
        epoch,
        seen: seen === undefined ? undefined : Number(seen),
      };
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
    // A cloud that knows only the original contract gives no code; its NACK means: later.
    isRetryable: retryable || code === RefusalCode.UNSPECIFIED,
  };
}
