/** A cloud that a test plays itself, without gRPC: it sees what a drainer sends, and says what it likes. */

import type { Command, Cursor } from "../../src/bridge/inbox.ts";
import type { LedgerSeen, Recorded } from "../../src/bridge/outbox.ts";
import type { Answer, Summary, Uplink } from "../../src/bridge/uplink.ts";
import { StatusError } from "../../src/errors.ts";

/** One call of a channel, from the cloud's side. */
export interface ChannelCall {
  /** What it was sent so far. */
  readonly sent: readonly Recorded[];
  /** Resolves when it was sent so many. */
  received(count: number): Promise<void>;
  answer(answer: Answer): void;
  /** Answers the events of these ids, or all that it was sent, with `accepted`. */
  accept(...eventIds: string[]): void;
  /** Ends the call: properly, or with an error. */
  end(error?: StatusError): void;
  /** Resolves when the store has nothing more to send. */
  readonly halfClosed: Promise<void>;
}

export interface FakeUplink extends Uplink {
  /** Resolves with the next call of a channel. */
  nextCall(): Promise<ChannelCall>;
  readonly connects: number;
}

export interface FakeCloud {
  /** What a batch gets; all are accepted without it. */
  upload?(batch: readonly Recorded[]): Summary | Promise<Summary>;
  /** Rejects if the cloud cannot be reached. */
  connect?(): Promise<void>;
  watch?(cursor: Cursor | undefined): AsyncIterable<Command>;
  readonly ledger?: LedgerSeen;
}

export const lost = () => new StatusError("UNAVAILABLE", "the connection was lost");

export const accepted = (events: readonly Recorded[]): Summary => ({
  accepted: events.length,
  duplicates: 0,
  refused: 0,
  refusals: [],
});

export const refusal = (
  eventId: string,
  options: Partial<Extract<Answer, { kind: "refused" }>> = {},
): Extract<Answer, { kind: "refused" }> => ({
  kind: "refused",
  eventId,
  reason: "no",
  isSeqTaken: false,
  isRetryable: false,
  retryAfterMs: 0,
  ...options,
});

export function fakeUplink(cloud: FakeCloud = {}): FakeUplink {
  let connects = 0;
  const calls: ChannelCall[] = [];
  const waiting: ((call: ChannelCall) => void)[] = [];

  async function* channel(
    bundles: AsyncIterable<readonly Recorded[]>,
    { signal }: { signal: AbortSignal },
  ): AsyncGenerator<readonly Answer[], void> {
    const sent: Recorded[] = [];
    const answers: Answer[] = [];
    let ended: { error?: StatusError | undefined } | undefined;
    let changed = Promise.withResolvers<void>();
    const change = () => {
      changed.resolve();
      changed = Promise.withResolvers();
    };
    const halfClosed = Promise.withResolvers<void>();
    const read = async () => {
      for await (const bundle of bundles) {
        sent.push(...bundle);
        change();
      }
      halfClosed.resolve();
    };
    // The sender ends by its own signal.
    read().catch(() => {});
    signal.addEventListener("abort", () => change());
    const call: ChannelCall = {
      sent,
      halfClosed: halfClosed.promise,
      async received(count) {
        while (sent.length < count) {
          await changed.promise;
        }
      },
      answer(answer) {
        answers.push(answer);
        change();
      },
      accept(...eventIds) {
        const ids = eventIds.length > 0 ? eventIds : sent.map(({ eventId }) => eventId);
        for (const eventId of ids) {
          answers.push({ kind: "accepted", eventId });
        }
        change();
      },
      end(error) {
        ended = { error };
        change();
      },
    };
    const waiter = waiting.shift();
    if (waiter === undefined) {
      calls.push(call);
    } else {
      waiter(call);
    }
    for (;;) {
      signal.throwIfAborted();
      const answer = answers.shift();
      if (answer !== undefined) {
        yield [answer];
      } else if (ended !== undefined) {
        if (ended.error !== undefined) {
          throw ended.error;
        }
        return;
      } else {
        await changed.promise;
      }
    }
  }

  return {
    get connects() {
      return connects;
    },
    nextCall: () =>
      new Promise((resolve) => {
        const call = calls.shift();
        if (call === undefined) {
          waiting.push(resolve);
        } else {
          resolve(call);
        }
      }),
    async connect() {
      connects += 1;
      await cloud.connect?.();
    },
    async upload(bundles, { onLedger }) {
      if (cloud.ledger !== undefined) {
        onLedger(cloud.ledger);
      }
      const batch: Recorded[] = [];
      for await (const bundle of bundles) {
        batch.push(...bundle);
      }
      return (await cloud.upload?.(batch)) ?? accepted(batch);
    },
    channel(bundles, options) {
      if (cloud.ledger !== undefined) {
        options.onLedger(cloud.ledger);
      }
      return channel(bundles, options);
    },
    watch(cursor, { onLedger }) {
      onLedger(cloud.ledger ?? { ledgerId: "ledger-1", epoch: "", seen: undefined });
      return cloud.watch?.(cursor) ?? (async function* () {})();
    },
    async report() {
      return 0;
    },
    async answer() {},
  };
}
