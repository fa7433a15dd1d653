/** The wire to the cloud, as the bridge sees it. Whoever has a real wire implements it. */

import type { DigestRange } from "../event-digest.ts";
import type { DigestPart } from "./digesting.ts";
import type { Command, CommandProgress, Cursor } from "./inbox.ts";
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
      /** Whether the cloud says that the event was changed on the way. Then `eventId` may be wrong. */
      readonly isCorrupt?: boolean;
    };

export interface Summary {
  readonly accepted: number;
  readonly duplicates: number;
  /** Each refused event. */
  readonly refusals: readonly Extract<Answer, { kind: "refused" }>[];
  /** How many events were refused, as the cloud counts. */
  readonly refused: number;
  /**
   * All that were not accepted, as the original contract counts them. A cloud of that contract knows
   * neither `duplicates` nor `refused`, and names none of these events. Left out: the sum of both.
   */
  readonly rejected?: number;
}

export interface UplinkOptions {
  readonly signal: AbortSignal;
  /** Is told what the cloud says of its ledger, before its first answer. */
  readonly onLedger: (ledger: LedgerSeen) => void;
}

/** Events that are there together, one at least, and may go in one message. */
export type Bundle = readonly Recorded[];

/** Of a bundle: more events save no more. */
export const maxBundle = 64;

/** A bundle whose payloads have reached so many characters is closed. */
export const maxBundleSize = 64 * 1024;

/** What the cloud wants to know of the events here. */
export interface Question {
  readonly questionId: string;
  readonly range: DigestRange & { readonly withEvents: boolean };
}

export interface UploadOptions extends UplinkOptions {
  /** Is called when all of it is on its way: what is sent after that arrives after it. */
  readonly onSent: () => void;
}

export interface WatchCallOptions extends UplinkOptions {
  /** Is told of each question; without it none come. */
  readonly onQuestion?: ((question: Question) => void) | undefined;
}

/** How a store is, for head office. */
export interface StoreReport extends CommandProgress {
  /** Events without a final answer. */
  readonly pending: number;
  /** Those, and commands, that wait for a person. */
  readonly parked: number;
  readonly commandsParked: number;
  readonly parkedCommands: readonly { readonly commandId: string; readonly reason: string }[];
  /** The timestamp of the oldest event without a final answer. */
  readonly oldestUnacked: number | undefined;
  /** Of the buffer's file and its log. */
  readonly bytes: number;
  /** What a person should look at. */
  readonly alarms: readonly string[];
  /** Unix milliseconds by our clock, now. */
  readonly sentAt: number;
}

/** All reject with `StatusError`, or with the signal's reason. */
export interface Uplink {
  /** The last round trip that the wire has measured, in milliseconds; 0 or left out if it has not. */
  readonly roundTripMs?: number;
  /** Resolves when the cloud answers. */
  connect(options: { readonly signal: AbortSignal }): Promise<void>;
  /** Sends these events, and resolves with what became of them. */
  upload(bundles: AsyncIterable<Bundle>, options: UploadOptions): Promise<Summary>;
  /** Sends events as they come; the end of them is the half-close. */
  channel(bundles: AsyncIterable<Bundle>, options: UplinkOptions): AsyncIterable<readonly Answer[]>;
  /** The commands behind the cursor, and those still to come. */
  watch(cursor: Cursor | undefined, options: WatchCallOptions): AsyncIterable<Command>;
  /** Tells how the store is. Resolves with our clock minus the cloud's, in milliseconds. */
  report(report: StoreReport, options: { readonly signal: AbortSignal }): Promise<number>;
  /** Answers a question. */
  answer(
    questionId: string,
    parts: AsyncIterable<DigestPart>,
    options: { readonly signal: AbortSignal },
  ): Promise<void>;
}
