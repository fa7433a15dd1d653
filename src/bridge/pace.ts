/**
 * How much a link should have in flight, and how long an answer may take, measured by the answers.
 *
 * What is sent faster than a slow line passes it waits in queues that we cannot see, and everything sent
 * later waits after it: a small sale, and the PING that shows that the link is alive. Too little in
 * flight leaves a far link idle. As TCP's BBR does, this measures both: the rate at which events are
 * answered, and the shortest time to an answer. Their product fills the line, and a second's worth more
 * keeps it filled.
 */

/** What was known when an event was sent. */
export interface Departure {
  readonly sentAt: number;
  readonly size: number;
  /** Whether nothing, or next to nothing, was in flight before it: its answer shows the round trip. */
  readonly isAlone: boolean;
  /** Whether the link had as much to do as it should: its answer shows the rate. */
  readonly isFull: boolean;
  readonly deliveredBefore: number;
  readonly deliveredAt: number;
}

/** What may always be in flight, in characters: two seconds' worth on a line of 32 kbit/s. */
export const minRoom = 8 * 1024;

/** What an event takes on the wire beside its payload, in characters. */
const envelopeSize = 100;

/** How long the line may be busy with what waits in queues, in milliseconds. */
const queueMs = 1_000;

/** The longest round trip that is believed, in milliseconds: the answer to a large event takes longer. */
const maxRoundTripMs = 10_000;

/** After this time the round trip is measured again, in milliseconds. For that the queues must empty. */
const staleMs = 60_000;

/** The rate that is assumed before any was measured, in characters per millisecond: 16 kbit/s. */
const unknownRate = 2;

export class Pace {
  #rate: number | undefined;
  #roundTripMs: number | undefined;
  #measuredAt = 0;
  #inFlight = 0;
  #delivered = 0;
  #deliveredAt = 0;
  /** What will have been delivered when the present round trip is over. */
  #roundEnd = 0;

  /** How much may be in flight now, in characters. An event may be sent as long as less is. */
  room(now: number): number {
    if (this.#rate === undefined || this.#roundTripMs === undefined) {
      return minRoom;
    }
    if (now - this.#measuredAt > staleMs) {
      return minRoom;
    }
    // Twice, since a rate that was measured with little in flight is less than the line has.
    return Math.max(minRoom, this.#rate * (2 * this.#roundTripMs + queueMs));
  }

  /** How much is in flight, in characters. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** How long what is in flight may take to be answered, in milliseconds. */
  get expectedMs(): number {
    const rate = this.#rate === undefined ? unknownRate : this.#rate / 2;
    return (this.#roundTripMs ?? 0) + this.#inFlight / rate;
  }

  /** Counts an event that is sent now. */
  sent(payload: string, now: number): Departure {
    const size = payload.length + envelopeSize;
    const before = this.#inFlight;
    this.#inFlight += size;
    return {
      size,
      sentAt: now,
      isAlone: before === 0 || this.#inFlight <= minRoom,
      isFull: this.#inFlight >= this.room(now) / 2,
      deliveredBefore: this.#delivered,
      deliveredAt: before === 0 ? now : this.#deliveredAt,
    };
  }

  /** Measures by an event that was answered now. */
  answered(departure: Departure, now: number): void {
    const { size, sentAt, isAlone, isFull, deliveredBefore, deliveredAt } = departure;
    this.#inFlight -= size;
    this.#delivered += size;
    this.#deliveredAt = now;
    const tookMs = Math.min(maxRoundTripMs, now - sentAt);
    const isStale = now - this.#measuredAt > staleMs;
    if (isAlone && (isStale || tookMs <= (this.#roundTripMs ?? Number.POSITIVE_INFINITY))) {
      this.#roundTripMs = tookMs;
      this.#measuredAt = now;
    }
    const rate = (this.#delivered - deliveredBefore) / Math.max(1, now - deliveredAt);
    if (this.#rate === undefined || rate > this.#rate) {
      this.#rate = rate;
    } else if (isFull && deliveredBefore >= this.#roundEnd) {
      this.#rate += (rate - this.#rate) / 4;
      this.#roundEnd = this.#delivered;
    }
  }

  /** Forgets what is in flight: its call is over. What was measured still holds. */
  lost(): void {
    this.#inFlight = 0;
  }
}
