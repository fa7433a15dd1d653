/** The events of the bridge's parts, the outboxes that are full of them, and how they are drained. */

import { randomUUID } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { channel } from "../src/bridge/channel.ts";
import { flush } from "../src/bridge/flush.ts";
import { type NewEvent, Outbox } from "../src/bridge/outbox.ts";
import { systemClock as clock, systemRandom as random } from "../src/clock.ts";
import { newIds } from "../src/commands/store-sync/new-id.ts";
import { uplinkTo } from "../src/commands/store-sync/uplink.ts";
import { type StoreEvent, StoreEventSchema } from "../src/gen/sync/v1/sync_engine_pb.ts";
import { mapped } from "../src/mapped.ts";

const atMs = Date.UTC(2026, 0, 2, 3, 4, 5);

/** With it, an event is 200 bytes on the wire, more or less by its ids. */
export const salePayload = JSON.stringify({
  receipt: 4711,
  till: 3,
  total: 299,
  currency: "EUR",
  paid: "card",
  items: [{ sku: "ITEM-42", n: 1, price: 299, tax: "A" }],
});

/** A store's event by its number, from 0. */
export function wireEvent(i: number): StoreEvent {
  return create(StoreEventSchema, {
    ...{ eventId: tillIds("bare")(i), storeId: "store-01", type: "Sale", payload: salePayload },
    ...{ timestamp: BigInt(atMs), seq: BigInt(i + 1), epoch: "0123456789abcdef" },
  });
}

/** The message with the events from `first` on: a single one, or a bundle as our store sends it. */
export function wireMessage(first: number, length: number): StoreEvent {
  const more = Array.from({ length: length - 1 }, (_, i) =>
    // The store and the epoch are those of the first.
    Object.assign(wireEvent(first + 1 + i), { storeId: "", epoch: "" }),
  );
  return Object.assign(wireEvent(first), { more });
}

/** As a till that counts makes them. */
export const tillIds = (till: string) => (i: number) => `${till}-${String(i).padStart(8, "0")}`;

/** As `store-sync record` makes them. */
export const recordIds = () => newIds(() => clock.now());

/** Without any order. */
export const randomIds = () => `evt-${randomUUID()}`;

/** An outbox with so many events that are pending. */
export function filled(
  path: string,
  { storeId, count, idOf }: { storeId: string; count: number; idOf: (i: number) => string },
): Outbox {
  const outbox = opened(path, storeId);
  const event = (i: number): NewEvent => ({
    eventId: idOf(i),
    type: "Sale",
    payload: salePayload,
    timestamp: atMs,
  });
  for (let from = 0; from < count; from += 1000) {
    const length = Math.min(1000, count - from);
    outbox.append(Array.from({ length }, (_, k) => event(from + k)));
  }
  return outbox;
}

export function opened(path: string, storeId: string): Outbox {
  return new Outbox({ path, storeId, now: () => clock.now() });
}

export type Shape = "channel" | "flush";

export interface DrainOptions {
  readonly shape: Shape;
  /** How many events are pending. */
  readonly count: number;
  /** Of the cloud. */
  readonly port: number;
  /** Is told of each event that is handed to the wire. */
  readonly onSending?: () => void;
}

/**
 * Drains an outbox on a connection of its own. Throws unless each of its events was answered once
 * as taken, and nothing is pending.
 */
export async function drain(
  outbox: Outbox,
  { shape, count, port, onSending = () => {} }: DrainOptions,
): Promise<void> {
  const { signal } = new AbortController();
  const { storeId } = outbox;
  const address = { kind: "tcp", host: "127.0.0.1", port } as const;
  const uplink = uplinkTo(address, { storeId, epoch: () => outbox.epoch(), clock });
  let accepted = 0;
  let duplicates = 0;
  let refused = 0;
  const common = { outbox, clock, random, signal, onState() {}, onAlarm() {} };
  if (shape === "channel") {
    await channel({
      ...common,
      uplink: {
        ...uplink,
        channel: (events, options) =>
          uplink.channel(
            mapped(events, (event) => {
              onSending();
              return event;
            }),
            options,
          ),
      },
      stop: signal,
      untilDrained: true,
      onAnswer({ kind }) {
        accepted += kind === "accepted" ? 1 : 0;
        duplicates += kind === "duplicate" ? 1 : 0;
        refused += kind === "refused" ? 1 : 0;
      },
    });
  } else {
    await flush({
      ...common,
      uplink,
      onSending() {
        onSending();
        return undefined;
      },
      onSummary(summary) {
        accepted += summary.accepted;
        duplicates += summary.duplicates;
        refused += summary.refused;
      },
    });
  }
  uplink.close();
  if (accepted + duplicates !== count || refused > 0 || !outbox.isDrained()) {
    throw new Error(
      `${storeId}: of ${count} events ${accepted} were accepted, ${duplicates} duplicates, ${refused} refused`,
    );
  }
  if (duplicates > 0) {
    // On a machine that is so busy that a connection seems dead.
    console.error(`${storeId}: a call was lost, and ${duplicates} events were sent again`);
  }
}
