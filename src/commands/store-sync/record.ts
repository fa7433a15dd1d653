/**
 * `brewctl store-sync record`: an event, or a stream of them, onto this store's disk. Needs no
 * network; what is printed is on the disk.
 *
 * room: bridge/outbox.ts
 * story: test/story/bridge.test.ts
 */

import { Command, Option } from "commander";
import type { Address } from "../../address.ts";
import type { Appended, NewEvent, Outbox } from "../../bridge/outbox.ts";
import { messageOf, StatusError, UsageError } from "../../errors.ts";
import { GroupCommit } from "../../group-commit.ts";
import { plain } from "../../plain.ts";
import { readAhead } from "../../read-ahead.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import { parseTimestamp } from "../../timestamp.ts";
import type { CommandContext } from "../client-call.ts";
import { dialAddress } from "../flags.ts";
import { checkInput, type Line, parsedLines, RefusedLines } from "../input.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";
import { parseEvent } from "./event-input.ts";
import { eventJson } from "./event-line.ts";
import { newIds } from "./new-id.ts";
import { recordAtBridge } from "./record-at-bridge.ts";

export interface RecordFlags extends LocalFlags {
  readonly bridge?: Address;
  readonly type?: string;
  readonly payload?: string;
  readonly eventId?: string;
  readonly timestamp?: string;
  readonly input?: string;
}

export const command = withLocalFlags(
  new Command("record")
    .description("put an event on this store's disk; no network needed")
    .option("--type <type>", "what happened, such as Sale, StockMovement or TillClose")
    .option(
      "--payload <text>",
      "any text, kept as it is and not checked, such as JSON (default: nothing)",
    )
    .option(
      "--event-id <id>",
      "its id; recording the same event again is then safe (default: a random one)",
    )
    .option(
      "--timestamp <time>",
      "when it happened: Unix milliseconds or 2026-01-02T03:04:05Z (default: now)",
    )
    .addOption(
      new Option(
        "--input <file>",
        "record the NDJSON events of a file, or of stdin with -, as they come",
      ).conflicts(["type", "payload", "eventId", "timestamp"]),
    )
    .addOption(
      new Option(
        "--bridge <address>",
        "record at the store's running bridge, as a till does, and not in the file",
      )
        .conflicts("buffer")
        .argParser(dialAddress),
    ),
);

export const examples = `\
  brewctl store-sync record --store store-01 --type Sale --payload '{"total":299}'
  brewctl store-sync record --type Sale --event-id till-1-0042 --payload '{"total":299}'
  brewctl store-sync record --input sales.ndjson   {"type":"Sale","payload":{"total":299}}
  till-program | brewctl store-sync record --input - -o ndjson
  brewctl store-sync record --bridge bridge.shop:50053 --type Sale --event-id till-1-0043`;

export const notes = `\
A line of input has type, and may have payload (text, or any JSON, which is kept as it stands in the
line), eventId and timestamp. A line that is refused or cannot be read is named and costs no other;
then the exit code is 2. Only with an eventId is it safe to record something again: the same event is
then the same answer. A timestamp is Unix milliseconds, or a time of RFC 3339 with Z or an offset;
what follows its milliseconds is cut off, and a leap second is the first second of the next day.
When the disk is full recording stops, the last line that was recorded is named, and the exit code is
72. With --bridge an event may be
recorded although its answer was lost: record it again, under its eventId.`;

interface NumberedEvent {
  /** Where its line stands. */
  readonly where: string;
  readonly event: NewEvent;
}

/** Lines that are read before those ahead of them are on the disk. */
const maxAhead = 1024;

export async function run(flags: RecordFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, stdin } = context;
  const { input, type } = flags;
  if (input !== undefined) {
    await checkInput(input, stdin);
  } else if (type === undefined) {
    throw new UsageError("what happened? Say so with --type, or give --input", {
      hint: "such as: brewctl store-sync record --type Sale --payload '{\"total\":299}'",
    });
  }
  if (flags.bridge !== undefined) {
    return await recordAtBridge(flags.bridge, flags, context);
  }
  const now = () => clock.now();
  const making = { newId: newIds(now), now };
  const timestamp = timeOf(flags, now());
  const outbox = openBuffer(flags, context, { makes: true });
  try {
    return input === undefined ? await recordOne(outbox) : await recordAll(outbox, input);
  } catch (error) {
    if (error instanceof Stop) {
      return error.exit;
    }
    throw error;
  } finally {
    outbox.close();
  }

  async function recordOne(outbox: Outbox): Promise<Exit> {
    const { payload = "", eventId = making.newId() } = flags;
    const [appended] = outbox.append([{ eventId, type: type ?? "", payload, timestamp }]);
    if (appended?.kind === "refused") {
      throw appended.why;
    }
    await print(appended, outbox);
    return 0;
  }

  async function recordAll(outbox: Outbox, path: string): Promise<Exit> {
    const signal = AbortSignal.any([context.interrupted, terminal.outputLost]);
    const refused = new RefusedLines(terminal);
    let recorded = 0;
    let last = "";
    let failure: unknown;
    const commits = new GroupCommit<NumberedEvent, Appended>({ clock, commit });

    // What is recorded must be a beginning of the input: nothing is committed after a failure.
    function commit(batch: readonly NumberedEvent[]): Appended[] {
      if (failure !== undefined) {
        throw failure;
      }
      try {
        const outcomes = outbox.append(batch.map(({ event }) => event));
        for (const [i, outcome] of outcomes.entries()) {
          const where = batch[i]?.where ?? "";
          if (outcome.kind === "refused") {
            refused.add(new UsageError(`${where}: ${outcome.why.message}`));
          } else {
            recorded += 1;
            last = where;
          }
        }
        return outcomes;
      } catch (error) {
        failure = error;
        throw error;
      }
    }

    async function* recording() {
      const parse = (line: Line) => ({ where: line.where, event: parseEvent(line, making) });
      for await (const event of parsedLines(path, { stdin, signal, parse, refused })) {
        if (failure !== undefined) {
          return;
        }
        const appended = commits.add(event);
        appended.catch(() => {});
        // In an object: a generator waits for a promise that it yields.
        yield { appended };
      }
    }

    const summary = () => tellRecorded(recorded, refused.count);
    try {
      for await (const { appended } of readAhead(recording(), maxAhead)) {
        await print(await appended, outbox);
      }
    } catch (error) {
      const upTo = recorded === 0 ? "" : `, the last one of ${last}`;
      terminal.complain(plain(`${summary()}${upTo}`));
      if (error instanceof Stop) {
        return error.exit || refused.exit;
      }
      throw recorded === 0 ? error : withRecorded(error, last);
    }
    terminal.say(summary());
    return refused.exit;
  }

  async function print(appended: Appended | undefined, { storeId }: Outbox): Promise<void> {
    if (appended?.kind !== "recorded") {
      return;
    }
    const { event, isNew } = appended;
    const { eventId, seq } = event;
    await terminal.print(
      flags.output === "ndjson"
        ? eventJson(event, storeId)
        : `recorded [${plain(event.type)}] id=${plain(eventId)} seq=${seq}${isNew ? "" : " (it was already)"}`,
    );
  }
}

/** The summary of an input. */
export function tellRecorded(recorded: number, refused: number): string {
  const more = refused > 0 ? `, ${refused} refused` : "";
  return `recorded ${recorded} ${recorded === 1 ? "event" : "events"}${more}`;
}

/** The Unix milliseconds of `--timestamp`; throws `UsageError` if it is not a time. */
export function timeOf({ timestamp }: RecordFlags, now: number): number | undefined {
  try {
    return timestamp === undefined ? undefined : parseTimestamp(timestamp, now);
  } catch (error) {
    throw new UsageError(`--timestamp ${timestamp}: ${messageOf(error)}`);
  }
}

/** The same error, with where to go on in place of its hint, which speaks of one write only. */
function withRecorded(error: unknown, last: string): unknown {
  if (!(error instanceof StatusError)) {
    return error;
  }
  const hint = `the lines up to ${last} are done and none after it is recorded; mend this and record the lines after it`;
  return error instanceof UsageError
    ? new UsageError(error.message, { hint, cause: error })
    : new StatusError(error.code, error.message, { hint, cause: error });
}
