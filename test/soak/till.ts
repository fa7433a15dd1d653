/**
 * A till that knows what it is owed: each event that the bridge has answered must come to the ledger.
 * It repeats an event that got no answer, as a till must, and now and then one that got one, as a till
 * may. Used over the bridge's port.
 */

import { deepEqual, equal } from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import type { Address } from "../../src/address.ts";
import { StatusError } from "../../src/errors.ts";
import { BridgeApi, type TillAck, TillEventSchema } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { type Client, dial } from "../../src/grpc/dial.ts";
import { mapped } from "../../src/mapped.ts";
import type { StoreEvent } from "../../src/store-event.ts";
import type { Dice } from "../support/dice.ts";
import { eventOf } from "../support/oracle.ts";

export interface TillOptions {
  /** Of its events' ids. */
  readonly name: string;
  /** Where the bridge is now; asked again after each lost connection. */
  readonly address: () => Address;
  /** An event a call, or all of them in one. */
  readonly way: "unary" | "stream";
  readonly dice: Dice;
  /** After so many events it closes; without it, when it is told to. */
  readonly events?: number;
  /** Between two events at most, in milliseconds. */
  readonly pauseMs?: number;
  /** One of so many events is repeated though it was answered. */
  readonly oneIn?: number;
  /** What an id stands for; `eventOf` if left out. */
  readonly content?: (eventId: string) => StoreEvent;
  readonly onAnswer?: () => void;
  /** Is waited for before each new event. */
  readonly mayGoOn?: () => Promise<unknown> | undefined;
}

export interface Till {
  /** Ids of what it has begun to send. */
  readonly offered: ReadonlySet<string>;
  /** Ids of what the bridge has answered, by (epoch, seq). */
  readonly answered: ReadonlyMap<string, string>;
  /** Connections that were lost. */
  readonly lost: number;
  /** Answers that said that the event was there already. */
  readonly duplicates: number;
  /** No new events from now on; resolves when all that were offered are answered. */
  close(): Promise<void>;
  /** As `close` does, when it has sent as many as it was asked for. Rejects if the bridge misbehaves. */
  readonly closed: Promise<void>;
}

/** What a bridge that dies or stops looks like; the second, when it dies while it stops. */
const isLost = (error: unknown) =>
  error instanceof StatusError &&
  (error.code === "UNAVAILABLE" || error.message.includes("Call ended without gRPC status"));

/** Between two attempts to connect, in milliseconds. */
const againMs = 20;

export function openTill(options: TillOptions): Till {
  const { name, address, way, dice, pauseMs = 0, oneIn = 20, onAnswer, mayGoOn } = options;
  const { events = Number.POSITIVE_INFINITY, content = eventOf } = options;
  const onWire = (id: string) => {
    const { timestamp, ...event } = content(id);
    return create(TillEventSchema, { ...event, timestamp: BigInt(timestamp) });
  };
  const over = new AbortController();
  const offered = new Set<string>();
  const answered = new Map<string, string>();
  /** To be sent before anything new. */
  const again: string[] = [];
  const tally = { lost: 0, duplicates: 0 };

  /** The ids to be sent; those behind them may not have been answered yet. */
  async function* toSend(unanswered: Set<string>, signal: AbortSignal) {
    while (!signal.aborted) {
      const repeated = again.shift();
      if (repeated !== undefined) {
        unanswered.add(repeated);
        yield repeated;
      } else if (!over.signal.aborted && offered.size < events) {
        const pause = mayGoOn?.();
        if (pause !== undefined) {
          await pause;
          continue;
        }
        const id = `${name}-${offered.size + 1}`;
        offered.add(id);
        unanswered.add(id);
        yield id;
        if (pauseMs > 0) {
          await sleep(dice.below(pauseMs + 1));
        }
      } else if (unanswered.size > 0) {
        // They may have to be repeated.
        await sleep(1);
      } else {
        return;
      }
    }
  }

  function take({ eventId, epoch, seq, duplicate, code, reason }: TillAck): void {
    deepEqual({ eventId, code, reason }, { eventId, code: 0, reason: "" });
    const place = `${epoch} ${seq}`;
    const before = answered.get(eventId);
    if (before !== undefined) {
      deepEqual({ eventId, duplicate, place }, { eventId, duplicate: true, place: before });
    } else if (dice.below(oneIn) === 0) {
      again.push(eventId);
    }
    tally.duplicates += duplicate ? 1 : 0;
    answered.set(eventId, place);
    onAnswer?.();
  }

  async function connected(client: Client<typeof BridgeApi>, unanswered: Set<string>) {
    const gone = new AbortController();
    const { signal } = gone;
    const ids = toSend(unanswered, signal);
    try {
      if (way === "unary") {
        for await (const id of ids) {
          const ack = await client.recordEvent(onWire(id), { signal });
          equal(ack.eventId, id);
          take(ack);
          unanswered.delete(id);
        }
        return;
      }
      for await (const ack of client.recordEvents(mapped(ids, onWire), { signal })) {
        const [first] = unanswered;
        equal(ack.eventId, first, "answers come in order");
        take(ack);
        unanswered.delete(ack.eventId);
      }
    } finally {
      gone.abort(new Error("the till has lost its bridge"));
    }
  }

  async function run(): Promise<void> {
    for (;;) {
      const unanswered = new Set<string>();
      const connection = dial(address());
      try {
        await connection.ready({ signal: AbortSignal.timeout(30_000) });
        await connected(connection.client(BridgeApi), unanswered);
        return;
      } catch (error) {
        if (!isLost(error)) {
          throw error;
        }
        tally.lost += 1;
        again.unshift(...unanswered);
        await sleep(againMs);
      } finally {
        connection.close();
      }
    }
  }

  const closed = run();
  // Whoever closes it hears of it.
  closed.catch(() => {});
  return {
    offered,
    answered,
    get lost() {
      return tally.lost;
    },
    get duplicates() {
      return tally.duplicates;
    },
    close() {
      over.abort();
      return closed;
    },
    closed,
  };
}
