/**
 * What a picture of a call is drawn from: its events, sorted into buckets of time. However long the
 * call and however many its messages, there are at most `maxBuckets`: when they are used up, each two
 * become one, and time is told half as finely.
 */

import type { CallEvent } from "../../grpc/call-events.ts";

/** What happened in a stretch of time. */
export interface Bucket {
  sent: number;
  received: number;
  /** Connections that a new call had to follow. */
  lost: number;
  /** Of the gauge, the most in this stretch, and the last; undefined if it did not move. */
  peak: number | undefined;
  last: number | undefined;
  /** For how long we were held up by backpressure, in milliseconds. */
  blockedMs: number;
}

/** How many messages are under way: at most, during an event, and from then on. */
export interface GaugeReading {
  readonly peak: number;
  readonly rest: number;
}

export interface TimelineOptions {
  /** An even number, at least twice the columns of any picture. */
  readonly maxBuckets?: number;
}

/** Of the first buckets, in milliseconds. */
const firstBucketMs = 0.1;

export class Timeline {
  readonly #maxBuckets: number;
  #bucketMs = firstBucketMs;
  #buckets: Bucket[] = [];
  #blockedAt: number | undefined;
  #lastMs = 0;

  sent = 0;
  received = 0;
  /** The highest that the gauge stood. */
  peak = 0;
  blockedMs = 0;
  /** How often `write()` answered false. */
  blockedTimes = 0;
  /** Instants, in milliseconds since the call began; undefined for what has not happened. */
  readonly at: {
    lastSent?: number;
    firstReceived?: number;
    lastReceived?: number;
    halfClosed?: number;
    cancelled?: number;
    ended?: number;
    lastLost?: number;
  } = {};
  /** The status, when the call has ended. */
  status: string | undefined;
  /** How many connections were lost that a new call followed. */
  lost = 0;
  /** For how long nobody read our output, in milliseconds. */
  outputBlockedMs = 0;

  constructor({ maxBuckets = 1024 }: TimelineOptions = {}) {
    this.#maxBuckets = maxBuckets;
  }

  /**
   * Takes the next event. `ms` is the time since the first call began and never goes back. A call
   * that follows another, as when a client reconnects, goes on in the same picture.
   */
  record(event: CallEvent, ms: number, { peak, rest }: GaugeReading): void {
    this.#lastMs = Math.max(this.#lastMs, ms);
    switch (event.kind) {
      case "requested":
        if (this.at.ended !== undefined) {
          this.lost += 1;
          this.at.lastLost = this.at.ended;
          this.#bucketAt(this.at.ended).lost += 1;
        }
        delete this.at.halfClosed;
        delete this.at.cancelled;
        delete this.at.ended;
        this.status = undefined;
        break;
      case "sent":
        this.sent += 1;
        this.at.lastSent = ms;
        this.#bucketAt(ms).sent += 1;
        break;
      case "received":
        this.received += 1;
        this.at.firstReceived ??= ms;
        this.at.lastReceived = ms;
        this.#bucketAt(ms).received += 1;
        break;
      case "blocked":
        this.blockedTimes += 1;
        this.#blockedAt = ms;
        break;
      case "unblocked":
        this.#addBlocked(ms);
        this.#blockedAt = undefined;
        break;
      case "half-closed":
        this.at.halfClosed = ms;
        break;
      case "cancelled":
        this.at.cancelled = ms;
        break;
      case "ended":
        this.at.ended = ms;
        this.status = event.code;
        break;
      default:
        break;
    }
    const bucket = this.#bucketAt(ms);
    bucket.last = rest;
    bucket.peak = Math.max(peak, bucket.peak ?? 0);
    this.peak = Math.max(this.peak, peak);
  }

  /** When the last event was, in milliseconds since the call began. */
  get lastMs(): number {
    return this.#lastMs;
  }

  /** Books a time, up to `ms`, in which we did not read because nobody read our output. */
  recordOutputBlocked(forMs: number, ms: number): void {
    this.#lastMs = Math.max(this.#lastMs, ms);
    this.outputBlockedMs += forMs;
    this.#book(Math.max(0, ms - forMs), ms);
  }

  /** The same time in `count` equal stretches, from the beginning to `untilMs`. */
  stretches(count: number, untilMs: number): Bucket[] {
    this.#addBlocked(untilMs);
    const stretches = Array.from({ length: count }, emptyBucket);
    for (const [i, bucket] of this.#buckets.entries()) {
      const at = stretchOf(i * this.#bucketMs, { count, untilMs });
      const stretch = stretches[at];
      if (stretch !== undefined) {
        add(stretch, bucket);
      }
    }
    // A gauge that does not move still stands somewhere.
    let gauge = 0;
    for (const stretch of stretches) {
      stretch.peak ??= gauge;
      gauge = stretch.last ?? gauge;
    }
    return stretches;
  }

  /** A wait that goes on is booked up to now, and goes on from here. */
  #addBlocked(ms: number): void {
    const from = this.#blockedAt;
    if (from === undefined || ms <= from) {
      return;
    }
    this.blockedMs += ms - from;
    this.#blockedAt = ms;
    this.#book(from, ms);
  }

  #book(from: number, ms: number): void {
    // Asked for first: it may make the buckets coarser.
    this.#bucketAt(ms);
    const size = this.#bucketMs;
    for (let i = Math.floor(from / size); i * size < ms; i += 1) {
      const bucket = this.#bucketAt(i * size + size / 2);
      bucket.blockedMs += Math.min(ms, (i + 1) * size) - Math.max(from, i * size);
    }
  }

  #bucketAt(ms: number): Bucket {
    while (ms >= this.#bucketMs * this.#maxBuckets) {
      this.#bucketMs *= 2;
      this.#buckets = Array.from({ length: Math.ceil(this.#buckets.length / 2) }, (_, i) => {
        const merged = emptyBucket();
        for (const bucket of this.#buckets.slice(2 * i, 2 * i + 2)) {
          add(merged, bucket);
        }
        return merged;
      });
    }
    const i = Math.floor(ms / this.#bucketMs);
    while (this.#buckets.length <= i) {
      this.#buckets.push(emptyBucket());
    }
    return this.#buckets[i] as Bucket;
  }
}

/** Which of `count` equal stretches up to `untilMs` an instant lies in. */
export function stretchOf(
  ms: number,
  { count, untilMs }: { count: number; untilMs: number },
): number {
  return untilMs > 0 ? Math.min(count - 1, Math.floor((ms / untilMs) * count)) : 0;
}

function emptyBucket(): Bucket {
  return { sent: 0, received: 0, lost: 0, peak: undefined, last: undefined, blockedMs: 0 };
}

/** Adds a later stretch to an earlier one. */
function add(to: Bucket, later: Bucket): void {
  to.sent += later.sent;
  to.received += later.received;
  to.lost += later.lost;
  to.blockedMs += later.blockedMs;
  to.last = later.last ?? to.last;
  if (later.peak !== undefined) {
    to.peak = Math.max(to.peak ?? 0, later.peak);
  }
}
