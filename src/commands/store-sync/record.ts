/**
 * `brewctl store-sync record`: an event, or a stream of them, onto this store's disk. Needs no
 * network; what is printed is on the disk.
 *
 * room: bridge/outbox.ts
 * story: test/story/bridge.test.ts
 */

import { Command, InvalidArgumentError, Option } from "commander";
import type { Address } from "../../address.ts";
import type { Appended, NewEvent, Outbox } from "../../bridge/outbox.ts";
import { type StatusError, UsageError } from "../../errors.ts";
import { GroupCommit } from "../../group-commit.ts";
import { plain } from "../../plain.ts";
import { readAhead } from "../../read-ahead.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { dialAddress } from "../flags.ts";
import { checkInput, lines } from "../input.ts";
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
  readonly timestamp?: number;
  readonly input?: string;
}

export const command = withLocalFlags(
  new Command("record")
    .description("put an event on this store's disk; no network needed")
    .option("--type <type>", "what happened, such as Sale, StockMovement or TillClose")
    .option("--payload <text>", "what belongs to it, such as JSON (default: nothing)")
    .option(
      "--event-id <id>",
      "its id; recording the same event again is then safe (default: a random one)",
    )
    .option(
      "--timestamp <time>",
      "when it happened: Unix milliseconds or 2026-01-02T03:04:05Z (default: now)",
      time,
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
A line of input has type, and may have payload (text, or any JSON), eventId and timestamp (Unix
milliseconds). A line that is refused is named and costs no other; then the exit code is 2. Only
with an eventId is it safe to record something again: the same event is then the same answer.
When the disk is full nothing is recorded, and the exit code is 72. With --bridge an event may be
recorded although its answer was lost: record it again, under its eventId.`;

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
  const newId = newIds(() => clock.now());
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
    const { payload = "", eventId = newId(), timestamp } = flags;
    const [appended] = outbox.append([{ eventId, type: type ?? "", payload, timestamp }]);
    if (appended?.kind === "refused") {
      throw appended.why;
    }
    await print(appended, outbox);
    return 0;
  }

  async function recordAll(outbox: Outbox, path: string): Promise<Exit> {
    const signal = AbortSignal.any([context.interrupted, terminal.outputLost]);
    const commits = new GroupCommit<NewEvent, Appended>({
      clock,
      commit: (events) => outbox.append(events),
    });
    let recorded = 0;
    let refused = 0;
    const refuse = (where: string, why: StatusError) => {
      refused += 1;
      terminal.complain(
        `brewctl: ${why instanceof UsageError ? "" : `${where}: `}${plain(why.message)}`,
      );
    };

    async function* recording() {
      for await (const line of lines(path, { stdin, signal })) {
        try {
          const appended = commits.add(parseEvent(line, newId));
          appended.catch(() => {});
          yield { where: line.where, appended };
        } catch (error) {
          if (!(error instanceof UsageError)) {
            throw error;
          }
          refuse(line.where, error);
        }
      }
    }

    try {
      for await (const { where, appended } of readAhead(recording(), maxAhead)) {
        const outcome = await appended;
        if (outcome.kind === "refused") {
          refuse(where, outcome.why);
        } else {
          recorded += 1;
          await print(outcome, outbox);
        }
      }
    } finally {
      const more = refused > 0 ? `, ${refused} refused` : "";
      terminal.say(`recorded ${recorded} ${recorded === 1 ? "event" : "events"}${more}`);
    }
    return refused > 0 ? 2 : 0;
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

function time(text: string): number {
  const ms = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  if (Number.isNaN(ms) || (/^\d{4}-/.test(text) && !/[zZ]|[+-]\d\d:?\d\d$/.test(text))) {
    throw new InvalidArgumentError(
      "expected Unix milliseconds, or a time with its zone such as 2026-01-02T03:04:05Z",
    );
  }
  return ms;
}
