/**
 * `brewctl store-sync import`: another box takes a store over, from an export or from the old box's
 * own buffer. The new buffer is there as a whole, or not at all.
 *
 * room: bridge/hand-over.ts
 * lines: export-lines.ts
 */

import { existsSync } from "node:fs";
import { Command } from "commander";
import { lockPath } from "../../bridge/buffer-file.ts";
import {
  hasArrived,
  headOf,
  isSameFile,
  type Kept,
  NewBuffer,
  takeOver,
} from "../../bridge/hand-over.ts";
import { tellHandedOver } from "../../bridge/hand-over-mark.ts";
import { Inbox } from "../../bridge/inbox.ts";
import { Outbox } from "../../bridge/outbox.ts";
import { StatusError, UsageError } from "../../errors.ts";
import { plain } from "../../plain.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import { DamagedError, isSqliteFile } from "../../sqlite.ts";
import type { CommandContext } from "../client-call.ts";
import { checkInput, lines } from "../input.ts";
import { complainOfSalvage, type LocalFlags, placeOf, withLocalFlags } from "./buffer.ts";
import { maxExportLineBytes, readExport } from "./export-lines.ts";

export interface ImportFlags extends LocalFlags {
  readonly again?: boolean;
}

export const command = withLocalFlags(
  new Command("import")
    .description("take a store over from another box; no network needed")
    .argument("<file>", "an export (- is standard input), or the other box's buffer itself")
    .option(
      "--again",
      "also from a buffer that was handed over before, if what came of it is lost",
    ),
);

export const examples = `\
  brewctl store-sync import store-01.ndjson --store store-01
  ssh old-box brewctl store-sync export | brewctl store-sync import - --store store-01
  brewctl store-sync import /mnt/old/buffer.db --store store-01`;

export const notes = `\
Events keep their ids, states and times; those that are not acknowledged are numbered anew, in a new
epoch. Commands and cursors come too, so that no command is applied twice.
Stop the old box first. A buffer that is imported is marked: nobody can record or drain there any
more, and who tries is told where it went. An export leaves no mark. If the old box goes on selling
after it, nothing is lost or counted twice: an event is known by its id wherever it comes from. But
what it records after the export only it can bring to the cloud, so let it flush before it goes.`;

/** Things written in one transaction. */
const batchSize = 1000;

export async function run(
  flags: ImportFlags,
  context: CommandContext,
  [source = "-"]: readonly string[],
): Promise<Exit> {
  const { terminal } = context;
  if (flags.store === undefined) {
    throw new UsageError("for which store? Say so with --store", {
      hint: "such as: brewctl store-sync import store-01.ndjson --store store-01",
    });
  }
  const { path } = placeOf(flags, terminal);
  await checkSource(source, context);
  const isBuffer = source !== "-" && (isSqliteFile(source) || existsSync(lockPath(source)));
  if (source !== "-" && isSameFile(source, path)) {
    throw new UsageError(`${path} is the buffer of store ${plain(flags.store)} itself`, {
      hint: "expected another box's buffer, or an export",
    });
  }
  try {
    const epoch = isBuffer
      ? importBuffer(source, path, flags.store, { ...flags, ...context })
      : await importExport(source, path, flags.store, context);
    return await tell(path, epoch, flags, context);
  } catch (error) {
    if (error instanceof Stop) {
      terminal.complain("nothing was imported");
      return error.exit;
    }
    throw error;
  }
}

async function checkSource(source: string, { stdin }: CommandContext): Promise<void> {
  try {
    await checkInput(source, stdin);
  } catch (error) {
    if (error instanceof UsageError) {
      // There the file is a flag's value.
      const message = error.message.replace(/^--input /, "");
      throw new UsageError(message, { hint: "expected an export, - for stdin, or a buffer" });
    }
    throw error;
  }
}

async function importExport(
  source: string,
  path: string,
  storeId: string,
  { stdin, interrupted, clock }: CommandContext,
): Promise<string> {
  const name = source === "-" ? "stdin" : source;
  const options = { stdin, signal: interrupted, maxBytes: maxExportLineBytes };
  const { head, things, where } = await readExport(lines(source, options), name);
  insistOnStore(name, head.storeId, storeId);
  const target = new NewBuffer({ path, head, now: () => clock.now() });
  try {
    const batch: { readonly thing: Kept; readonly at: string }[] = [];
    let at = where();
    const keep = () => {
      // Taken out first: a batch that was rolled back is not tried a second time.
      const taken = batch.splice(0);
      if (taken.length === 0) {
        return;
      }
      try {
        target.add(
          (function* () {
            for (const next of taken) {
              at = next.at;
              yield next.thing;
            }
          })(),
        );
      } catch (error) {
        if (error instanceof StatusError && error.code === "ALREADY_EXISTS") {
          throw new UsageError(`${at}: ${error.message}`, {
            hint: "nothing was changed; an export is imported as it is, or not at all",
          });
        }
        throw error;
      }
    };
    try {
      for await (const thing of things) {
        batch.push({ thing, at: where() });
        if (batch.length === batchSize) {
          keep();
        }
      }
    } finally {
      // Also if the export turns out to be bad: what is wrong further up is told first.
      keep();
    }
    interrupted.throwIfAborted();
    target.finish();
    target.put();
    return target.epoch;
  } finally {
    target.close();
  }
}

function importBuffer(
  source: string,
  path: string,
  storeId: string,
  { clock, again = false }: CommandContext & ImportFlags,
): string {
  const now = () => clock.now();
  using old = openSource(source, now);
  insistOnStore(source, old.outbox.storeId, storeId);
  const before = old.outbox.handedOver();
  if (before !== undefined && !again && hasArrived(before)) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${source} was handed over already: ${tellHandedOver(before)}`,
      { hint: "nothing was changed; import that one, or, if it is lost, this one --again" },
    );
  }
  const lock = old.outbox.lock();
  try {
    const inbox = new Inbox(old.outbox.database, { now });
    const target = new NewBuffer({ path, head: headOf(old.outbox), now });
    try {
      takeOver({ outbox: old.outbox, inbox }, target, { now });
      return target.epoch;
    } finally {
      target.close();
    }
  } finally {
    lock.release();
  }
}

function openSource(source: string, now: () => number) {
  try {
    const outbox = new Outbox({ path: source, now, salvages: false });
    return { outbox, [Symbol.dispose]: () => outbox.close() };
  } catch (error) {
    if (error instanceof DamagedError) {
      throw new StatusError("DATA_LOSS", error.message, {
        hint: `nothing was changed; this salvages what can be read: brewctl store-sync status --buffer ${source}`,
        cause: error,
      });
    }
    throw error;
  }
}

function insistOnStore(source: string, owner: string, storeId: string): void {
  if (owner !== storeId) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${source} is of store ${plain(owner)}, not of ${plain(storeId)}`,
      { hint: "nothing was changed; each store has a buffer of its own" },
    );
  }
}

async function tell(
  path: string,
  epoch: string,
  { output, store = "" }: ImportFlags,
  { terminal, clock }: CommandContext,
): Promise<Exit> {
  const outbox = new Outbox({ path, storeId: store, now: () => clock.now() });
  try {
    complainOfSalvage(outbox, terminal);
    const { pending, acked, parked } = outbox.counts();
    const inbox = new Inbox(outbox.database, { now: () => clock.now() });
    const counts = inbox.counts();
    const commands = counts.received + counts.applied + counts.parked;
    await terminal.print(
      output === "ndjson"
        ? JSON.stringify({
            ...{ storeId: store, buffer: path, epoch, pending, acked, parked, commands },
          })
        : `imported ${pending} pending, ${acked} acked and ${parked} parked events, and ${commands} commands, into ${path}`,
    );
    return 0;
  } finally {
    outbox.close();
  }
}
