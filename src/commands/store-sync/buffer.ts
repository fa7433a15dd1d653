/** Which store's buffer a command is about, and where it is. */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { applierPath, type Salvaged } from "../../bridge/buffer-file.ts";
import { tellHandedOver } from "../../bridge/hand-over-mark.ts";
import { removeLinkNote } from "../../bridge/link-note.ts";
import { Outbox, reserveBytes } from "../../bridge/outbox.ts";
import { StatusError, UsageError } from "../../errors.ts";
import { plain } from "../../plain.ts";
import { type Lock, takeLock } from "../../sqlite.ts";
import type { CommandContext } from "../client-call.ts";
import { databasePath, nonEmpty, outputOption, type outputs, withTerminalFlags } from "../flags.ts";
import { stateFolder } from "../state-folder.ts";
import type { Terminal, TerminalFlags } from "../terminal.ts";

const mebibyte = 1024 * 1024;

/** A disk with less room left wants somebody to look at it, in bytes. */
const lowBytes = 256 * mebibyte;

export interface BufferFlags {
  readonly store?: string;
  readonly buffer?: string;
}

/** What a command that needs no network can be told. */
export interface LocalFlags extends TerminalFlags, BufferFlags {
  readonly output: (typeof outputs)[number];
}

export function withBufferFlags(command: Command): Command {
  return command
    .addOption(
      new Option("--store <id>", "the store (default: the only one there is)")
        .env("BREWCTL_STORE")
        .argParser(nonEmpty),
    )
    .addOption(
      new Option("--buffer <file>", "its buffer (default: by store, in your state folder)")
        .env("BREWCTL_BUFFER")
        .argParser(databasePath),
    );
}

export function withLocalFlags(command: Command): Command {
  return withBufferFlags(withTerminalFlags(command).addOption(outputOption()));
}

/**
 * Opens the buffer, and says so if it had to be salvaged. Without `makes` it must be there already.
 * Throws `UsageError` if it is not clear which one is meant, and what `Outbox` throws.
 */
export function openBuffer(
  flags: BufferFlags,
  { terminal, clock }: Pick<CommandContext, "terminal" | "clock">,
  {
    makes = false,
    saysSalvaged = true,
  }: { readonly makes?: boolean; readonly saysSalvaged?: boolean } = {},
): Outbox {
  const { path, storeId } = placeOf(flags);
  if (!makes && !existsSync(path)) {
    throw noBuffer({ ...flags, ...(storeId === undefined ? {} : { store: storeId }) });
  }
  const outbox = new Outbox({ path, storeId, now: () => clock.now() });
  if (saysSalvaged) {
    complainOfSalvage(outbox, terminal);
  }
  return outbox;
}

/** Says, once, that this opening has set a damaged file aside. Later it is one of the alarms. */
export function complainOfSalvage(outbox: Outbox, terminal: Terminal): void {
  const salvaged = outbox.salvaged();
  if (outbox.hasJustSalvaged && salvaged !== undefined) {
    terminal.complain(tellSalvaged(salvaged));
  }
}

export function noBuffer({ store = "", buffer }: BufferFlags): UsageError {
  return new UsageError(
    buffer === undefined
      ? `store ${plain(store)} has no buffer here`
      : `--buffer ${buffer}: no such file`,
    { hint: "the first event makes it: brewctl store-sync record --store ID --type Sale" },
  );
}

/** Where the buffer is, or would be. Throws `UsageError` if it is not clear which one is meant. */
export function placeOf(flags: BufferFlags): {
  readonly path: string;
  readonly storeId: string | undefined;
} {
  const folder = join(stateFolder(process.env), "stores");
  const storeId = flags.store ?? (flags.buffer === undefined ? onlyStore(folder) : undefined);
  return {
    path: flags.buffer ?? join(folder, folderName(storeId ?? ""), "buffer.db"),
    storeId,
  };
}

/** Throws, with the buffer closed, if another process drains it. */
export function becomeDrainer(outbox: Outbox): Lock {
  try {
    const lock = outbox.drain();
    removeLinkNote(outbox.path);
    return lock;
  } catch (error) {
    outbox.close();
    throw error;
  }
}

/**
 * For a process that decides what becomes of commands. Throws, with the buffer closed, if another one
 * does: whoever received a command first would take it from the other.
 */
export function becomeApplier(outbox: Outbox): Lock {
  const lock = takeLock(applierPath(outbox.path));
  if (lock === undefined) {
    outbox.close();
    throw new StatusError(
      "FAILED_PRECONDITION",
      `another process applies the commands of store ${outbox.storeId}: store-sync watch, or run --exec`,
      { hint: "stop that one first; brewctl store-sync commands shows what has come" },
    );
  }
  return lock;
}

/** Throws, with the buffer closed, if another box has taken over: its commands are not for this one. */
export function refuseHandedOver(outbox: Outbox): void {
  try {
    outbox.insistOnOurs();
  } catch (error) {
    outbox.close();
    throw error;
  }
}

/** Steps of pruning by who drains and ends: the daemon and `prune` go through all of the buffer. */
const maxTidySteps = 100;

/** Removes what is over of the oldest events. */
export function tidy(outbox: Outbox): void {
  let after = 0;
  for (let i = 0; i < maxTidySteps; i++) {
    const step = outbox.prune({ after });
    if (step === undefined) {
      return;
    }
    after = step.next;
  }
}

function tellSalvaged({ events, setAside }: Salvaged): string {
  return `the buffer was damaged: ${events} events could be read and go on; the file is kept as ${setAside}`;
}

/** What a person should look at; nothing, if all is well. */
export function alarmsOf(outbox: Outbox): string[] {
  const salvaged = outbox.salvaged();
  const gone = outbox.handedOver();
  const free = outbox.freeBytes();
  const left = `${Math.floor(free / mebibyte)} MiB are left on the disk of ${outbox.path}`;
  return [
    outbox.alarm(),
    // Until somebody has taken it away: then he has seen to it.
    salvaged === undefined || !existsSync(salvaged.setAside) ? "" : tellSalvaged(salvaged),
    gone === undefined ? "" : `handed over: ${tellHandedOver(gone)}`,
    free < reserveBytes ? `nothing can be recorded: ${left}` : free < lowBytes ? left : "",
  ].filter(Boolean);
}

/** What is said of the cloud's ledger when it has forgotten something. */
export function complainOfLedger(terminal: Terminal, why: string): void {
  terminal.complain(`brewctl: ${plain(why)}`);
  terminal.complain("  send it again what is still kept here: brewctl store-sync replay");
}

function onlyStore(folder: string): string {
  const stores = existsSync(folder)
    ? readdirSync(folder).filter((name) => existsSync(join(folder, name, "buffer.db")))
    : [];
  const [only, ...others] = stores.map(decodeURIComponent);
  if (only === undefined) {
    throw new UsageError("there is no store yet; name one with --store", {
      hint: "such as: brewctl store-sync record --store store-01 --type Sale",
    });
  }
  if (others.length > 0) {
    throw new UsageError(`which store? There are: ${[only, ...others].map(plain).join(", ")}`, {
      hint: "say so with --store or BREWCTL_STORE",
    });
  }
  return only;
}

/** Of a store's own folder: its id, with what a path cannot have spelled out. */
function folderName(storeId: string): string {
  return encodeURIComponent(storeId).replace(/^\.+$/, (dots) => "%2E".repeat(dots.length));
}
