/**
 * HeadOffice (proto/sync/v1/head_office.proto): what an operator asks of the cloud. The clients are
 * commands/head-office/{cancel,command,commands,events,forget,stores}.ts.
 */

import { setImmediate as nextTurn } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import type { Clock } from "../clock.ts";
import type { StoreState, Stretch, TakenEvent } from "../engine/ledger.ts";
import { turnToRead } from "../engine/page.ts";
import { StatusError } from "../errors.ts";
import { DigestRangeSchema } from "../gen/sync/v1/digest_pb.ts";
import { CommandState, HeadOffice } from "../gen/sync/v1/head_office_pb.ts";
import { type Handlers, type Implementation, implement } from "../grpc/serve.ts";
import type { Logger } from "../log.ts";
import { headOfficeBounds } from "./bounds.ts";
import type { Cloud } from "./cloud.ts";
import { digest, maxDigests } from "./digest.ts";
import type { Questions } from "./questions.ts";

export interface HeadOfficeOptions {
  readonly cloud: Cloud;
  readonly questions: Questions;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The most rows that are read from the ledger at a time. */
const pageSize = 200;

/** The most stores of an answer that are looked up in one turn of the event loop. */
const maxStoresAtOnce = 500;

/** Between two looks at which stores have changed, in milliseconds. */
const followEveryMs = 1_000;

export function headOffice({ cloud, questions, clock, log }: HeadOfficeOptions): Implementation {
  let digests = 0;

  const handlers: Handlers<typeof HeadOffice> = {
    async issueCommand({ storeIds, allStores, commandId, type, payloadJson }, { signal }) {
      const { dispatch, ledger } = cloud.forCall();
      if (allStores && storeIds.length > 0) {
        const message = "store_ids and all_stores; expected one of them";
        throw new StatusError("INVALID_ARGUMENT", message);
      }
      const wanted = allStores ? ledger.storeIds() : storeIds;
      if (allStores && wanted.length === 0) {
        throw new StatusError("FAILED_PRECONDITION", "the cloud has heard of no store yet");
      }
      const command = { commandId, type, payloadJson };
      const queued = await dispatch.issue(wanted, command, { signal });
      ledger.presence.touch(wanted);
      const [first] = queued;
      log.info("command queued", {
        store: queued.length === 1 ? first?.storeId : `${queued.length} stores`,
        ...{ command_id: first?.commandId, type },
        sequence: queued.length === 1 ? first?.sequence : undefined,
        watching: queued.filter(({ storeId }) => dispatch.isWatching(storeId)).length,
      });
      return {
        commandId: first?.commandId ?? commandId,
        queued: await inTurns(queued, ({ storeId, sequence }) => ({
          storeId,
          sequence: BigInt(sequence),
          isWatching: dispatch.isWatching(storeId),
          isKnown: ledger.isKnown(storeId),
        })),
      };
    },

    async cancelCommand({ commandId, storeIds }, { signal }) {
      const { dispatch, ledger } = cloud.forCall();
      const cancellations = await dispatch.cancel({ commandId, storeIds }, { signal });
      const withdrawn = cancellations.filter(({ state }) => state === "cancelled");
      ledger.presence.touch(withdrawn.map(({ storeId }) => storeId));
      log.info("command cancelled", {
        command_id: commandId,
        stores: withdrawn.length,
        not_cancelled: cancellations.length - withdrawn.length,
      });
      return {
        stores: await inTurns(cancellations, ({ storeId, sequence, state }) => ({
          storeId,
          sequence: BigInt(sequence),
          state: commandStates[state],
        })),
      };
    },

    async forgetStore({ storeId }) {
      cloud.forCall().ledger.forget(storeId);
      log.info("store forgotten", { store: storeId });
      return {};
    },

    async *listStores({ storeIds, follow }, { signal }) {
      const { ledger } = cloud.forCall();
      const wanted = new Set(storeIds);
      for (const storeId of wanted) {
        if (!ledger.isKnown(storeId)) {
          const message = `the cloud has never heard of a store ${JSON.stringify(storeId)}`;
          throw new StatusError("NOT_FOUND", message);
        }
      }
      const { presence } = ledger;
      let revision = presence.revision;
      let changed = wanted.size > 0 ? Array.from(wanted).sort() : ledger.storeIds();
      for (;;) {
        for (const storeId of changed) {
          // As it is now, when the reader has room for it, and not as it was when it changed.
          const state =
            wanted.size === 0 || wanted.has(storeId) ? ledger.store(storeId) : undefined;
          if (state !== undefined) {
            yield storeOf(state, clock.now());
          }
        }
        if (!follow) {
          return;
        }
        await clock.sleep(followEveryMs, { signal });
        const news = presence.changed.next({ signal });
        if (presence.revision === revision) {
          await news;
        }
        changed = presence.changedSince(revision).sort();
        revision = presence.revision;
      }
    },

    async *listCommands({ storeId }, { signal }) {
      const { dispatch } = cloud.forCall();
      let after = { storeId: "", sequence: 0 };
      for (;;) {
        await turnToRead({ signal });
        const page = dispatch.commands({ storeId, after, limit: pageSize });
        for (const { sequence, issuedAt, state, ...command } of page) {
          yield {
            ...command,
            sequence: BigInt(sequence),
            issuedAt: BigInt(issuedAt),
            state: commandStates[state],
          };
          after = { storeId: command.storeId, sequence };
        }
        if (page.length === 0) {
          return;
        }
      }
    },

    async *digest({ storeId, side, range = create(DigestRangeSchema) }, { signal }) {
      if (digests >= maxDigests) {
        throw new StatusError(
          "RESOURCE_EXHAUSTED",
          `${digests} digests are being made; at most ${maxDigests} at once are allowed; try again later`,
        );
      }
      digests += 1;
      try {
        yield* digest({ storeId, side, range }, { cloud, questions, clock, signal });
      } finally {
        digests -= 1;
      }
    },

    async *listEvents({ storeId, after, follow }, { signal, sendHeaders }) {
      const { ledger, taken } = cloud.forCall();
      // Positions are this ledger's: whoever goes on behind one should know whose it was.
      sendHeaders({ "brewctl-ledger": ledger.id });
      let position = Number(after);
      for (;;) {
        await turnToRead({ signal });
        const news = taken.next({ signal });
        const { events, through, isAtEnd } =
          storeId === ""
            ? pageOf(ledger.events({ after: position, limit: pageSize }), position)
            : ledger.eventsOf({ storeId, after: position, limit: pageSize });
        for (const event of events) {
          yield eventOf(event);
        }
        position = through;
        if (isAtEnd) {
          if (!follow) {
            return;
          }
          await news;
        } else if (events.length === 0) {
          // A long way to the store's next event: others have their turn.
          await nextTurn();
          signal.throwIfAborted();
        }
      }
    },
  };
  return implement(HeadOffice, handlers, { bounds: headOfficeBounds });
}

/** Maps many items without holding up the server. */
async function inTurns<T, U>(items: readonly T[], map: (item: T) => U): Promise<U[]> {
  const mapped: U[] = [];
  for (const item of items) {
    mapped.push(map(item));
    if (mapped.length % maxStoresAtOnce === 0) {
      await nextTurn();
    }
  }
  return mapped;
}

function pageOf(events: readonly TakenEvent[], after: number): Stretch {
  const through = events.at(-1)?.position ?? after;
  return { events, through, isAtEnd: events.length === 0 };
}

const commandStates = {
  queued: CommandState.QUEUED,
  received: CommandState.RECEIVED,
  applied: CommandState.APPLIED,
  parked: CommandState.PARKED,
  cancelled: CommandState.CANCELLED,
} as const;

function eventOf({
  position,
  timestamp,
  seq,
  receivedAt,
  messageChecksum: checksum,
  ...rest
}: TakenEvent) {
  return {
    ...rest,
    checksum,
    position: BigInt(position),
    timestamp: BigInt(timestamp),
    seq: BigInt(seq),
    receivedAt: BigInt(receivedAt),
  };
}

function storeOf(state: StoreState, asOf: number) {
  const { storeId, isConnected, isForgotten, epoch, epochs, version } = state;
  return {
    ...{ storeId, isConnected, isForgotten, epoch, epochs, version, alarms: [...state.alarms] },
    lastSeen: BigInt(state.lastSeen),
    reportedAt: BigInt(state.reportedAt),
    depth: BigInt(state.depth),
    bytes: BigInt(state.bytes),
    oldestUnacked: BigInt(state.oldestUnacked),
    parked: BigInt(state.parked),
    gaps: BigInt(state.gaps),
    currentGaps: BigInt(state.currentGaps),
    conflicts: BigInt(state.conflicts),
    openConflicts: BigInt(state.openConflicts),
    clockOffsetMs: BigInt(state.clockOffsetMs),
    queuedSequence: BigInt(state.queuedSequence),
    receivedSequence: BigInt(state.receivedSequence),
    appliedSequence: BigInt(state.appliedSequence),
    commandsParked: BigInt(state.commandsParked),
    seen: BigInt(state.seen),
    asOf: BigInt(asOf),
  };
}
