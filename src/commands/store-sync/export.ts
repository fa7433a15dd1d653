/**
 * `brewctl store-sync export`: all that a buffer keeps, as lines of JSON, for whoever wants to look
 * at it or for another box: see `import`.
 *
 * room: bridge/hand-over.ts
 * lines: export-lines.ts
 */

import { existsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { Command, Option } from "commander";
import { headOf, type Kept, keptIn } from "../../bridge/hand-over.ts";
import { Inbox } from "../../bridge/inbox.ts";
import { type EventState, eventStates, type Outbox } from "../../bridge/outbox.ts";
import { diskError, errnoOf } from "../../disk-error.ts";
import { messageOf, StatusError, UsageError } from "../../errors.ts";
import { isTaken, openPending } from "../../private-file.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import { isSqliteFile } from "../../sqlite.ts";
import type { CommandContext } from "../client-call.ts";
import { withTerminalFlags } from "../flags.ts";
import type { TerminalFlags } from "../terminal.ts";
import { type BufferFlags, openBuffer, withBufferFlags } from "./buffer.ts";
import { exportLines } from "./export-lines.ts";

export interface ExportFlags extends TerminalFlags, BufferFlags {
  readonly state?: EventState;
  readonly force?: boolean;
}

export const command = withBufferFlags(
  withTerminalFlags(
    new Command("export")
      .description("all that the buffer keeps, as lines of JSON; no network needed")
      .argument("[file]", "where to (default: standard output, as with -)")
      .addOption(new Option("--state <state>", "only events in it").choices(eventStates))
      .option("--force", "write over the file if it is there already"),
  ),
);

export const examples = `\
  brewctl store-sync export store-01.ndjson
  brewctl store-sync export | gzip > store-01.ndjson.gz
  brewctl store-sync export --state parked | jq -r 'select(.eventId) | .reason'`;

export const notes = `\
The first line says what it is, then come events, commands, cursors and the sums of what was pruned,
and last a line with their numbers and the SHA-256 of all lines before it. It is the buffer as it
was at one moment, whoever records meanwhile; until it is written the buffer's log grows.
A file that is there already is left alone, unless --force is given.
What becomes of it: brewctl help store-sync import`;

/** Lines between two looks at what else happens. */
const linesInARow = 1000;

/** Written to the file at a time, in characters. */
const chunkSize = 256 * 1024;

export async function run(
  flags: ExportFlags,
  context: CommandContext,
  [path = "-"]: readonly string[],
): Promise<Exit> {
  const { terminal, clock, interrupted } = context;
  const signal = AbortSignal.any([interrupted, terminal.outputLost]);
  const outbox = openBuffer(flags, context);
  try {
    if (path !== "-") {
      checkPlace(path, flags);
    }
    using sink = path === "-" ? undefined : openFile(path, flags);
    using _ = outbox.database.snapshot();
    const inbox = new Inbox(outbox.database, { now: () => clock.now() });
    const counts = outbox.counts();
    const head = { ...headOf(outbox), counts, exportedAt: clock.now(), only: flags.state };
    const lines = exportLines(head, chosen(outbox, inbox, flags.state));
    let step = lines.next();
    for (let n = 1; !step.done; step = lines.next(), n++) {
      if (sink === undefined) {
        await terminal.print(step.value);
      } else {
        sink.write(`${step.value}\n`);
      }
      if (n % linesInARow === 0) {
        await clock.sleep(0, { signal });
      }
      signal.throwIfAborted();
    }
    sink?.finish();
    const { event, command } = step.value;
    terminal.say(
      `exported ${event} ${event === 1 ? "event" : "events"} and ${command} ${command === 1 ? "command" : "commands"}${path === "-" ? "" : ` to ${path}`}`,
    );
    return 0;
  } catch (error) {
    if (error instanceof Stop) {
      return error.exit;
    }
    throw error;
  } finally {
    outbox.close();
  }
}

function* chosen(outbox: Outbox, inbox: Inbox, state: EventState | undefined) {
  for (const thing of keptIn(outbox, inbox)) {
    if (state === undefined || thing.kind !== "event" || thing.event.state === state) {
      yield thing satisfies Kept;
    }
  }
}

function checkPlace(path: string, { force }: ExportFlags): void {
  const there = statSync(path, { throwIfNoEntry: false });
  if (path.endsWith("/") || (there !== undefined && !there.isFile())) {
    // A file of that name would take its place.
    throw new UsageError(`${path} is no file; expected the name of a file to be written`, {
      hint: "into a pipe or a device: brewctl store-sync export - > PATH",
    });
  }
  if (isSqliteFile(path)) {
    throw new UsageError(`${path} is a database; expected the name of a file to be written`, {
      hint: "an export is lines of JSON; give it a name such as store-01.ndjson",
    });
  }
  if (force !== true && isTaken(path)) {
    throw alreadyThere(path);
  }
  if (!existsSync(dirname(resolve(path)))) {
    throw new UsageError(`${path}: there is no such folder`, {
      hint: "expected a file to be written, in a folder that is there",
    });
  }
}

/** Returns the error for a file that is there and that --force does not allow to replace. */
function alreadyThere(path: string): UsageError {
  return new UsageError(`${path} is there already, and was left as it is`, {
    hint: "write over it with --force, or choose another name",
  });
}

/** It has its name only when all of it is on the disk; until then another one may have it. */
function openFile(path: string, { force = false }: ExportFlags) {
  const attempt = <T>(act: () => T): T => {
    try {
      return act();
    } catch (error) {
      if (errnoOf(error) === "EEXIST") {
        throw alreadyThere(path);
      }
      const told = diskError(error, path, path);
      throw told instanceof StatusError
        ? told
        : new StatusError("PERMISSION_DENIED", `${path} cannot be written: ${messageOf(error)}`);
    }
  };
  const file = attempt(() => openPending(path, { overwrites: force }));
  let text = "";
  const flush = () => {
    attempt(() => file.write(text));
    text = "";
  };
  return {
    write(line: string): void {
      text += line;
      if (text.length >= chunkSize) {
        flush();
      }
    },
    finish(): void {
      flush();
      attempt(() => file.put());
    },
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}
