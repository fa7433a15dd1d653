/** `--stats`: how many, how fast, how long apart, and what held it up. */

import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import { formatBrief } from "../../duration.ts";
import type { CallEvent } from "../../grpc/call-events.ts";
import type { CallShape } from "./index.ts";
import type { GaugeReading } from "./timeline.ts";

export interface Percentiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** As `-o ndjson` prints it. Times are in milliseconds. */
export interface Report {
  readonly sent: number;
  readonly received: number;
  /** From the first request's headers to the last event. */
  readonly elapsedMs: number;
  /** Of the messages that the command is about: those sent by an upload, else those received. */
  readonly perSecond: number;
  /** From the request's headers to the first message received. */
  readonly firstMessageMs: number | null;
  /** From one of these messages to the next; absent for a chat. */
  readonly betweenMs?: Percentiles | null;
  /** From a message sent to the one received in its place: the n-th answers the n-th. */
  readonly roundTripMs?: Percentiles | null;
  readonly maxInFlight: number;
  /** How long sending waited because `write()` had answered false, and how often. */
  readonly blockedMs: number;
  readonly blockedTimes: number;
  /** How long we waited for whoever reads our output, and read nothing from the call. */
  readonly outputBlockedMs: number;
}

export class Stats {
  readonly #shape: CallShape;
  /** HdrHistogram, in Node's own build; in microseconds, three digits. */
  readonly #times: RecordableHistogram = createHistogram({ figures: 3 });
  /** When the messages were sent that no answer has come for, from `#nextAnswered` on. */
  #sentAt: number[] = [];
  #nextAnswered = 0;
  #lastAt: number | undefined;
  #blockedAt: number | undefined;
  #sent = 0;
  #received = 0;
  #elapsedMs = 0;
  #firstMessageMs: number | undefined;
  #maxInFlight = 0;
  #blockedMs = 0;
  #blockedTimes = 0;

  constructor(shape: CallShape) {
    this.#shape = shape;
  }

  /** See `Timeline.record`. */
  record(event: CallEvent, ms: number, { peak }: GaugeReading): void {
    this.#elapsedMs = Math.max(this.#elapsedMs, ms);
    this.#maxInFlight = Math.max(this.#maxInFlight, peak);
    switch (event.kind) {
      case "requested":
        // Of a connection that was lost: the gap is no time between two messages of a stream.
        this.#lastAt = undefined;
        break;
      case "sent":
        this.#sent += 1;
        if (this.#shape === "client_streaming") {
          this.#between(ms);
        } else if (this.#shape === "bidi_streaming") {
          this.#sentAt.push(ms);
        }
        break;
      case "received":
        this.#received += 1;
        this.#firstMessageMs ??= ms;
        if (this.#shape === "server_streaming") {
          this.#between(ms);
        } else if (this.#shape === "bidi_streaming") {
          this.#answered(ms);
        }
        break;
      case "blocked":
        this.#blockedTimes += 1;
        this.#blockedAt = ms;
        break;
      case "unblocked":
        this.#blockedMs += ms - (this.#blockedAt ?? ms);
        this.#blockedAt = undefined;
        break;
      default:
        break;
    }
  }

  report({ outputBlockedMs }: { outputBlockedMs: number }): Report {
    const counted = this.#shape === "client_streaming" ? this.#sent : this.#received;
    const times = this.#percentiles();
    return {
      sent: this.#sent,
      received: this.#received,
      elapsedMs: round(this.#elapsedMs),
      perSecond: this.#elapsedMs > 0 ? round((counted * 1000) / this.#elapsedMs) : 0,
      firstMessageMs: this.#firstMessageMs === undefined ? null : round(this.#firstMessageMs),
      ...(this.#shape === "bidi_streaming" ? { roundTripMs: times } : { betweenMs: times }),
      maxInFlight: this.#maxInFlight,
      blockedMs: round(this.#blockedMs),
      blockedTimes: this.#blockedTimes,
      outputBlockedMs: round(outputBlockedMs),
    };
  }

  #between(ms: number): void {
    if (this.#lastAt !== undefined) {
      this.#take(ms - this.#lastAt);
    }
    this.#lastAt = ms;
  }

  #answered(ms: number): void {
    const sentAt = this.#sentAt[this.#nextAnswered];
    if (sentAt === undefined) {
      // More answers than messages: of another kind of server.
      return;
    }
    this.#take(ms - sentAt);
    this.#nextAnswered += 1;
    if (this.#nextAnswered === 4096) {
      this.#sentAt = this.#sentAt.slice(this.#nextAnswered);
      this.#nextAnswered = 0;
    }
  }

  #take(ms: number): void {
    this.#times.record(Math.max(1, Math.round(ms * 1000)));
  }

  #percentiles(): Percentiles | null {
    if (this.#times.count === 0) {
      return null;
    }
    const at = (percent: number) => this.#times.percentile(percent) / 1000;
    return { p50: at(50), p95: at(95), p99: at(99), max: this.#times.max / 1000 };
  }
}

/** The report for people, a few lines. */
export function describeReport(report: Report): string[] {
  const { sent, received, elapsedMs, perSecond, firstMessageMs } = report;
  const first =
    firstMessageMs === null
      ? "none received"
      : `first received after ${formatBrief(firstMessageMs)}`;
  const times = report.roundTripMs ?? report.betweenMs;
  const lines = [
    [
      "messages",
      `${sent} sent, ${received} received in ${formatBrief(elapsedMs)}, ${perSecond}/s; ${first}`,
    ],
    [
      report.roundTripMs === undefined ? "from one to the next" : "round trip",
      times
        ? `p50 ${formatBrief(times.p50)} · p95 ${formatBrief(times.p95)} · p99 ${formatBrief(times.p99)} · max ${formatBrief(times.max)}`
        : "too few messages",
    ],
    [report.roundTripMs === undefined ? "waiting" : "in flight", `at most ${report.maxInFlight}`],
    [
      "backpressure",
      `${formatBrief(report.blockedMs)} in ${report.blockedTimes} ${report.blockedTimes === 1 ? "pause" : "pauses"} of sending, ${formatBrief(report.outputBlockedMs)} waiting for standard output`,
    ],
  ];
  return lines.map(([name = "", text = ""]) => `${name.padEnd(21)}${text}`);
}

const round = (number: number) => Math.round(number * 1000) / 1000;
