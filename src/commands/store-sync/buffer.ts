/** Which store's buffer a command is about, and where it is. */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { applierPath, ownerOf } from "../../bridge/buffer-file.ts";
import { tellHandedOver } from "../../bridge/hand-over-mark.ts";
import { removeLinkNote } from "../../bridge/link-note.ts";
import { corruptHere, Outbox, type OutboxOptions } from "../../bridge/outbox.ts";
import { openLosses, type Salvaged, tellLoss } from "../../bridge/salvage-mark.ts";
import { messageOf, StatusError, UsageError } from "../../errors.ts";
import { plain } from "../../plain.ts";
import { type Lock, takeLock } from "../../sqlite.ts";
import { faultOfName } from "../../store-event.ts";
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
    onCorrupt = ({ eventId }) =>
      terminal.complain(`brewctl: event ${plain(eventId)} is ${corruptHere}. Parked.`),
  }: {
    readonly makes?: boolean;
    readonly saysSalvaged?: boolean;
    readonly onCorrupt?: OutboxOptions["onCorrupt"];
  } = {},
): Outbox {
  const { path, storeId } = placeOf(flags, terminal);
  if (!makes && !existsSync(path)) {
    throw noBuffer({ ...flags, ...(storeId === undefined ? {} : { store: storeId }) });
  }
  const outbox = new Outbox({ path, storeId, now: () => clock.now(), onCorrupt });
  if (saysSalvaged) {
    complainOfSalvage(outbox, terminal);
  }
  return outbox;
}

/** Says, once, that this opening has set a damaged file aside. Later it is one of the alarms. */
export function complainOfSalvage(outbox: Outbox, terminal: Terminal): void {
  const salvaged = outbox.salvaged();
  if (outbox.hasJustSalvaged && salvaged !== undefined) {
    for (const line of tellSalvage(salvaged)) {
      terminal.complain(line);
    }
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
export function placeOf(
  flags: BufferFlags,
  terminal: Pick<Terminal, "say">,
): { readonly path: string; readonly storeId: string | undefined } {
  const fault = flags.store === undefined ? undefined : faultOfName("--store", flags.store);
  if (fault !== undefined) {
    throw new UsageError(fault);
  }
  if (flags.buffer !== undefined) {
    return { path: flags.buffer, storeId: flags.store };
  }
  const folder = join(stateFolder(process.env), "stores");
  const storeId = flags.store ?? onlyStore(folder, terminal);
  return { path: join(folder, folderName(storeId), "buffer.db"), storeId };
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

/** Describes what the salvage did, and the losses that nobody has acknowledged. */
export function tellSalvage(salvaged: Salvaged): string[] {
  const { acknowledgedAt, events, setAside } = salvaged;
  const kept = setAside !== "" && existsSync(setAside) ? `; the file is kept as ${setAside}` : "";
  return [
    // A person who has taken the file away has seen to it.
    acknowledgedAt !== undefined || kept === ""
      ? ""
      : `the buffer was damaged: ${events} events could be read and go on${kept}`,
    ...openLosses(salvaged).map(
      (loss) => `${tellLoss(loss)}; acknowledge it at the store: brewctl store-sync acknowledge`,
    ),
  ].filter(Boolean);
}

/** What a person should look at; nothing, if all is well. */
export function alarmsOf(outbox: Outbox): string[] {
  const salvaged = outbox.salvaged();
  const gone = outbox.handedOver();
  const { free, isEnough } = outbox.room();
  const left = `${Math.floor(free / mebibyte)} MiB are left on the disk of ${outbox.path}`;
  const corrupt = outbox.corrupt();
  return [
    outbox.alarm(),
    ...(salvaged === undefined ? [] : tellSalvage(salvaged)),
    corrupt === 0
      ? ""
      : `${corrupt} parked ${corrupt === 1 ? "event is" : "events are"} corrupt on this disk and cannot be sent: see store-sync events --state parked`,
    gone === undefined ? "" : `handed over: ${tellHandedOver(gone)}`,
    !isEnough ? `nothing can be recorded: ${left}` : free < lowBytes ? left : "",
  ].filter(Boolean);
}

/** What is said of the cloud's ledger when it has forgotten something. */
export function complainOfLedger(terminal: Terminal, why: string): void {
  terminal.complain(`brewctl: ${plain(why)}`);
  terminal.complain("  send it again what is still kept here: brewctl store-sync replay");
}

/** The store that has a folder here, if there is one alone; copies of a folder are named and passed over. */
function onlyStore(folder: string, terminal: Pick<Terminal, "say">): string {
  const names = bufferFolders(folder);
  // One folder is the store's, whatever is wrong with it; then opening it says what.
  const isOwn = (name: string) => names.length === 1 || isOwnFolder(folder, name);
  const stores = names.filter(isOwn).flatMap((name) => storeOfFolder(name) ?? []);
  const copies = names.filter((name) => storeOfFolder(name) === undefined || !isOwn(name));
  for (const name of copies) {
    terminal.say(
      `${plain(join(folder, name))} is not the folder of a store but a copy of one, and is passed over`,
    );
  }
  const [only, ...others] = stores;
  if (only === undefined) {
    throw new UsageError("there is no store yet; name one with --store", {
      hint:
        copies.length > 0
          ? "a copy can be looked at with --buffer and the path of its buffer.db"
          : "such as: brewctl store-sync record --store store-01 --type Sale",
    });
  }
  if (others.length > 0) {
    throw new UsageError(`which store? There are: ${stores.map(plain).join(", ")}`, {
      hint: "say so with --store or BREWCTL_STORE",
    });
  }
  return only;
}

/** The names of the folders that have a buffer; none if there is no folder of stores yet. */
function bufferFolders(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => existsSync(join(folder, name, "buffer.db")));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return [];
    }
    throw new UsageError(`the folder of the stores cannot be read: ${messageOf(error)}`, {
      hint: "name the store's buffer itself with --buffer",
    });
  }
}

/** False if the buffer in the folder belongs to a store of another name: somebody has copied it. */
function isOwnFolder(folder: string, name: string): boolean {
  const storeId = storeOfFolder(name);
  const owner = ownerOf(join(folder, name, "buffer.db"));
  return owner === undefined || owner === storeId;
}

/** The longest name that file systems take, in bytes. */
const maxFileNameBytes = 255;

/** Begins the name of a folder that is spelled in base64url. No other name has it: it would be `%3D`. */
const base64Mark = "=";

/**
 * The name of a store's folder: its id, with what a path cannot have spelled out as in a URL. An id of
 * other scripts than Latin can become too long by that; it is then spelled in base64url, which makes at
 * most 172 bytes of 128.
 */
export function folderName(storeId: string): string {
  const name = encodeURIComponent(storeId).replace(/^\.+$/, (dots) => "%2E".repeat(dots.length));
  return name.length <= maxFileNameBytes
    ? name
    : `${base64Mark}${Buffer.from(storeId).toString("base64url")}`;
}

/** The store whose folder has this name; undefined if no store's folder has it. */
export function storeOfFolder(name: string): string | undefined {
  let storeId: string;
  try {
    storeId = name.startsWith(base64Mark)
      ? Buffer.from(name.slice(base64Mark.length), "base64url").toString()
      : decodeURIComponent(name);
  } catch {
    // A stray percent sign.
    return undefined;
  }
  return folderName(storeId) === name ? storeId : undefined;
}
