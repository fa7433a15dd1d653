/**
 * Drains an outbox call by call: a batch goes up, one summary comes down. This is the client stream
 * of the bridge, for a store that was offline for long.
 *
 * Events are marked only by a summary that names what became of each of them. A call that is lost has
 * said nothing: its events are sent again, in batches half as large, so that a link which always
 * breaks after some events still gets them across.
 *
 * A cloud of the original contract counts duplicates as rejected and names no event. Then nobody knows
 * which of a batch it has, and the same batch again gets the same summary. So the rest goes up as in
 * channel.ts, where each event has its own answer.
 */

import { type Clock, type Random, steadyNow } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { channel } from "./channel.ts";
import { ledgerCheck } from "./ledger-check.ts";
import { keepLinked, type LinkState } from "./link.ts";
import { Marks, type OnUnmarked, onOurDisk } from "./marks.ts";
import type { LedgerSeen, Outbox, Recorded, Settlement } from "./outbox.ts";
import { isTooMuch, numbersTaken, settlementOf } from "./settling.ts";
import {
  type Answer,
  type Bundle,
  maxBundle,
  maxBundleSize,
  type Summary,
  type Uplink,
} from "./uplink.ts";

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
  readonly onUnmarked?: OnUnmarked;
  /** Is told once that summaries do not say enough, and that each event gets its own answer now. */
  readonly onUnnamed?: (why: UnnamedError) => void;
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

/**
 * Calls that are under way together: while the cloud makes one's events last, the next is sent. It
 * begins when the one before has been sent whole, so that events arrive in their order.
 */
const maxCalls = 3;

/**
 * Calls whose summaries are noted on our disk together: each commit is an fsync, and nobody waits for
 * these until the end.
 */
const marksTogether = { maxItems: 4, lingerMs: 500 };

/** A summary says how many events were rejected, and not which. */
export class UnnamedError extends StatusError {
  override readonly name = "UnnamedError";

  constructor(message: string, cause?: unknown) {
    super("FAILED_PRECONDITION", message, { cause });
  }
}

/**
 * Resolves when nothing is pending any more. Throws as `keepLinked`, and `UnnamedError` when summaries
 * do not name what was rejected and the cloud has no channel either: then nothing more can be done by
 * sending, and what is pending stays so.
 */
export async function flush(options: FlushOptions): Promise<void> {
  try {
    await flushBatches(options);
  } catch (error) {
    if (!(error instanceof UnnamedError)) {
      throw error;
    }
    options.onUnnamed?.(error);
    await flushByChannel(options, error);
  }
}

/** Drains the outbox with an answer for each event, and tells the answers as summaries of one event. */
async function flushByChannel(options: FlushOptions, why: UnnamedError): Promise<void> {
  const { outbox, onSummary } = options;
  try {
    await channel({
      ...options,
      untilDrained: true,
      stop: new AbortController().signal,
      onAnswer(answer, settlement) {
        const counts = { accepted: 0, duplicates: 0, refused: 0 };
        if (answer.kind !== "refused") {
          const kind = answer.kind === "accepted" ? "accepted" : "duplicates";
          onSummary({ ...counts, [kind]: 1, refusals: [] }, []);
          return;
        }
        const event = outbox.event(answer.eventId);
        const isParked = settlement.kind === "parked";
        const refused = event === undefined ? [] : [{ event, answer, isParked }];
        onSummary({ ...counts, refused: 1, refusals: [answer] }, refused);
      },
    });
  } catch (error) {
    if (error instanceof StatusError && error.code === "UNIMPLEMENTED") {
      throw new UnnamedError(`${why.message}; it has no channel to ask event by event`, error);
    }
    throw error;
  }
}

async function flushBatches(options: FlushOptions): Promise<void> {
  const { outbox, uplink, clock, signal, maxBatch = maxFlushBatch } = options;
  let size = maxBatch;
  let successes = 0;
  const marks = new Marks({ ...options, ...marksTogether });

  await keepLinked({
    ...options,
    isFinal: (error) => error instanceof UnnamedError,
    connect: (call) => uplink.connect(call),
    async session({ progressed }) {
      options.onState({ kind: "replaying" });
      const onLedger = ledgerCheck(outbox, options.onAlarm);
      const underWay = new Set<Promise<void>>();
      /** Resolves when all that was answered so far is noted. */
      let noted: Promise<unknown> = Promise.resolve();
      /** Of the last event that was handed to a call. */
      let position = 0;
      /** The outbox's version when nothing was left behind that one. */
      let endVersion: number | undefined;
      let mustRenumber = false;
      const isOver = false;
      let failure: { readonly error: unknown } | undefined;

      const upload = async (batch: readonly Recorded[], sent: () => void) => {
        try {
          const summary = await uploadBatch(batch, { sent, onLedger }, options);
          const corrupt = summary.refusals.filter(({ isCorrupt }) => isCorrupt).length;
          if (corrupt > 0) {
            if (summary.accepted > 0) {
              // Those are duplicates the next time.
              progressed();
            }
            // The ids of these may be wrong, so that another event would count as accepted.
            throw new StatusError(
              "UNAVAILABLE",
              `${corrupt} of ${batch.length} events were changed on their way to the cloud, and were not taken`,
            );
          }
          const { settlements, refused, isSeqTaken } = read(summary, batch, options);
          const mark = marks.add(settlements).then(() => {
            if (settlements.length > 0 && !isOver) {
              progressed();
            }
            options.onSummary(summary, refused);
          });
          noted = Promise.all([noted, mark]);
          // It is looked at when nothing is under way any more.
          noted.catch(() => {});
          if (refused.length > 0) {
            // A person may wait for it.
            marks.flush();
          }
          mustRenumber ||= isSeqTaken;
          successes += 1;
          if (successes >= successesToGrow) {
            successes = 0;
            size = Math.min(maxBatch, size * 2);
          }
        } catch (error) {
          if (!(failure?.error instanceof UnnamedError)) {
            failure = error instanceof UnnamedError ? { error } : (failure ?? { error });
          }
          successes = 0;
          size = Math.max(1, Math.floor(Math.min(size, batch.length) / 2));
        }
      };

      /** What was not handed to a call yet. */
      const look = (): Recorded[] => {
        const version = outbox.version();
        if (version === endVersion) {
          // It would go through all that waits to be tried again: after a replay, a week.
          return [];
        }
        for (;;) {
          const page = outbox.pending(position, size);
          const unanswered = page.filter((event) => !marks.has(event.position));
          if (page.length === 0 || unanswered.length > 0) {
            endVersion = page.length === 0 ? version : undefined;
            return unanswered;
          }
          position = page.at(-1)?.position ?? position;
        }
      };

      for (;;) {
        const isFree = failure === undefined && !mustRenumber && !signal.aborted;
        const batch = isFree ? look() : [];
        if (batch.length === 0 && underWay.size === 0) {
          marks.flush();
          await noted;
          if (isFree) {
            const late = look();
            batch.push(...(late.length > 0 ? late : outbox.retries(size, steadyNow(clock))));
          }
        }
        const last = batch.at(-1);
        if (last !== undefined) {
          position = Math.max(position, last.position);
          const sent = Promise.withResolvers<void>();
          const call = upload(batch, sent.resolve).finally(() => underWay.delete(call));
          underWay.add(call);
          await Promise.race([call, sent.promise]);
          // On a link that loses calls, one at a time is enough to lose.
          if (underWay.size >= (size < maxBatch ? 1 : maxCalls)) {
            await Promise.race(underWay);
          }
        } else if (underWay.size > 0) {
          await Promise.race(underWay);
        } else if (mustRenumber) {
          // Not sooner: what was answered keeps the number under which it was sent, in other calls too.
          onOurDisk(() => outbox.renumber());
          return { again: numbersTaken };
        } else if (failure !== undefined) {
          throw failure.error;
        } else {
          signal.throwIfAborted();
          const at = outbox.nextRetryAt(steadyNow(clock));
          if (at === undefined) {
            return "done";
          }
          await clock.sleep(at - steadyNow(clock), { signal });
        }
      }
    },
  });
}

/** `sent` is called when the last event is on its way, `onLedger` with what the cloud says first. */
async function uploadBatch(
  batch: readonly Recorded[],
  { sent, onLedger }: { readonly sent: () => void; readonly onLedger: (seen: LedgerSeen) => void },
  { uplink, signal, onSending }: FlushOptions,
): Promise<Summary> {
  async function* sending(): AsyncGenerator<Bundle, void> {
    let bundle: Recorded[] = [];
    let size = 0;
    for (const event of batch) {
      const pause = onSending(event);
      if (pause !== undefined) {
        await pause;
      }
      bundle.push(event);
      size += event.payload.length;
      if (bundle.length === maxBundle || size >= maxBundleSize) {
        yield bundle;
        bundle = [];
        size = 0;
      }
    }
    if (bundle.length > 0) {
      yield bundle;
    }
  }
  try {
    return await uplink.upload(sending(), { signal, onLedger, onSent: sent });
  } catch (error) {
    const [event] = batch;
    if (batch.length === 1 && event !== undefined && isTooMuch(error)) {
      // Alone it was refused, so it is this one: it waits while the others pass.
      return refusedAlone(event, error);
    }
    throw error;
  }
}

/**
 * What a summary makes of a batch, if it says what became of each event. `isSeqTaken`: some of them need
 * other numbers, and are pending still.
 */
function read(
  summary: Summary,
  batch: readonly Recorded[],
  options: FlushOptions,
): {
  readonly settlements: readonly Settlement[];
  readonly refused: readonly Refused[];
  readonly isSeqTaken: boolean;
} {
  const { accepted, duplicates, refused, refusals } = summary;
  const { rejected = duplicates + refused } = summary;
  if (duplicates + refused === 0 && rejected > 0 && accepted + rejected === batch.length) {
    throw new UnnamedError(
      `the cloud has rejected ${rejected} of ${batch.length} events and does not say which, or whether it has them already`,
    );
  }
  const answers = new Map(refusals.map((refusal) => [refusal.eventId, refusal]));
  const isOurs = batch.filter(({ eventId }) => answers.has(eventId)).length === answers.size;
  if (
    accepted + duplicates + refused !== batch.length ||
    answers.size !== refused ||
    refusals.length !== refused ||
    !isOurs
  ) {
    throw new StatusError(
      "DATA_LOSS",
      `the cloud's summary does not say what became of each of ${batch.length} events: ${accepted} accepted, ${duplicates} duplicates, ${refused} refused, ${refusals.length} of them named`,
    );
  }
  const told: Refused[] = [];
  const settlements = batch.flatMap((event): Settlement[] => {
    const answer = answers.get(event.eventId);
    if (answer === undefined) {
      return [{ kind: "acked", position: event.position }];
    }
    if (answer.isSeqTaken) {
      return [];
    }
    const settlement = settlementOf(event, answer, options);
    told.push({ event, answer, isParked: settlement.kind === "parked" });
    return [settlement];
  });
  const isSeqTaken = refusals.some((answer) => answer.isSeqTaken);
  return { settlements, refused: told, isSeqTaken };
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
