/**
 * `brewctl upload`: the client stream. Records go out one after another; the half-close after the
 * last one is what makes the server answer, once, with the summary.
 *
 * rpc: orders.v1.StreamingService/UploadOrders (proto/orders/v1/streaming.proto)
 * handler: `uploadOrders` in server/streaming.ts
 * story: test/story/lesson.test.ts
 *
 *     make run-server
 *     make run-upload ARGS="-bad=5"     # rejected=5, and the rest accepted all the same
 */

import { create } from "@bufbuild/protobuf";
import { Command, Option } from "commander";
import { sleepUntil } from "../clock.ts";
import { StatusError } from "../errors.ts";
import {
  OrderEventSchema,
  type OrderInput,
  OrderInputSchema,
  StreamingService,
  type UploadSummary,
  UploadSummarySchema,
} from "../gen/orders/v1/streaming_pb.ts";
import { plain } from "../plain.ts";
import { type Exit, Stop } from "../shutdown.ts";
import { streamingAnswers } from "./answer-bounds.ts";
import { type CommandContext, makeClientCall } from "./client-call.ts";
import { type ClientFlags, duration, integer, maxInt32, withClientFlags } from "./flags.ts";
import { checkInput, type Line, parsedLines, RefusedLines } from "./input.ts";
import { parseJson, parseMessage } from "./json-line.ts";
import { type ObserveFlags, observeNotes, withObserveFlags } from "./observe/flags.ts";
import { ndjson } from "./output.ts";
import { checkStopFlags, type StopFlags, withStopFlags } from "./stop-rules.ts";
import { describeProgress } from "./terminal.ts";

export interface UploadFlags extends ClientFlags, StopFlags, ObserveFlags {
  readonly count: number;
  readonly bad: number;
  readonly pause?: number;
  readonly interval?: number;
  readonly input?: string;
  readonly limit?: number;
  readonly failOnRejected?: boolean;
}

/** Records were rejected and `--fail-on-rejected` asked to know. */
const rejectedExit = 3;

const defaultPauseMs = 50;

export const command = withStopFlags(
  withObserveFlags(
    withClientFlags(
      new Command("upload")
        .description("import a batch of orders, get one summary (client stream)")
        .addOption(
          new Option("-n, --count <n>", "how many records to make up")
            .default(20)
            .argParser(integer(0)),
        )
        .addOption(
          new Option("--bad <n>", "how many of them, the first, are bad")
            .default(3)
            .argParser(integer(0)),
        )
        .addOption(
          new Option(
            "--pause <duration>",
            "time from one record to the next (default: 50ms; 0 with --input)",
          ).argParser(duration),
        )
        .addOption(
          new Option("--interval <duration>", "another name of --pause")
            .argParser(duration)
            .conflicts("pause"),
        )
        .addOption(
          new Option(
            "--input <file>",
            "send the NDJSON records of a file, or of stdin with -, as they come",
          ).conflicts(["count", "bad"]),
        )
        .option("--limit <n>", "send at most n records", integer(1))
        .option("--fail-on-rejected", "exit 3 if the server rejected any"),
    ),
  ),
  "records",
);

export const examples = `\
  brewctl upload                                   20 records, the first 3 of them bad
  brewctl upload --bad 5 --fail-on-rejected        exit 3: some were rejected
  brewctl upload --count 100000 --pause 0 -q
  brewctl upload --input orders.ndjson -o ndjson   {"customerId":"cus-001","amountCents":"250","currency":"USD"}
  brewctl subscribe --limit 10 -o ndjson | brewctl upload --input -`;

export const notes = `\
Here --for, --idle and --limit end the sending: the stream is half-closed and the summary comes.
--idle looks at the records of --input. --expect counts the records that the server accepted. A
summary that does not agree with what was sent, or that comes before the half-close, is exit 79.
A line of --input that cannot be read is named and costs no other; then the exit code is 2.

${observeNotes}`;

export async function run(flags: UploadFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, stdin } = context;
  const { input, limit } = flags;
  checkStopFlags(flags);
  if (input !== undefined) {
    await checkInput(input, stdin);
  }
  let sent = 0;
  /** How many records the call has asked for: the last one may or may not have been sent. */
  let given = 0;
  let hasSummary = false;
  const refused = new RefusedLines(terminal);
  // Aborts with the rule that was met: nothing more is sent, and the summary comes.
  const enough = new AbortController();

  return makeClientCall({
    service: StreamingService,
    bounds: streamingAnswers,
    method: "uploadOrders",
    flags,
    context,
    tally: () => `sent ${counted(sent)}${refused.tally}`,
    tellUnanswered: () =>
      given === 0 || hasSummary
        ? undefined
        : `no summary came: the server may or may not have taken ${given === 1 ? "the record" : `the ${given} records`}; look there before sending again`,
    readsTerminal: input === "-",
    onRuleMet: (rule) => enough.abort(rule),
    async run(call) {
      const startedAt = clock.monotonic();
      const total = input === undefined ? Math.min(flags.count, limit ?? maxInt32) : limit;
      // On a terminal the lines about the records are progress enough.
      const showsRecords = flags.output === "text";
      const isBusyLine = input === "-" || (showsRecords && terminal.showsData);
      const progress = isBusyLine ? undefined : call.progress("uploading");

      let isAllSent = false;
      async function* untilAllSent(): AsyncGenerator<OrderInput, void> {
        yield* untilAborted(sending(), enough.signal);
        isAllSent = true;
      }

      async function* sending(): AsyncGenerator<OrderInput, void> {
        for await (const record of paced(records(signal), signal)) {
          given += 1;
          yield record;
          // The wire took it: the call asks for the next.
          const { customerId, amountCents } = record;
          if (showsRecords) {
            await terminal.print(
              `sent #${sent} customer=${plain(customerId)} amount=${amountCents}`,
            );
          }
          sent += 1;
          call.touch();
          progress?.update(`sent ${describeProgress(sent, clock.monotonic() - startedAt, total)}`);
          if (sent === limit) {
            enough.abort(new Stop("limit reached"));
          }
        }
      }

      const signal = AbortSignal.any([call.signal, enough.signal]);
      let summary: UploadSummary;
      try {
        summary = await call.client.uploadOrders(untilAllSent(), call);
      } finally {
        progress?.stop();
      }
      hasSummary = true;
      if (showsRecords) {
        await terminal.print("---");
      }
      await terminal.print(
        flags.output === "ndjson" ? ndjson(UploadSummarySchema, summary) : text(summary),
      );
      const untruth = faultOfSummary(summary, { sent, isAllSent });
      if (untruth !== undefined) {
        throw new StatusError("DATA_LOSS", untruth, {
          hint: "what the server has taken is not known; look there before the records are sent again",
        });
      }
      call.count(summary.accepted);
      const isFailed = flags.failOnRejected === true && summary.rejected > 0;
      const rule: Stop | undefined = enough.signal.reason;
      return {
        why: isFailed ? `${summary.rejected} rejected` : (rule?.message ?? "summary received"),
        exit: isFailed ? rejectedExit : refused.exit,
      };
    },
  });

  function records(signal: AbortSignal): AsyncIterable<OrderInput> {
    return input === undefined
      ? madeUp(flags)
      : parsedLines(input, { stdin, signal, parse: parseRecord, refused });
  }

  /** Record i goes out at i times the pause after the first, however long the others took. */
  async function* paced(source: AsyncIterable<OrderInput>, signal: AbortSignal) {
    const pauseMs = flags.pause ?? flags.interval ?? (input === undefined ? defaultPauseMs : 0);
    let due: number | undefined;
    for await (const record of source) {
      due = due === undefined ? clock.monotonic() : due + pauseMs;
      await sleepUntil(clock, due, { signal });
      yield record;
    }
  }
}

/** The source until the signal aborts, which is then an end and not an error. */
async function* untilAborted<T>(source: AsyncIterable<T>, signal: AbortSignal) {
  try {
    for await (const item of source) {
      if (signal.aborted) {
        return;
      }
      yield item;
    }
  } catch (error) {
    if (!signal.aborted) {
      throw error;
    }
  }
}

/** The lesson's records: five customers in turn, amounts that grow by 10, the first ones bad. */
async function* madeUp({ count, bad }: UploadFlags): AsyncGenerator<OrderInput> {
  for (let i = 0; i < count; i += 1) {
    yield create(OrderInputSchema, {
      customerId: `cus-${String(i % 5).padStart(3, "0")}`,
      amountCents: i < bad ? 0n : BigInt(100 + 10 * i),
      currency: "USD",
    });
  }
}

function parseRecord(line: Line): OrderInput {
  const json = parseJson(line, '{"customerId":"cus-001","amountCents":"250","currency":"USD"}');
  if (json.texts.has("orderId") || json.texts.has("order_id")) {
    // What subscribe prints. An event has no currency.
    const { customerId, amountCents } = parseMessage(OrderEventSchema, json);
    return create(OrderInputSchema, { customerId, amountCents, currency: "USD" });
  }
  return parseMessage(OrderInputSchema, json);
}

function counted(records: number): string {
  return `${records} ${records === 1 ? "record" : "records"}`;
}

/**
 * Why a summary cannot be true, or cannot be of all records; undefined if it agrees with what was sent.
 * A server may end a call with OK at any time: only the numbers tell whether it has had everything.
 */
function faultOfSummary(
  { received, accepted, rejected }: UploadSummary,
  { sent, isAllSent }: { readonly sent: number; readonly isAllSent: boolean },
): string | undefined {
  if (!isAllSent) {
    return `the server ended the call with OK before our half-close: ${sent} records were sent by then, and its summary says received=${received}`;
  }
  if (received !== sent) {
    return `the server's summary says received=${received}, and ${sent} were sent`;
  }
  return accepted + rejected === received
    ? undefined
    : `the server's summary says accepted=${accepted} and rejected=${rejected}, which are not received=${received}`;
}

function text({ received, accepted, rejected, totalCents }: UploadSummary): string {
  return `summary: received=${received} accepted=${accepted} rejected=${rejected} total_cents=${totalCents}`;
}
