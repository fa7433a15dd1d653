/**
 * Drains an outbox through one long call: events go up, an answer for each comes down, and nobody
 * waits for the other. This is the bidirectional stream of the bridge; it stays open, and what is
 * recorded later goes out at once.
 *
 * - At most `window` events are in flight, and on a slow link no more than pace.ts allows; then the
 *   outbox is not read any further.
 * - An event without an answer for `ackTimeoutMs` is sent again if one that was sent after it has its
 *   answer, so one lost answer cannot pin a place in the window. If nothing is answered at all, the link
 *   gets the time that it needs for what is in flight too: what still waits its turn on a slow one is not
 *   sent twice.
 * - An event that is refused for now waits its time and goes again on the same call; one that is
 *   refused for good is parked at once.
 * - A call on which nothing is answered for long, though something is due, is given up.
 * - The outbox is looked at by the clock, so its backlog drains without anything new being recorded.
 */

import { Bell } from "../bell.ts";
import { type Clock, type Random, steadyNow } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { ledgerCheck } from "./ledger-check.ts";
import { keepLinked, type LinkState } from "./link.ts";
import { Marks, type OnUnmarked, onOurDisk } from "./marks.ts";
import type { Outbox, Recorded, Settlement } from "./outbox.ts";
import { type Departure, Pace } from "./pace.ts";
import { isTooMuch, numbersTaken, settlementOf } from "./settling.ts";
import { type Answer, type Bundle, maxBundle, maxBundleSize, type Uplink } from "./uplink.ts";

export interface ChannelOptions {
  readonly outbox: Outbox;
  readonly uplink: Uplink;
  readonly clock: Clock;
  readonly random: Random;
  /** Ends it at once; what has no answer stays pending. */
  readonly signal: AbortSignal;
  /** Ends it when it aborts and what is in flight is answered. */
  readonly stop: AbortSignal;
  /** Ends it when nothing is pending. */
  readonly untilDrained: boolean;
  readonly onState: (state: LinkState) => void;
  /** As in `LinkOptions`. */
  readonly hurry?: Bell | undefined;
  /** Is told of each answer when what it means is on the disk. */
  readonly onAnswer: (answer: Answer, settlement: Settlement) => void;
  /** The next answer is read when what this returns has resolved. */
  readonly paced?: () => Promise<void> | undefined;
  /** Is told that the cloud has forgotten what it had acknowledged. */
  readonly onAlarm: (why: string) => void;
  readonly onUnmarked?: OnUnmarked;
  readonly window?: number;
  readonly ackTimeoutMs?: number;
  readonly maxAttempts?: number;
}

/** Events in flight. Larger ones were slower: grpc-js walks what is unsent at every write. */
export const defaultWindow = 2_000;

/** The most that is in flight on any link, in characters: it bounds the memory a backlog takes. */
const maxInFlightSize = 16 * 1024 * 1024;

export const defaultAckTimeoutMs = 5_000;

/** Without any answer, though one is due; in milliseconds. Doubled with each lost call in a row. */
const progressTimeoutMs = 10_000;

/** The longest such time, in milliseconds. */
const maxProgressTimeoutMs = 300_000;

/** How often the outbox is looked at for what other processes have recorded, in milliseconds. */
const lookMs = 50;

/** Read from the outbox at a time. */
const pageSize = 256;

/** Marks are written together, since an event leaves the window before its mark is on the disk. */
const marksTogether = { maxItems: 2_000, lingerMs: 500 };

/** After so many, a window that is small because a call was refused is doubled. */
const answersToGrow = 64;

/** Resolves when it is drained, if that was asked for, or stopped. Throws as `keepLinked`. */
export async function channel(options: ChannelOptions): Promise<void> {
  const { uplink, signal, stop, window = defaultWindow } = options;
  const stopped = AbortSignal.any([signal, stop]);
  let firstWindow = window;
  const pace = new Pace();
  const marks = new Marks({ ...options, ...marksTogether });
  try {
    await keepLinked({
      ...options,
      // A stop ends the waiting for a connection; a call in progress ends itself.
      signal: stopped,
      connect: (call) => uplink.connect(call),
      async session({ progressed, failures }) {
        const session = new Session({ ...options, firstWindow, failures, progressed, pace, marks });
        try {
          return await session.run();
        } catch (error) {
          // One of those in flight was too much for the wire: with fewer it is sooner found.
          firstWindow = isTooMuch(error)
            ? Math.max(1, Math.floor(session.mostInFlight / 2))
            : window;
          throw error;
        }
      },
    });
  } catch (error) {
    if (!stop.aborted || signal.aborted || error !== stop.reason) {
      throw error;
    }
  }
}

interface InFlight {
  readonly event: Recorded;
  /** The first sending of the event, from which its round trip counts. */
  readonly departure: Departure;
  /** When it was sent last, by the monotonic clock. */
  readonly sentAt: number;
  /** The order of sending. */
  readonly number: number;
}

interface SessionOptions extends ChannelOptions {
  readonly firstWindow: number;
  readonly failures: number;
  readonly progressed: () => void;
  /** Keeps what earlier sessions have measured of the link. */
  readonly pace: Pace;
  /** Holds the answers that are not on the disk yet, including those to earlier sessions. */
  readonly marks: Marks;
}

/** One call. */
class Session {
  /** How many events were in flight at most. */
  mostInFlight = 0;
  #window: number;
  #answers = 0;
  readonly #options: SessionOptions;
  /** In the order in which they were sent. */
  readonly #inFlight = new Map<string, InFlight>();
  #lastSent = 0;
  /** The number of the last one that was answered. */
  #lastAnswered = 0;
  readonly #over = new AbortController();
  readonly #signal: AbortSignal;
  /** Rings when there may be something to send. */
  readonly #bell = new Bell();
  readonly #marks: Marks;
  #page: Recorded[] = [];
  #pageAt = 0;
  /** Of the last event read from the outbox. */
  #position = 0;
  #isAtEnd = false;
  /** Events whose answer did not come in time. */
  #overdue: Recorded[] = [];
  #seenVersion: number;
  /** Since when something is due and nothing came, by the monotonic clock. */
  #dueSince = 0;
  #hasRenumbered = false;
  #hasHalfClosed = false;
  #state: LinkState["kind"] = "connecting";

  constructor(options: SessionOptions) {
    const { outbox, marks, signal } = options;
    this.#options = options;
    this.#marks = marks;
    this.#signal = AbortSignal.any([signal, this.#over.signal]);
    this.#seenVersion = outbox.version();
    this.#window = options.firstWindow;
  }

  /** `again`: the events have new numbers. */
  async run(): Promise<"done" | { readonly again: string }> {
    const { uplink, outbox, stop, onAlarm, paced } = this.#options;
    const signal = this.#signal;
    const onStop = () => this.#bell.ring();
    stop.addEventListener("abort", onStop);
    this.#keepLooking();
    try {
      const answers = uplink.channel(this.#sending(), {
        signal,
        onLedger: ledgerCheck(outbox, onAlarm),
      });
      for await (const some of answers) {
        for (const answer of some) {
          this.#take(answer);
        }
        const pause = paced?.();
        if (pause !== undefined) {
          await pause;
        }
      }
      if (!this.#hasHalfClosed) {
        throw new StatusError("UNAVAILABLE", "the cloud ended the channel");
      }
      return "done";
    } catch (error) {
      if (this.#hasRenumbered) {
        return { again: numbersTaken };
      }
      signal.throwIfAborted();
      const [alone] = this.#inFlight.values();
      if (isTooMuch(error) && this.#inFlight.size === 1 && alone !== undefined) {
        this.#refuseAlone(alone.event, error);
      }
      throw error;
    } finally {
      // Answers that came still count.
      this.#marks.force();
      stop.removeEventListener("abort", onStop);
      this.#options.pace.lost();
      this.#over.abort(new StatusError("CANCELLED", "the channel is over"));
    }
  }

  async *#sending(): AsyncGenerator<Bundle, void> {
    const { outbox, stop, untilDrained } = this.#options;
    this.#enter("replaying");
    for (;;) {
      const bundle = stop.aborted ? [] : this.#bundle();
      if (bundle.length > 0) {
        yield bundle;
        continue;
      }
      if (this.#inFlight.size === 0 && (stop.aborted || untilDrained)) {
        // Now somebody does wait for the marks.
        this.#marks.flush();
        const failed = stop.aborted ? this.#marks.force() : undefined;
        if (failed !== undefined) {
          throw failed;
        }
      }
      if (this.#inFlight.size === 0 && this.#marks.size === 0) {
        if (stop.aborted || (untilDrained && outbox.isDrained())) {
          this.#enter("draining");
          this.#hasHalfClosed = true;
          return;
        }
        if (outbox.isDrained()) {
          this.#enter("live");
        }
      } else if (stop.aborted) {
        this.#enter("draining");
      }
      await this.#bell.next({ signal: this.#signal });
    }
  }

  /** What may be sent now, as much as goes together; from here on it is in flight. */
  #bundle(): Bundle {
    const { clock, pace } = this.#options;
    const bundle: Recorded[] = [];
    let size = 0;
    while (bundle.length < maxBundle && size < maxBundleSize) {
      const event = this.#next();
      if (event === undefined) {
        break;
      }
      const now = clock.monotonic();
      if (this.#inFlight.size === 0) {
        this.#dueSince = now;
      }
      // Removed first, so that the map stays in the order of sending.
      const before = this.#inFlight.get(event.eventId);
      this.#inFlight.delete(event.eventId);
      this.#lastSent += 1;
      const departure = before?.departure ?? pace.sent(event.payload, now);
      const sending = { event, departure, sentAt: now, number: this.#lastSent };
      this.#inFlight.set(event.eventId, sending);
      this.mostInFlight = Math.max(this.mostInFlight, this.#inFlight.size);
      size += event.payload.length;
      bundle.push(event);
    }
    return bundle;
  }

  /** What to send next: what is overdue, then what waits its turn again, then what was never sent. */
  #next(): Recorded | undefined {
    for (let event = this.#overdue.shift(); event !== undefined; event = this.#overdue.shift()) {
      if (this.#inFlight.has(event.eventId)) {
        return event;
      }
    }
    const { clock, pace } = this.#options;
    const room = Math.min(maxInFlightSize, pace.room(clock.monotonic()));
    while (this.#inFlight.size < this.#window && pace.inFlight < room) {
      const event = this.#page[this.#pageAt];
      if (event === undefined) {
        if (!this.#readPage()) {
          return undefined;
        }
      } else {
        this.#pageAt += 1;
        if (!this.#inFlight.has(event.eventId) && !this.#marks.has(event.position)) {
          return event;
        }
      }
    }
    return undefined;
  }

  #readPage(): boolean {
    const { outbox, clock } = this.#options;
    this.#pageAt = 0;
    const now = steadyNow(clock);
    let due = outbox.retries(pageSize, now);
    // An answer that is not on the disk yet does not show there: the event seems to be due still.
    const isNew = ({ eventId, position }: Recorded) =>
      !this.#inFlight.has(eventId) && !this.#marks.has(position);
    if (due.length === pageSize && this.#marks.size >= pageSize / 2 && !due.some(isNew)) {
      // Those behind them, of a replay, would wait for the marks.
      this.#marks.flush();
      due = outbox.retries(pageSize, now);
    }
    this.#page = due.filter(isNew);
    if (this.#page.length === 0 && !this.#isAtEnd) {
      this.#page = outbox.pending(this.#position, pageSize);
      this.#isAtEnd = this.#page.length === 0;
      this.#position = this.#page.at(-1)?.position ?? this.#position;
    }
    return this.#page.length > 0;
  }

  #take(answer: Answer): void {
    const { progressed, clock, pace, outbox, onAnswer, window = defaultWindow } = this.#options;
    this.#answers += 1;
    if (this.#answers % answersToGrow === 0) {
      this.#window = Math.min(window, this.#window * 2);
    }
    this.#dueSince = clock.monotonic();
    const { eventId } = answer;
    const sent = this.#inFlight.get(eventId);
    if (sent === undefined) {
      // The second answer to an event that was sent twice.
      return;
    }
    this.#lastAnswered = Math.max(this.#lastAnswered, sent.number);
    this.#inFlight.delete(eventId);
    pace.answered(sent.departure, this.#dueSince);
    if (answer.kind === "refused" && answer.isSeqTaken) {
      if (this.#hasRenumbered) {
        // It was sent under its old number.
        return;
      }
      const failed = this.#marks.force();
      if (failed !== undefined) {
        // What is answered and not marked would get new numbers as well.
        this.#over.abort(failed);
        return;
      }
      onOurDisk(() => outbox.renumber());
      this.#hasRenumbered = true;
      this.#over.abort(new StatusError("CANCELLED", "the events have new numbers"));
      return;
    }
    const settlement = settlementOf(sent.event, answer, this.#options);
    this.#marks.add([settlement]).then(
      () => {
        if (!this.#over.signal.aborted) {
          progressed();
        }
        onAnswer(answer, settlement);
        if (this.#marks.size === 0) {
          this.#bell.ring();
        }
      },
      (error) => this.#over.abort(error),
    );
    // Of many, not for each: to wake the sender costs more than the answer itself.
    if (this.#inFlight.size < 64 || this.#inFlight.size % 64 === 0) {
      this.#bell.ring();
    }
  }

  /** An event that alone ends a call waits while others pass, and is parked in the end. */
  #refuseAlone(event: Recorded, { message }: StatusError): void {
    const { outbox, onAnswer } = this.#options;
    const answer: Answer = {
      kind: "refused",
      eventId: event.eventId,
      reason: `the call that carried it alone was refused: ${message}`,
      ...{ isSeqTaken: false, isRetryable: true, retryAfterMs: 0 },
    };
    const settlement = settlementOf(event, answer, this.#options);
    onOurDisk(() => outbox.settle([settlement]));
    onAnswer(answer, settlement);
  }

  /** What happens by the clock alone, until the call is over. */
  async #keepLooking(): Promise<void> {
    const { uplink, clock, outbox, pace, failures } = this.#options;
    const { ackTimeoutMs = defaultAckTimeoutMs } = this.#options;
    const baseMs = Math.min(maxProgressTimeoutMs, progressTimeoutMs * 2 ** failures);
    try {
      for (;;) {
        await clock.sleep(lookMs, { signal: this.#signal });
        const now = clock.monotonic();
        const silentMs = now - this.#dueSince;
        // Before the first answer only the wire knows how far the cloud is.
        const expectedMs = pace.expectedMs + 2 * (uplink.roundTripMs ?? 0);
        if (this.#inFlight.size > 0 && silentMs > baseMs + expectedMs) {
          throw new StatusError("UNAVAILABLE", `no answer for ${Math.floor(silentMs / 1000)} s`);
        }
        const isSilent = silentMs >= ackTimeoutMs + expectedMs;
        this.#findOverdue(now - ackTimeoutMs, { isSilent });
        const version = outbox.version();
        if (version !== this.#seenVersion) {
          this.#seenVersion = version;
          this.#isAtEnd = false;
        }
        const steady = steadyNow(clock);
        const retryAt = outbox.nextRetryAt(steady);
        if (!this.#isAtEnd || this.#overdue.length > 0 || (retryAt ?? Infinity) <= steady) {
          this.#bell.ring();
        }
      }
    } catch (error) {
      if (!this.#signal.aborted) {
        this.#over.abort(error);
      }
    }
  }

  #findOverdue(before: number, { isSilent }: { readonly isSilent: boolean }): void {
    if (this.#overdue.length > 0) {
      return;
    }
    for (const { event, sentAt, number } of this.#inFlight.values()) {
      // Answers come in the order of the events.
      if (sentAt > before || (number > this.#lastAnswered && !isSilent)) {
        return;
      }
      this.#overdue.push(event);
    }
  }

  #enter(state: "replaying" | "live" | "draining"): void {
    if (this.#state !== state) {
      this.#state = state;
      this.#options.onState({ kind: state });
    }
  }
}
