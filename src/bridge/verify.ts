/**
 * Whether a buffer is as it should be: its pages, its numbers and each of its rows. Reads everything
 * and changes nothing, also beside a drainer and tills: page by page, so that nobody waits and SQLite's
 * log can be shortened. Only SQLite's own check, at the beginning, is one long look.
 */

import { messageOf } from "../errors.ts";
import { isCorrupt } from "../event-checksum.ts";
import { DamagedError, Database } from "../sqlite.ts";
import { faultOfEvent, maxRecordedPayloadBytes } from "../store-event.ts";
import { bufferKind } from "./buffer-file.ts";
import { type HandedOver, handedOver } from "./hand-over-mark.ts";
import { highWaterOf, lostTail } from "./high-water.ts";
import { type CommandState, commandStates, faultOfBounds } from "./inbox.ts";
import { type EventState, eventStates } from "./outbox.ts";
import { openLosses, salvagedIn, tellLoss, tellWhatIsLost } from "./salvage-mark.ts";

export interface Verdict {
  readonly storeId: string;
  readonly epoch: string;
  readonly events: Readonly<Record<EventState, number>>;
  readonly commands: Readonly<Record<CommandState, number>>;
  /** Events that are known by their sums alone. */
  readonly pruned: number;
  readonly handedOver: HandedOver | undefined;
  /** What is wrong, each in words that say where; empty if all is well. */
  readonly findings: readonly string[];
  /** There were more than are listed. */
  readonly isMore: boolean;
}

/** Listed; a file that is broken throughout has one for each row. */
const maxFindings = 100;

/** Rows read at a time. */
const pageSize = 500;

/** The numbers of a buffer at one moment. */
interface Numbers {
  readonly current: number;
  readonly epoch: string | undefined;
  readonly nextSeq: number;
  readonly gone: number;
  readonly lastPosition: number;
}

export interface VerifyOptions {
  /** Called after each page, to let others get their turn; what it throws ends the verification. */
  readonly pause: () => Promise<void>;
}

/**
 * Throws `StatusError` as `Database` does for a file that is no buffer of this version at all;
 * everything else that is wrong is a finding.
 */
export async function verify(path: string, { pause }: VerifyOptions): Promise<Verdict> {
  const highWater = highWaterOf(path);
  const database = new Database(path, bufferKind, { isReadOnly: true });
  const findings: string[] = [];
  let isMore = false;
  const find = (what: string) => {
    if (findings.length < maxFindings) {
      findings.push(what);
    } else {
      isMore = true;
    }
  };
  const head = {
    storeId: "",
    epoch: "",
    pruned: 0,
    handedOver: undefined as HandedOver | undefined,
  };
  let events: Verdict["events"] = { pending: 0, acked: 0, parked: 0 };
  let commands: Verdict["commands"] = { received: 0, applied: 0, parked: 0 };
  try {
    for (const fault of database.faults(maxFindings)) {
      find(`SQLite: ${fault}`);
    }
    const owners = database.prepare("SELECT store_id FROM outbox").all();
    head.storeId = String(owners[0]?.["store_id"] ?? "");
    if (owners.length !== 1) {
      find(`it has ${owners.length} rows that say whose it is; expected one`);
    }
    const { epoch } = numbersOf(database);
    head.epoch = epoch ?? "";
    if (epoch === undefined) {
      find("its current epoch is not among its epochs");
    }
    head.handedOver = handedOver(database);
    for (const loss of openLosses(salvagedIn(database))) {
      find(`${tellLoss(loss)}, and nobody has acknowledged it`);
    }
    const tail = lostTail(database, highWater);
    if (tail !== undefined) {
      find(tellWhatIsLost(tail, "are gone"));
    }
    events = await verifyEvents(database, find, pause);
    commands = await verifyCommands(database, find, pause);
    head.pruned = verifyPruned(database, find);
  } catch (error) {
    if (!(error instanceof DamagedError)) {
      throw error;
    }
    find(messageOf(error));
  } finally {
    database.close();
  }
  return { ...head, events, commands, findings, isMore };
}

function numbersOf(database: Database): Numbers {
  const row = database
    .prepare(
      `SELECT outbox.epoch AS current, next_seq, e.epoch AS epoch, e.gone AS gone,
         (SELECT coalesce(max(position), 0) FROM events) AS last
       FROM outbox LEFT JOIN epochs e ON number = outbox.epoch`,
    )
    .get();
  const epoch = row?.["epoch"];
  return {
    current: Number(row?.["current"] ?? 0),
    epoch: typeof epoch === "string" ? epoch : undefined,
    nextSeq: Number(row?.["next_seq"] ?? 0),
    gone: Number(row?.["gone"] ?? 0),
    lastPosition: Number(row?.["last"] ?? Number.MAX_SAFE_INTEGER),
  };
}

/** As #0: the text as bytes, since text that is no UTF-8 would be mended as it is read. */
const eventsPage = `SELECT position, CAST(event_id AS BLOB), CAST(type AS BLOB), payload, timestamp,
    epoch, seq, state, attempts, not_before, CAST(reason AS BLOB), settled_at,
    EXISTS (SELECT 1 FROM epochs WHERE number = events.epoch), checksum
  FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?`;

async function verifyEvents(
  database: Database,
  find: (what: string) => void,
  pause: VerifyOptions["pause"],
): Promise<Verdict["events"]> {
  const page = database.prepare(eventsPage);
  for (;;) {
    const before = numbersOf(database);
    const counts: Record<EventState, number> = { pending: 0, acked: 0, parked: 0 };
    // Kept back until the walk counts: one that was overtaken is done again.
    const found: string[] = [];
    let inEpoch = 0;
    let lastSeq = 0;
    for (let after = 0; ; ) {
      const rows = Array.from(page.iterate(after, before.lastPosition, pageSize));
      for (const row of rows) {
        const { position, what, epoch, seq, state } = readEvent(row);
        after = position;
        if (what !== undefined) {
          found.push(`event ${position}: ${what}`);
        }
        if (state !== undefined) {
          counts[state] += 1;
        }
        if (epoch === before.current) {
          inEpoch += 1;
          if (seq <= lastSeq || seq >= before.nextSeq) {
            found.push(
              `event ${position}: its seq is ${seq}; expected one above ${lastSeq} and below ${before.nextSeq}`,
            );
          }
          lastSeq = Math.max(seq, lastSeq);
        }
      }
      if (rows.length === 0) {
        break;
      }
      await pause();
    }
    const now = numbersOf(database);
    if (now.current !== before.current) {
      // All that is not acknowledged was numbered anew meanwhile.
      continue;
    }
    // What was removed during the walk may have been counted before it was, or not.
    const missing = before.nextSeq - 1 - before.gone - inEpoch;
    if (missing < 0 || missing > now.gone - before.gone) {
      found.push(
        `the numbers of the current epoch have a gap: ${before.nextSeq - 1} were given, ${inEpoch} events are there and ${before.gone} were removed`,
      );
    }
    found.forEach(find);
    return counts;
  }
}

interface EventRead {
  readonly position: number;
  readonly epoch: number;
  readonly seq: number;
  readonly state: EventState | undefined;
  /** What is wrong with it. */
  readonly what: string | undefined;
}

function readEvent(row: readonly unknown[]): EventRead {
  const [position, eventId, type, payload, timestamp, epoch, seq, state] = row;
  const [, , , , , , , , attempts, notBefore, reason, settledAt, knowsEpoch, checksum] = row;
  const name = eventStates[Number(state)];
  const read = { position: Number(position), epoch: Number(epoch), seq: Number(seq), state: name };
  const texts: string[] = [];
  for (const [field, bytes] of Object.entries({ event_id: eventId, type, payload, reason })) {
    const text = textOf(bytes);
    if (text === undefined) {
      return { ...read, what: `its ${field} is no valid UTF-8` };
    }
    texts.push(text);
  }
  const [id = "", kind = "", content = "", why = ""] = texts;
  const event = { eventId: id, type: kind, payload: content, timestamp: Number(timestamp) };
  const fault = faultOfEvent(event, maxRecordedPayloadBytes);
  const numbers = [attempts, notBefore, settledAt].map(Number);
  const what =
    fault ??
    (name === undefined ? `its state is ${state}; expected 0, 1 or 2` : undefined) ??
    (knowsEpoch === 1 ? undefined : `its epoch ${epoch} is not among the epochs`) ??
    (Number(seq) >= 1 ? undefined : `its seq is ${seq}; expected 1 or more`) ??
    (numbers.every((number) => number >= 0) ? undefined : "it has a number below 0") ??
    (name === "acked" && (why !== "" || Number(notBefore) > 0)
      ? "it is acknowledged, and is still to be sent again"
      : undefined) ??
    (name === "parked" && Number(notBefore) > 0
      ? "it is parked, and is still to be sent again"
      : undefined) ??
    (checksum !== null && isCorrupt({ ...event, checksum: Number(checksum) })
      ? `it is corrupt: event ${JSON.stringify(id)} does not have its checksum`
      : undefined);
  return { ...read, what };
}

async function verifyCommands(
  database: Database,
  find: (what: string) => void,
  pause: VerifyOptions["pause"],
): Promise<Verdict["commands"]> {
  const counts: Record<CommandState, number> = { received: 0, applied: 0, parked: 0 };
  const page = database.prepare(
    `SELECT number, CAST(command_id AS BLOB), CAST(type AS BLOB), CAST(payload AS BLOB),
       CAST(reason AS BLOB), state, sequence, issued_at, attempts, not_before
     FROM commands WHERE number > ? ORDER BY number LIMIT ?`,
  );
  for (let after = 0; ; ) {
    const rows = Array.from(page.iterate(after, pageSize));
    for (const [number, commandId, type, payload, reason, state, ...numbers] of rows) {
      const [sequence, issuedAt] = numbers;
      after = Number(number);
      const name = commandStates[Number(state)];
      if (name !== undefined) {
        counts[name] += 1;
      }
      const unreadable = Object.entries({ command_id: commandId, type, payload, reason }).find(
        ([, bytes]) => textOf(bytes) === undefined,
      );
      const what =
        (unreadable === undefined ? undefined : `its ${unreadable[0]} is no valid UTF-8`) ??
        faultOfBounds({
          commandId: textOf(commandId) ?? "",
          type: textOf(type) ?? "",
          payloadJson: textOf(payload) ?? "",
          sequence: Number(sequence),
          issuedAt: Number(issuedAt),
        }) ??
        (name === undefined ? `its state is ${state}; expected 0, 1 or 2` : undefined) ??
        (numbers.every((value) => Number(value) >= 0) ? undefined : "it has a number below 0");
      if (what !== undefined) {
        find(`command ${after}: ${what}`);
      }
    }
    if (rows.length === 0) {
      return counts;
    }
    await pause();
  }
}

function verifyPruned(database: Database, find: (what: string) => void): number {
  let pruned = 0;
  for (const row of database.prepare("SELECT * FROM pruned").all()) {
    const { type, day, count, digest } = row;
    if (
      !/^\d{4}-\d\d-\d\d$/.test(String(day)) ||
      !(Number(count) > 0) ||
      (digest as Uint8Array).length !== 32
    ) {
      find(`the sum of the events of ${String(day)} and type ${String(type)} makes no sense`);
    }
    pruned += Number(count);
  }
  return pruned;
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function textOf(bytes: unknown): string | undefined {
  try {
    return bytes instanceof Uint8Array ? utf8.decode(bytes) : undefined;
  } catch {
    return undefined;
  }
}
