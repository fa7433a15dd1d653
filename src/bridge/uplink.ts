/** The wire to the cloud, as the bridge sees it. Whoever has a real wire implements it. */

import type { Command, Cursor } from "./inbox.ts";
import type { LedgerSeen, Recorded } from "./outbox.ts";

/** What the cloud says of one event. */
export type Answer =
  | { readonly kind: "accepted" | "duplicate"; readonly eventId: string }
  | {
      readonly kind: "refused";
      readonly eventId: string;
      readonly reason: string;
      /** Another event has its seq: the outbox must number anew. */
      readonly isSeqTaken: boolean;
      /** Whether the same event may be taken later. */
      readonly isRetryable: boolean;
      /** How long to wait before that, in milliseconds; 0: as we like. */
      readonly retryAfterMs: number;
    };

export interface Summary {
  readonly accepted: number;
  readonly duplicates: number;
  /** Each refused event. */
  readonly refusals: readonly Extract<Answer, { kind: "refused" }>[];
  /** How many events were refused, as the cloud counts. */
  readonly refused: number;
}

export interface UplinkOptions {
  readonly signal: AbortSignal;
  /** Is told what the cloud says of its ledger, before its first answer. */
  readonly onLedger: (ledger: LedgerSeen) => void;
}

/** All reject with `StatusError`, or with the signal's reason. */
export interface Uplink {
  /** Resolves when the cloud answers. */
  connect(options: { readonly signal: AbortSignal }): Promise<void>;
  /** Sends these events, and resolves with what became of them. */
  upload(events: AsyncIterable<Recorded>, options: UplinkOptions): Promise<Summary>;
  /** Sends events as they come; the end of them is the half-close. */
  channel(events: AsyncIterable<Recorded>, options: UplinkOptions): AsyncIterable<Answer>;
  /** The commands behind the cursor, and those still to come. */
  watch(cursor: Cursor | undefined, options: UplinkOptions): AsyncIterable<Command>;
}
