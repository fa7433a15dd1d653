/**
 * `brewctl chat`: the bidirectional stream. Sending and receiving are two loops that do not know
 * of each other; they meet only in the call.
 *
 * rpc: orders.v1.StreamingService/Chat (proto/orders/v1/streaming.proto)
 * handler: `chat` in server/streaming.ts
 * story: test/story/lesson.test.ts
 *
 *     make run-server
 *     make run-chat ARGS="-count=20 -interval=10ms"     # all sends leave before the echoes tick in
 */

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Command, Option } from "commander";
import { sleepUntil } from "../clock.ts";
import {
  type ChatMessage,
  ChatMessageSchema,
  StreamingService,
} from "../gen/orders/v1/streaming_pb.ts";
import { plain } from "../plain.ts";
import { type Exit, Stop } from "../shutdown.ts";
import { streamingAnswers } from "./answer-bounds.ts";
import { type CommandContext, makeClientCall } from "./client-call.ts";
import { type ClientFlags, duration, integer, withClientFlags } from "./flags.ts";
import { checkInput, type Line, parsedLines, RefusedLines } from "./input.ts";
import { parseJson, parseMessage } from "./json-line.ts";
import { type ObserveFlags, observeNotes, withObserveFlags } from "./observe/flags.ts";
import { ndjson } from "./output.ts";
import { checkStopFlags, type StopFlags, withStopFlags } from "./stop-rules.ts";

export interface ChatFlags extends ClientFlags, StopFlags, ObserveFlags {
  readonly from: string;
  readonly count: number;
  readonly interval?: number;
  readonly input?: string;
  readonly limit?: number;
  /** False for --no-half-close. */
  readonly halfClose: boolean;
}

/**
 * The lesson's own, in milliseconds: with the server's default of 200 ms before an echo, five pings have
 * left long before the first echo comes, so that the directions are seen to be independent.
 */
const defaultIntervalMs = 20;

export const command = withStopFlags(
  withObserveFlags(
    withClientFlags(
      new Command("chat")
        .description("send and receive at the same time (bidirectional stream)")
        .option("--from <name>", "who is speaking", "client-1")
        .addOption(
          new Option("-n, --count <n>", "how many pings to send").default(5).argParser(integer(0)),
        )
        .option(
          "--interval <duration>",
          "time from one message to the next (default: 20ms; 0 with --input)",
          duration,
        )
        .addOption(
          new Option(
            "--input <file>",
            "send the lines of a file, or of stdin with -, as they come; a line that begins with { is NDJSON",
          ).conflicts("count"),
        )
        .option("--limit <n>", "stop when n echoes came", integer(1))
        .option("--no-half-close", "never say that the last message was sent: the common mistake"),
    ),
  ),
  "echoes",
);

export const examples = `\
  brewctl chat                                     five pings, and their echoes as they come
  brewctl chat --count 20 --interval 10ms          all sent before the first echo: two directions
  brewctl chat --input -                           type lines; Ctrl+D half-closes
  (echo hello; sleep 1; echo bye) | brewctl chat --input -
  brewctl chat --no-half-close --deadline 2s       the server waits until the deadline (exit 68)`;

export const notes = `\
A line of --input that cannot be read is named and costs no other; then the exit code is 2.

${observeNotes}`;

export async function run(flags: ChatFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, stdin } = context;
  const { input, from } = flags;
  checkStopFlags(flags, flags.limit);
  if (input !== undefined) {
    await checkInput(input, stdin);
  }
  const isTyped = input === "-" && stdin.isTTY;
  let sent = 0;
  let received = 0;
  const refused = new RefusedLines(terminal);

  return makeClientCall({
    service: StreamingService,
    bounds: streamingAnswers,
    method: "chat",
    flags,
    context,
    tally() {
      const got = `got ${received} ${received === 1 ? "echo" : "echoes"}`;
      return (received === sent ? got : `sent ${sent}, ${got}`) + refused.tally;
    },
    tellUnanswered: () =>
      sent > received
        ? `sent ${sent}, ${received} answered, ${sent - received} without an echo: the server may or may not have had them`
        : undefined,
    readsTerminal: input === "-",
    async run(call) {
      const { signal } = call;
      let hasHalfClosed = false;
      let startedAt: number | undefined;
      let lastSendMs = 0;
      let firstEchoMs: number | undefined;
      const sinceStart = () => clock.monotonic() - (startedAt ?? clock.monotonic());
      if (isTyped) {
        terminal.say("type a line; Ctrl+D to finish, Ctrl+C to abort");
      }

      async function* sending(): AsyncGenerator<ChatMessage, void> {
        const intervalMs = flags.interval ?? (input === undefined ? defaultIntervalMs : 0);
        let due: number | undefined;
        for await (const message of input === undefined ? pings() : typed(input, signal)) {
          // An absolute schedule: a late message does not delay those behind it.
          due = due === undefined ? clock.monotonic() : due + intervalMs;
          await sleepUntil(clock, due, { signal });
          startedAt ??= clock.monotonic();
          yield message;
          lastSendMs = sinceStart();
          sent += 1;
          if (flags.output === "text") {
            await terminal.print(`${terminal.out.cyan(">")} sent: ${plain(message.text)}`);
          }
        }
        hasHalfClosed = flags.halfClose;
        if (!flags.halfClose) {
          terminal.say("not half-closing: the server does not know that this was all, and waits");
          await new Promise((_, reject) => {
            signal.addEventListener("abort", () => reject(signal.reason));
          });
        }
      }

      for await (const echo of call.client.chat(sending(), call)) {
        received += 1;
        firstEchoMs ??= sinceStart();
        await terminal.print(
          flags.output === "ndjson"
            ? ndjson(ChatMessageSchema, echo)
            : `${terminal.out.green("<")} echo from ${plain(echo.from)}: ${plain(echo.text)}`,
        );
        call.count();
        if (received === flags.limit) {
          throw new Stop("limit reached");
        }
      }
      if (firstEchoMs !== undefined && sent > 1) {
        const [last, first] = [lastSendMs, firstEchoMs].map((ms) => `${Math.round(ms)} ms`);
        terminal.say(`last of ${sent} sends after ${last}, first echo after ${first}`);
      }
      return {
        why: hasHalfClosed ? afterHalfClose(sent, received) : "server had no more",
        // A person who mistypes has seen it, and may have typed the line again.
        exit: isTyped ? 0 : refused.exit,
      };
    },
  });

  async function* pings(): AsyncGenerator<ChatMessage> {
    for (let i = 1; i <= flags.count; i += 1) {
      yield message(`ping ${i}`);
    }
  }

  function typed(path: string, signal: AbortSignal): AsyncGenerator<ChatMessage, void> {
    const parse = (line: Line) =>
      line.text.startsWith("{") ? ndjsonMessage(line) : message(line.text);
    return parsedLines(path, { stdin, signal, parse, refused });
  }

  function ndjsonMessage(line: Line): ChatMessage {
    const json = parseJson(line, 'a plain line, or {"text":"hello"}');
    const parsed = parseMessage(ChatMessageSchema, json);
    const { from: name, sentAt } = parsed;
    return { ...message(parsed.text), ...(name && { from: name }), ...(sentAt && { sentAt }) };
  }

  function message(text: string): ChatMessage {
    return create(ChatMessageSchema, { from, text, sentAt: timestampFromMs(clock.now()) });
  }
}

/** Every message has its echo: a server that sends fewer, or more, is not a chat of the contract. */
function afterHalfClose(sent: number, received: number): string {
  const missing = sent - received;
  return missing === 0
    ? "after our half-close"
    : missing > 0
      ? `after our half-close, with ${missing} ${missing === 1 ? "echo" : "echoes"} missing`
      : `after our half-close, with ${-missing} more ${missing === -1 ? "echo" : "echoes"} than messages`;
}
