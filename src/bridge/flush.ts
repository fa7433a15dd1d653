/**
 * Drains an outbox call by call: a batch goes up, one summary comes down. This is the client stream
 * of the bridge, for a store that was offline for long.
 *
 * Events are marked only by a summary that names what became of each of them. A call that is lost has
 * said nothing: its events are sent again, in batches half as large, so that a link which always
 * breaks after some events still gets them across.
 */

import type { Clock, Random } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { keepLinked, type LinkState } from "./link.ts";
import type { Outbox, Recorded, Settlement } from "./outbox.ts";
import { settlementOf } from "./settling.ts";
import type { Answer, Summary, Uplink } from "./uplink.ts";

export interface FlushOptions {
  readonly outbox: Outbox;
  readonly uplink: Uplink;
  readonly clock: Clock;
  readonly random: Random;
  /** Ends it; what has no answer stays pending. */
  readonly signal: AbortSignal;
  readonly onState: (state: LinkState) => void;
  /** Is told of each event when it is handed to the wire. */
  readonly onSending: (event: Recorded) => Promise<void> | undefined;
  /** Is told of each call's summary when it is on the disk, with the refusals' events. */
  readonly onSummary: (summary: Summary, refused: readonly Refused[]) => void;
  /** Is told that the cloud has forgotten what it had acknowledged. */
  readonly onAlarm: (why: string) => void;
  /** At most this many events a call. */
  readonly maxBatch?: number;
  readonly maxAttempts?: number;
}

export interface Refused {
  readonly event: Recorded;
  readonly answer: Extract<Answer, { kind: "refused" }>;
  readonly isParked: boolean;
}

/** The cloud names at most so many refusals in a summary. */
export const maxFlushBatch = 500;

/** After a lost call, so many must succeed before the batches grow again. */
const successesToGrow = 8;

/** Resolves when nothing is pending any more. Throws as `keepLinked`. */
export async function flush(options: FlushOptions): Promise<void> {
  const { outbox, uplink, clock, signal, maxBatch = maxFlushBatch } = options;
  let size = maxBatch;
  let successes = 0;

  await keepLinked({
    ...options,
    connect: (call) => uplink.connect(call),
    async session({ answered }) {
      options.onState({ kind: "replaying" });
      for (;;) {
        signal.throwIfAborted();
        const batch = nextBatch(outbox, size);
        if (batch.length === 0) {
          const at = outbox.nextRetryAt();
          if (at === undefined) {
            return "done";
          }
          await clock.sleep(at - clock.now(), { signal });
          continue;
        }
        let summary: Summary;
        try {
          summary = await uplink.upload(sending(batch, options), {
            signal,
            onLedger: (ledger) => {
              const alarm = outbox.meet(ledger);
              if (alarm !== undefined) {
                options.onAlarm(alarm);
              }
            },
          });
        } catch (error) {
          signal.throwIfAborted();
          const [event] = batch;
          if (batch.length === 1 && event !== undefined && isTooMuch(error)) {
            // Alone it was refused, so it is this one: it waits while the others pass.
            summary = refusedAlone(event, error);
          } else {
            successes = 0;
            size = Math.max(1, Math.floor(batch.length / 2));
            throw error;
          }
        }
        settle(batch, summary, options);
        answered();
        successes += 1;
        if (successes >= successesToGrow) {
          successes = 0;
          size = Math.min(maxBatch, size * 2);
        }
      }
    },
  });
}

function nextBatch(outbox: Outbox, size: number): Recorded[] {
  const due = outbox.pending(0, size);
  return due.length > 0 ? due : outbox.retries(size);
}

async function* sending(batch: readonly Recorded[], { onSending }: FlushOptions) {
  for (const event of batch) {
    const pause = onSending(event);
    if (pause !== undefined) {
      await pause;
    }
    yield event;
  }
}

/** Marks what the summary says, if it says what became of everything. */
function settle(batch: readonly Recorded[], summary: Summary, options: FlushOptions): void {
  const { accepted, duplicates, refused, refusals } = summary;
  const answers = new Map(refusals.map((refusal) => [refusal.eventId, refusal]));
  const isOurs = batch.filter(({ eventId }) => answers.has(eventId)).length === answers.size;
  if (
    accepted + duplicates + refused !== batch.length ||
    answers.size !== refused ||
    refusals.length !== refused ||
    !isOurs
  ) {
    throw new StatusError(
      "INTERNAL",
      `the cloud's summary does not say what became of each of ${batch.length} events: ${accepted} accepted, ${duplicates} duplicates, ${refused} refused, ${refusals.length} of them named`,
    );
  }
  const isTaken = refusals.some(({ isSeqTaken }) => isSeqTaken);
  const told: Refused[] = [];
  const settlements = batch.flatMap((event): Settlement[] => {
    const answer = answers.get(event.eventId);
    if (answer === undefined) {
      return [{ kind: "acked", position: event.position }];
    }
    if (answer.isSeqTaken) {
      // It gets another number, below.
      return [];
    }
    const settlement = settlementOf(event, answer, options);
    told.push({ event, answer, isParked: settlement.kind === "parked" });
    return [settlement];
  });
  options.outbox.settle(settlements);
  if (isTaken) {
    options.outbox.renumber();
  }
  options.onSummary(summary, told);
}

export function isTooMuch(error: unknown): error is StatusError {
  return error instanceof StatusError && error.code === "RESOURCE_EXHAUSTED";
}

function refusedAlone({ eventId }: Recorded, { message }: StatusError): Summary {
  const refusal: Extract<Answer, { kind: "refused" }> = {
    kind: "refused",
    eventId,
    reason: `the call that carried it alone was refused: ${message}`,
    isSeqTaken: false,
    isRetryable: true,
    retryAfterMs: 0,
  };
  return { accepted: 0, duplicates: 0, refused: 1, refusals: [refusal] };
}
