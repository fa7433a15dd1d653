/** Seeing a call: what `grpc/call-events.ts` tells goes to whoever draws, measures and explains it. */

import { writeFileSync } from "node:fs";
import type { DescMethod } from "@bufbuild/protobuf";
import { messageOf, UsageError } from "../../errors.ts";
import type { CallEvent, WatchCall } from "../../grpc/call-events.ts";
import { plain } from "../../plain.ts";
import { replaceFile } from "../../private-file.ts";
import type { CommandContext } from "../client-call.ts";
import { Explainer, wrapSentence } from "./explain.ts";
import type { ObserveFlags } from "./flags.ts";
import { drawPicture } from "./picture.ts";
import { describeReport, Stats } from "./stats.ts";
import { drawSvg } from "./svg.ts";
import { type GaugeReading, Timeline } from "./timeline.ts";

export type CallShape = DescMethod["methodKind"];

export interface Observing {
  /** For `CallOptions`. */
  readonly watch: WatchCall;
  /** Whether it keeps the terminal's last lines busy: no place for a spinner. */
  readonly ownsTerminal: boolean;
  /** To be called once, when the call is over. Returns what kept the picture from being written. */
  show(): UsageError | undefined;
}

export interface ObserveOptions {
  readonly shape: CallShape;
  /** Of a picture that is kept. */
  readonly title: string;
  /** Of the server, for people. */
  readonly address: string;
  readonly flags: ObserveFlags & { readonly output: "text" | "ndjson" };
  readonly context: CommandContext;
  /** Whether a person types on the terminal; then nothing is drawn on it before the end. */
  readonly readsTerminal: boolean;
}

export function observe(options: ObserveOptions): Observing {
  const { shape, title, address, flags, context, readsTerminal } = options;
  const { terminal, clock } = context;
  const timeline = flags.timeline === undefined ? undefined : new Timeline();
  const stats = flags.stats ? new Stats(shape) : undefined;
  const explainer = flags.explain ? new Explainer(shape) : undefined;
  const unit =
    shape === "bidi_streaming"
      ? { name: "in flight", full: 0 }
      : { name: "waiting", full: bufferedMessages };
  const underWay = inFlight(shape);
  let startedAt: number | undefined;
  const elapsed = () => clock.monotonic() - (startedAt ?? clock.monotonic());
  let isOver = false;
  const untilNow = () => (isOver ? (timeline?.lastMs ?? 0) : elapsed());

  const picture =
    flags.timeline === true && timeline !== undefined
      ? terminal.picture(
          ({ columns, isUnicode }) =>
            startedAt === undefined
              ? isOver
                ? []
                : [`connecting to ${address}`.slice(0, columns)]
              : drawPicture(timeline, {
                  columns,
                  isUnicode,
                  untilMs: untilNow(),
                  unit,
                  colours: terminal.err,
                }),
          { isLive: !readsTerminal },
        )
      : undefined;

  // Sentences that are read more slowly than they are written would pile up in memory.
  let untold = 0;
  const explain = (sentence: string) => {
    if (terminal.isTalkBehind) {
      untold += 1;
      return;
    }
    if (untold > 0) {
      terminal.complain(terminal.err.dim(`  … ${untold} events that nobody was there to read`));
      untold = 0;
    }
    for (const line of wrapSentence(plain(sentence), terminal.talkColumns)) {
      terminal.complain(terminal.err.dim(line));
    }
  };

  let seenBlockedMs = 0;
  const seeOutput = (ms: number) => {
    const blockedMs = terminal.blockedMs - seenBlockedMs;
    if (blockedMs > 0) {
      seenBlockedMs += blockedMs;
      timeline?.recordOutputBlocked(blockedMs, ms);
    }
  };

  return {
    watch(event) {
      startedAt ??= clock.monotonic();
      const ms = elapsed();
      const gauge = underWay(event);
      timeline?.record(event, ms, gauge);
      stats?.record(event, ms, gauge);
      seeOutput(ms);
      if (explainer !== undefined && !isOver) {
        explain(explainer.explain(event, ms));
      }
    },
    ownsTerminal: picture?.isLive === true || explainer !== undefined,
    show() {
      if (startedAt !== undefined) {
        seeOutput(elapsed());
      }
      isOver = true;
      picture?.end();
      if (startedAt === undefined) {
        return undefined;
      }
      if (stats !== undefined) {
        const report = stats.report({ outputBlockedMs: terminal.blockedMs });
        const lines =
          flags.output === "ndjson" ? [JSON.stringify({ stats: report })] : describeReport(report);
        for (const line of lines) {
          terminal.complain(line);
        }
      }
      if (typeof flags.timeline === "string" && timeline !== undefined) {
        const options = { title, untilMs: untilNow(), unit };
        const hasEchoes = shape === "bidi_streaming";
        const failure = keep(flags.timeline, drawSvg(timeline, { ...options, hasEchoes }), flags);
        if (failure !== undefined) {
          return failure;
        }
        terminal.say(`timeline written to ${plain(flags.timeline)}`);
      }
      return undefined;
    },
  };
}

/** Without --force, a file that has appeared since the check stays as well. */
function keep(path: string, svg: string, { force }: ObserveFlags): UsageError | undefined {
  try {
    if (force === true) {
      replaceFile(path, svg, { mode: "umask" });
    } else {
      writeFileSync(path, svg, { flag: "wx" });
    }
    return undefined;
  } catch (error) {
    const isThere = (error as NodeJS.ErrnoException).code === "EEXIST";
    const why = isThere ? "there is a file now, and it was left alone" : messageOf(error);
    return new UsageError(`--timeline ${path}: ${why}`, { cause: error });
  }
}

/** The high-water mark of a Node object stream: a gauge that shows fewer messages is drawn on this scale. */
const bufferedMessages = 16;

/**
 * How many messages are under way: of a chat, sent and not yet answered; of an upload, written and
 * not yet taken by the connection; of a subscription, come and not yet taken by us.
 *
 * What is told of a buffer is how full it was at a write or a read. Unless we are blocked, it is as
 * good as empty right after.
 */
function inFlight(shape: CallShape): (event: CallEvent) => GaugeReading {
  let count = 0;
  /** How many messages of an upload waited when the last one was written. */
  let waiting = 0;
  let isBlocked = false;
  const still = () => ({ peak: count, rest: count });
  return (event) => {
    switch (event.kind) {
      case "requested":
        count = 0;
        return still();
      case "sent":
        if (shape === "bidi_streaming") {
          count += 1;
          return still();
        }
        waiting = event.waiting;
        return shape === "client_streaming" ? { peak: waiting, rest: 0 } : still();
      case "received":
        if (shape === "bidi_streaming") {
          count = Math.max(0, count - 1);
          return still();
        }
        return shape === "server_streaming"
          ? { peak: event.waiting, rest: event.waiting - 1 }
          : still();
      case "blocked":
        isBlocked = true;
        break;
      case "unblocked":
        isBlocked = false;
        break;
      default:
        break;
    }
    if (shape === "client_streaming" && isBlocked) {
      return { peak: waiting, rest: waiting };
    }
    return still();
  };
}
