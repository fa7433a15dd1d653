/** The ways in which the events of the bridge's parts are published into a stream of JetStream. */

import { toBinary } from "@bufbuild/protobuf";
import { jetstream as client } from "@nats-io/jetstream";
import { createInbox, headers, type NatsConnection } from "@nats-io/transport-node";
import { maxBundle } from "../src/bridge/uplink.ts";
import { StoreEventSchema } from "../src/gen/sync/v1/sync_engine_pb.ts";
import { wireEvent } from "./store-events.ts";

export interface PublishOptions {
  readonly subject: string;
  /** Messages without an answer, at most. */
  readonly window: number;
  readonly count: number;
  readonly idOf: (i: number) => string;
}

/** Resolves when each has its answer; rejects if one was refused. */
export type Publish = (connection: NatsConnection, options: PublishOptions) => Promise<void>;

const bytesOf = (i: number) => toBinary(StoreEventSchema, wireEvent(i));

/** As the client's documentation says: a promise an answer. */
export const publishByClient: Publish = async (connection, { subject, window, count, idOf }) => {
  const stream = client(connection);
  let sent = 0;
  await Promise.all(
    Array.from({ length: window }, async () => {
      while (sent < count) {
        const i = sent;
        sent += 1;
        const options = { msgID: idOf(i), timeout: publishTimeoutMs };
        const { duplicate } = await stream.publish(subject, bytesOf(i), options);
        if (duplicate) {
          throw new Error(`JetStream takes ${idOf(i)} for a duplicate`);
        }
      }
    }),
  );
};

/** For an answer when the machine is busy, in milliseconds. */
const publishTimeoutMs = 60_000;

/** Without that promise, its timer and a subject for each answer: as fast as it goes. */
export const publishByHand: Publish = (connection, { subject, window, count, idOf }) => {
  const inbox = createInbox();
  let sent = 0;
  let answered = 0;
  const pump = () => {
    for (; sent < count && sent - answered < window; sent += 1) {
      const withId = headers();
      withId.set("Nats-Msg-Id", idOf(sent));
      connection.publish(subject, bytesOf(sent), { reply: inbox, headers: withId });
    }
  };
  return new Promise((resolve, reject) => {
    connection.subscribe(inbox, {
      callback(error, message) {
        const { error: refused, duplicate } = message.json<{
          error?: unknown;
          duplicate?: boolean;
        }>();
        if (error !== null || refused !== undefined || duplicate) {
          reject(error ?? new Error(`JetStream says ${message.string()}`));
        }
        answered += 1;
        if (answered === count) {
          resolve();
        } else if (sent - answered <= window * 0.75) {
          pump();
        }
      },
    });
    pump();
  });
};

/** The most batches without an answer that a stream takes. */
const maxBatches = 50;

/**
 * Publishes in atomic batches, which JetStream has since 2.12. A batch has as many messages as our
 * bundles have events, and one answer for all of them. Each message still has its id.
 */
export const publishInBatches: Publish = (connection, { subject, window, count, idOf }) => {
  const inbox = createInbox();
  const batches = Math.min(maxBatches, Math.max(1, Math.floor(window / maxBundle)));
  let sent = 0;
  let answered = 0;
  const publishBatch = () => {
    const first = sent;
    const length = Math.min(maxBundle, count - first);
    sent += length;
    for (let k = 0; k < length; k += 1) {
      const withId = headers();
      withId.set("Nats-Msg-Id", idOf(first + k));
      withId.set("Nats-Batch-Id", `${subject}-${first}`);
      withId.set("Nats-Batch-Sequence", String(k + 1));
      const isLast = k === length - 1;
      if (isLast) {
        withId.set("Nats-Batch-Commit", "1");
      }
      const reply = isLast ? { reply: inbox } : {};
      connection.publish(subject, bytesOf(first + k), { ...reply, headers: withId });
    }
  };
  return new Promise((resolve, reject) => {
    connection.subscribe(inbox, {
      callback(error, message) {
        const { error: refused, count: stored } = message.json<{
          error?: unknown;
          count?: number;
        }>();
        if (error !== null || refused !== undefined || stored === undefined) {
          reject(error ?? new Error(`JetStream says ${message.string()}`));
          return;
        }
        answered += stored;
        if (answered === count) {
          resolve();
        } else if (sent < count) {
          publishBatch();
        }
      },
    });
    for (let i = 0; i < batches && sent < count; i += 1) {
      publishBatch();
    }
  });
};
