/**
 * An export of a store's buffer: lines of JSON that another box can be made of. First what is true of
 * all of it, then the events, commands, cursors and sums, and last a line that says how many there
 * were and has the SHA-256 of all lines before it, so that nothing can be missing unnoticed.
 */

import { createHash } from "node:crypto";
import type { JsonValue } from "@bufbuild/protobuf";
import type { BufferHead, Kept, KeptCommand, KeptEvent } from "../../bridge/hand-over.ts";
import { commandStates, type KeptCursor } from "../../bridge/inbox.ts";
import { type EventState, eventStates, type OutboxCounts } from "../../bridge/outbox.ts";
import { parseSalvaged } from "../../bridge/salvage-mark.ts";
import { StatusError, UsageError } from "../../errors.ts";
import { type DigestCell, digestBytes } from "../../event-digest.ts";
import { plain } from "../../plain.ts";
import { faultOfEvent, faultOfName, maxRecordedPayloadBytes } from "../../store-event.ts";
import type { Line } from "../input.ts";
import { parseJson } from "../json-line.ts";
import { eventJson } from "./event-line.ts";

/** Of the lines. An export of a higher one is refused. */
const format = 1;

/** Of a line: the largest payload with each of its bytes spelled out takes six times its size. */
export const maxExportLineBytes = 8 * 1024 * 1024;

type Tally = Record<Kept["kind"], number>;

const none = (): Tally => ({ event: 0, command: 0, cursor: 0, pruned: 0 });

export interface ExportHead extends BufferHead {
  readonly counts: OutboxCounts;
  /** Unix milliseconds. */
  readonly exportedAt: number;
  /** Undefined: events in all states. */
  readonly only: EventState | undefined;
}

/** The lines, without their ends, and what was in them at the end. */
export function* exportLines(
  { storeId, epoch, ledgerId, alarm, salvaged, counts, exportedAt, only }: ExportHead,
  things: Iterable<Kept>,
): Generator<string, Tally> {
  const sum = createHash("sha256");
  const summed = (line: string) => {
    sum.update(`${line}\n`);
    return line;
  };
  const { pending, acked, parked } = counts;
  yield summed(
    line({
      export: {
        ...{ format, storeId, epoch, ledgerId, alarm, pending, acked, parked },
        // As a text, since only the program looks into it.
        ...(salvaged === undefined ? {} : { salvaged: JSON.stringify(salvaged) }),
        events: only ?? "all",
        exportedAt: new Date(exportedAt).toISOString(),
      },
    }),
  );
  const tally = none();
  for (const thing of things) {
    tally[thing.kind] += 1;
    yield summed(lineOf(thing, storeId));
  }
  yield line({ end: { ...tally, sha256: sum.digest("hex") } });
  return tally;
}

function line(value: object): string {
  return plain(JSON.stringify(value));
}

function lineOf(thing: Kept, storeId: string): string {
  switch (thing.kind) {
    case "event":
      return eventJson(thing.event, storeId);
    case "command": {
      const { commandId, type, payloadJson, sequence, issuedAt } = thing.command;
      const { ledgerId, receivedAt, state, attempts, notBefore, reason } = thing.command;
      return line({
        command: {
          ...{ commandId, type, payloadJson, sequence, issuedAt },
          ...{ ledgerId, receivedAt, state, attempts, notBefore, reason },
        },
      });
    }
    case "cursor": {
      const { ledgerId, sequence, commandId, usedAt } = thing.cursor;
      return line({ cursor: { ledgerId, sequence, commandId, usedAt } });
    }
    case "pruned": {
      const { type, day, count, digest } = thing.cell;
      const base64 = Buffer.from(digest).toString("base64");
      return line({ pruned: { type, day, count, digest: base64 } });
    }
    default:
      throw thing satisfies never;
  }
}

export interface ExportRead {
  readonly head: BufferHead;
  /** Where the line stands that was read last. */
  readonly where: () => string;
  /** Ends if the export is whole; throws `UsageError`, naming the line, if it is not. */
  readonly things: AsyncGenerator<Kept, void>;
}

/**
 * Reads the first line of an export. Throws `UsageError` for what is none, and FAILED_PRECONDITION for
 * one of a newer brewctl.
 */
export async function readExport(lines: AsyncIterator<Line>, name: string): Promise<ExportRead> {
  const sum = createHash("sha256");
  let where = name;
  const next = async () => {
    const { value, done } = await lines.next();
    if (!done) {
      where = value.where;
    }
    return done ? undefined : value;
  };
  const first = await next();
  if (first === undefined) {
    throw new UsageError(`${name} is empty`, { hint: expected });
  }
  const head = headOf(first);
  sum.update(`${first.text}\n`);

  async function* things(): AsyncGenerator<Kept, void> {
    const tally = none();
    for (let line = await next(); line !== undefined; line = await next()) {
      const json = parseJson(line, "a line of an export").values;
      if (json["end"] !== undefined) {
        checkEnd(fieldsOf(line, json["end"], endFields), tally, sum.digest("hex"), line.where);
        const behind = await next();
        if (behind !== undefined) {
          throw new UsageError(`${behind.where}: expected nothing behind the closing line`);
        }
        return;
      }
      sum.update(`${line.text}\n`);
      const thing = thingOf(line, json, head.storeId);
      tally[thing.kind] += 1;
      yield thing;
    }
    throw new UsageError(`${where}: the export is cut off here: its closing line is missing`, {
      hint: "nothing was changed; export again, or copy it again",
    });
  }
  return { head, where: () => where, things: things() };
}

const expected = "expected what brewctl store-sync export writes, or a buffer's own file";

function headOf(line: Line): BufferHead {
  let json: { [name: string]: JsonValue };
  try {
    json = parseJson(line, "an export").values;
  } catch {
    json = {};
  }
  const head = json["export"];
  if (typeof head !== "object" || head === null || Array.isArray(head)) {
    throw new UsageError(`${line.where}: this is not the beginning of an export`, {
      hint: expected,
    });
  }
  const version = head["format"];
  if (typeof version === "number" && version > format) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${line.where}: the export was written by a newer brewctl (format ${version}, this one knows ${format})`,
      { hint: "nothing was changed; use the newer brewctl" },
    );
  }
  const { storeId, epoch, ledgerId, alarm, events } = fieldsOf(line, head, headFields);
  const fault = faultOfName("storeId", storeId);
  if (fault !== undefined) {
    throw new UsageError(`${line.where}: ${fault}`);
  }
  if (events !== "all") {
    throw new UsageError(`${line.where}: the export has ${plain(events)} events only`, {
      hint: "expected all of them, or sales would be lost: export without --state",
    });
  }
  // Left out where there was no salvage.
  const { salvaged: mark } = fieldsOf(line, { salvaged: "", ...head }, { salvaged: "text" });
  const salvaged = parseSalvaged(mark, "");
  if (mark !== "" && salvaged === undefined) {
    throw new UsageError(`${line.where}: expected salvaged to be what an export has written`);
  }
  return { storeId, epoch, ledgerId, alarm, salvaged };
}

function checkEnd(
  end: Tally & { readonly sha256: string },
  tally: Tally,
  sha256: string,
  where: string,
): void {
  for (const kind of Object.keys(tally) as Kept["kind"][]) {
    if (end[kind] !== tally[kind]) {
      throw new UsageError(
        `${where}: the export is not whole: ${tally[kind]} of ${end[kind]} lines of the kind ${kind} are there`,
        { hint: "nothing was changed; export again, or copy it again" },
      );
    }
  }
  if (end.sha256 !== sha256) {
    throw new UsageError(`${where}: the lines before this one are not as they were written`, {
      hint: "nothing was changed; an export is imported as it is, or not at all",
    });
  }
}

function thingOf(line: Line, json: { [name: string]: JsonValue }, storeId: string): Kept {
  const wrong = (what: string) => new UsageError(`${line.where}: ${what}`);
  const { command, cursor, pruned } = json;
  if (command !== undefined) {
    const fields: KeptCommand = fieldsOf(line, command, commandFields);
    const fault = faultOfName("commandId", fields.commandId);
    if (fault !== undefined) {
      throw wrong(fault);
    }
    return { kind: "command", command: fields };
  }
  if (cursor !== undefined) {
    const fields: KeptCursor = fieldsOf(line, cursor, cursorFields);
    return { kind: "cursor", cursor: fields };
  }
  if (pruned !== undefined) {
    const { digest: base64, ...cell } = fieldsOf(line, pruned, prunedFields);
    const digest = Buffer.from(base64, "base64");
    if (digest.length !== digestBytes || !/^\d{4}-\d\d-\d\d$/.test(cell.day)) {
      throw wrong(`expected a day such as 2026-01-02 and a digest of ${digestBytes} bytes`);
    }
    const kept: DigestCell = { ...cell, digest };
    return { kind: "pruned", cell: kept };
  }
  const { storeId: owner, ...fields } = fieldsOf(line, json, eventFields);
  const event: KeptEvent = fields;
  if (owner !== storeId) {
    throw wrong(`this event is of store ${plain(owner)}, not of ${plain(storeId)}`);
  }
  const fault = faultOfEvent(event, maxRecordedPayloadBytes) ?? faultOfName("epoch", event.epoch);
  if (fault !== undefined) {
    throw wrong(fault);
  }
  return { kind: "event", event };
}

/**
 * What a field must be: a text, a whole number from 0 on, one that may be a text, or one of these. One with a
 * question mark may be missing, as it is in an export of an older version.
 */
type Shape = "text" | "number" | "number?" | "int64" | readonly string[];
type Value<S extends Shape> = S extends "text"
  ? string
  : S extends "number" | "int64"
    ? number
    : S extends "number?"
      ? number | undefined
      : S extends readonly (infer C)[]
        ? C
        : never;

const headFields = {
  storeId: "text",
  epoch: "text",
  ledgerId: "text",
  alarm: "text",
  events: "text",
  format: "number",
  pending: "number",
  acked: "number",
  parked: "number",
} as const;
const eventFields = {
  storeId: "text",
  eventId: "text",
  type: "text",
  payload: "text",
  epoch: "text",
  timestamp: "int64",
  seq: "int64",
  state: eventStates,
  attempts: "number",
  reason: "text",
  notBefore: "number",
  settledAt: "number",
  checksum: "number?",
} as const;
const commandFields = {
  commandId: "text",
  type: "text",
  payloadJson: "text",
  sequence: "number",
  issuedAt: "number",
  ledgerId: "text",
  receivedAt: "number",
  state: commandStates,
  attempts: "number",
  notBefore: "number",
  reason: "text",
} as const;
const cursorFields = {
  ledgerId: "text",
  sequence: "number",
  commandId: "text",
  usedAt: "number",
} as const;
const prunedFields = { type: "text", day: "text", count: "number", digest: "text" } as const;
const endFields = {
  event: "number",
  command: "number",
  cursor: "number",
  pruned: "number",
  sha256: "text",
} as const;

function fieldsOf<const S extends Readonly<Record<string, Shape>>>(
  { where }: Line,
  json: JsonValue,
  shapes: S,
): { [Name in keyof S]: Value<S[Name]> } {
  const found: Record<string, unknown> = {};
  const values = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
  for (const [name, shape] of Object.entries(shapes) as [string, Shape][]) {
    const value = values[name];
    const isText = typeof value === "string";
    if (shape === "number?" && value === undefined) {
      found[name] = undefined;
      continue;
    }
    const asNumber = shape === "int64" && isText && /^\d+$/.test(value) ? Number(value) : value;
    const fits =
      shape === "text"
        ? isText && value.isWellFormed()
        : shape === "number" || shape === "number?" || shape === "int64"
          ? Number.isSafeInteger(asNumber) && Number(asNumber) >= 0
          : isText && shape.includes(value);
    if (!fits) {
      throw new UsageError(`${where}: expected ${name} to be ${describe(shape)}`, {
        hint: "nothing was changed; an export is imported as it is, or not at all",
      });
    }
    found[name] = shape === "int64" ? asNumber : value;
  }
  return found as { [Name in keyof S]: Value<S[Name]> };
}

function describe(shape: Shape): string {
  switch (shape) {
    case "text":
      return "a text";
    case "number":
    case "number?":
      return "a whole number";
    case "int64":
      return "a whole number, or one as a text";
    default:
      return `one of ${shape.join(", ")}`;
  }
}
