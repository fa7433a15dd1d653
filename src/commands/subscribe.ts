/**
 * `brewctl subscribe`: the server stream. One request, then events until the server's limit, our
 * own stop rule, or Ctrl+C.
 *
 * rpc: orders.v1.StreamingService/Subscribe (proto/orders/v1/streaming.proto)
 * handler: `subscribe` in server/streaming.ts
 * story: test/story/lesson.test.ts
 *
 *     make run-server
 *     make run-subscribe ARGS="-limit=0"     # and Ctrl+C: the server logs "client gone"
 */

import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Command } from "commander";
import { backoffMs } from "../backoff.ts";
import { formatElapsed } from "../duration.ts";
import { isTransient, type StatusError } from "../errors.ts";
import {
  type OrderEvent,
  OrderEventSchema,
  StreamingService,
} from "../gen/orders/v1/streaming_pb.ts";
import { plain } from "../plain.ts";
import { type Exit, Stop } from "../shutdown.ts";
import { type ClientCall, type CommandContext, makeClientCall } from "./client-call.ts";
import { type ClientFlags, integer, maxInt32, withClientFlags } from "./flags.ts";
import { type ObserveFlags, observeNotes, withObserveFlags } from "./observe/flags.ts";
import { ndjson, printable } from "./output.ts";
import { checkStopFlags, type StopFlags, withStopFlags } from "./stop-rules.ts";
import { describeProgress } from "./terminal.ts";

export interface SubscribeFlags extends ClientFlags, StopFlags, ObserveFlags {
  readonly customer: string;
  readonly limit?: number;
  /** How many times in a row to dial anew; `true`: without end. */
  readonly reconnect?: number | true;
}

/** The lesson's limit, when no other rule says when to stop. */
const defaultLimit = 5;

const limitReached = new Stop("limit reached");

/** How long a server may take to end a stream whose limit is reached, in milliseconds. */
const maxLastWordsMs = 1_000;

/** Of the waits between two attempts to reconnect. */
const reconnectBackoff = { baseMs: 500, capMs: 10_000 };

export const command = withStopFlags(
  withObserveFlags(
    withClientFlags(
      new Command("subscribe")
        .description("watch orders as they come (server stream)")
        .option("--customer <id>", "ask for this customer's orders", "")
        .option(
          "-n, --limit <n>",
          "ask for n events; 0 or less: endless (default: 5, or endless with another stop rule)",
          integer(-maxInt32),
        )
        .option(
          "--reconnect [max]",
          "dial anew when the server is lost, at most max times in a row",
          integer(1),
        ),
    ),
  ),
  "events",
);

export const examples = `\
  brewctl subscribe                                five events, then the server ends the stream
  brewctl subscribe --limit 0                      until Ctrl+C
  brewctl subscribe --limit 0 -o ndjson | jq .amountCents
  brewctl subscribe --for 30s --reconnect          half a minute, also if the server restarts
  brewctl subscribe --expect 3 --within 5s -q      exit 4 unless three events come in time`;

export const notes = observeNotes;

export async function run(flags: SubscribeFlags, context: CommandContext): Promise<Exit> {
  checkStopFlags(flags, flags.limit);
  const hasOtherRule = flags.for ?? flags.idle ?? flags.expect;
  const limit = Math.max(0, flags.limit ?? (hasOtherRule === undefined ? defaultLimit : 0));
  let received = 0;

  return makeClientCall({
    service: StreamingService,
    method: "subscribe",
    flags,
    context,
    tally: () => `got ${received} ${received === 1 ? "event" : "events"}`,
    async run(call) {
      const { terminal, clock } = context;
      const startedAt = clock.monotonic();
      const progress = call.progress("waiting for the first event");
      try {
        for await (const event of events(call)) {
          if (limit > 0 && received === limit) {
            // A server that does not keep to the limit.
            throw limitReached;
          }
          received += 1;
          if (terminal.showsData) {
            progress.stop();
          }
          await terminal.print(
            flags.output === "ndjson"
              ? ndjson(OrderEventSchema, event)
              : printable(() => text(event, received, terminal.out.dim)),
          );
          if (received !== limit) {
            const elapsedMs = clock.monotonic() - startedAt;
            progress.update(`got ${describeProgress(received, elapsedMs, limit || undefined)}`);
          }
          call.count();
          if (received === limit) {
            // The server ends the stream now; one that does not is not waited for.
            clock.sleep(maxLastWordsMs, call).then(
              () => call.stop(limitReached),
              () => {},
            );
          }
        }
      } finally {
        progress.stop();
      }
      return { why: limit > 0 && received >= limit ? "limit reached" : "server had no more" };
    },
  });

  /** The events of one call after another, if need be, until one of them is properly over. */
  async function* events(call: ClientCall<typeof StreamingService>): AsyncGenerator<OrderEvent> {
    const { terminal, clock, random } = context;
    const maxAttempts =
      flags.reconnect === true ? Number.POSITIVE_INFINITY : (flags.reconnect ?? 0);
    let failures = 0;
    let lostAt: number | undefined;
    for (;;) {
      try {
        if (lostAt !== undefined) {
          await call.reconnect();
          const gap = formatElapsed(clock.monotonic() - lostAt);
          terminal.say(
            `reconnected after ${gap}; events of that time are lost, a stream has no replay`,
          );
          lostAt = undefined;
        }
        // What is left of the limit: the events before the loss need not come again.
        const request = { customerId: flags.customer, limit: limit && limit - received };
        for await (const event of call.client.subscribe(request, call)) {
          // Not on connecting: a server that accepts and then fails would be asked without pause.
          failures = 0;
          yield event;
        }
        return;
      } catch (error) {
        // A stop of ours is no StatusError, so it is never retried.
        if (isTransient(error) && limit > 0 && received === limit) {
          // All that was asked for has come; how the server said so does not matter.
          throw limitReached;
        }
        if (!isTransient(error) || maxAttempts === 0) {
          throw error;
        }
        if (failures >= maxAttempts) {
          terminal.say(`gave up after ${failures} attempts to reconnect`);
          throw error;
        }
        failures += 1;
        lostAt ??= clock.monotonic();
        const leftMs = (call.deadline ?? Number.POSITIVE_INFINITY) - clock.now();
        const waitMs = Math.min(leftMs, backoffMs(failures, reconnectBackoff, random));
        terminal.say(
          `${plain((error as StatusError).message)}; attempt ${failures} to reconnect in ${formatElapsed(waitMs)}`,
        );
        await clock.sleep(waitMs, call);
      }
    }
  }
}

function text(event: OrderEvent, number: number, dim: (text: string) => string): string {
  const { orderId, customerId, amountCents, emittedAt } = event;
  const at = emittedAt === undefined ? "?" : rfc3339(timestampDate(emittedAt));
  return `${dim(`[${number}]`)} order_id=${plain(orderId)} customer=${plain(customerId)} amount=${amountCents} at=${at}`;
}

/** To the second, as the original lesson prints it. */
function rfc3339(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, "Z");
}
