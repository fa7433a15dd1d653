/**
 * Power cuts: a process records events under strace, and its writes are replayed up to a random moment,
 * with what was not synced lost, torn or reordered. Whatever the moment, the file opens and has every
 * event that was said to be recorded before it, whole. A disk that ignores syncs is the control: if it
 * loses nothing, the cuts are too tame to show anything.
 */

import { deepEqual, ok } from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Outbox } from "../../src/bridge/outbox.ts";
import { Ledger } from "../../src/engine/ledger.ts";
import { DamagedError } from "../../src/sqlite.ts";
import { startProgram } from "../support/brewctl.ts";
import { dice } from "../support/dice.ts";
import { eventOf } from "../support/oracle.ts";
import { memoryFolder, type TempFolder, tempFolder } from "../support/temp.ts";
import { cutAt, type DiskFile, putBack } from "./power-cut.ts";
import { type FileOperation, logWrites, readWrites } from "./write-log.ts";

/** A buffer or a ledger that is made and written, and a damaged buffer that is salvaged and written. */
export const cutKinds = ["buffer", "ledger", "salvage"] as const;
export type CutKind = (typeof cutKinds)[number];

export interface PowerCutsOptions {
  readonly kind: CutKind;
  readonly seed: number;
  /** How many cuts. */
  readonly runs: number;
  /** How many transactions the process makes. */
  readonly batches: number;
  /** See cutAt. */
  readonly ignoresSyncs?: boolean;
}

export interface PowerCutsResult {
  readonly cuts: number;
  /** The operations of the log. */
  readonly operations: number;
  /** Events that were said to be recorded, over all cuts. */
  readonly promised: number;
  /** Those of them that were not there. */
  readonly lost: number;
  /** Cuts after which the file did not open, or was damaged. */
  readonly broken: number;
  /** The first thing that went wrong, with its cut. */
  readonly example: string | undefined;
}

const now = () => Date.UTC(2027, 0, 2);

export async function powerCuts(options: PowerCutsOptions): Promise<PowerCutsResult> {
  const { kind, seed, runs, batches, ignoresSyncs = false } = options;
  using folder = tempFolder("power-");
  const { operations, before } = await written({ kind, seed, batches }, folder);
  const from = folder.file("disk");
  using disks = memoryFolder();
  const roll = dice(seed);
  let [promised, lost, broken] = [0, 0, 0];
  let example: string | undefined;
  for (let cut = 0; cut < runs; cut++) {
    // Half of the cuts fall on the first operations, with which the files are made.
    const early = Math.min(operations.length, 120);
    const at = roll.isHeads() ? roll.below(early) : roll.below(operations.length + 1);
    const to = disks.file(`disk-${cut}`);
    putBack(cutAt(operations, { at, dice: roll, ignoresSyncs, before }), { from, to });
    const said = promisedBy(operations.slice(0, at));
    promised += said.length;
    try {
      const there = kind === "ledger" ? eventsOfLedger(to) : eventsOfBuffer(to);
      const missing = said.filter((id) => !there.has(id));
      lost += missing.length;
      if (missing.length > 0) {
        example ??= `cut ${cut} at ${at}: ${missing.length} of ${said.length} events are gone, such as ${missing[0]}`;
      }
    } catch (error) {
      broken += 1;
      lost += said.length;
      example ??= `cut ${cut} at ${at}: ${error}`;
    }
    rmSync(to, { recursive: true });
  }
  return { cuts: runs, operations: operations.length, promised, lost, broken, example };
}

/** The ids of the events that must be there. */
function promisedBy(operations: readonly FileOperation[]): string[] {
  const said = new Set<string>();
  for (const operation of operations) {
    for (const line of operation.kind === "said" ? operation.text.trim().split("\n") : []) {
      if (line.startsWith("~")) {
        said.delete(line.slice(1));
      } else {
        said.add(line);
      }
    }
  }
  return [...said];
}

interface Written {
  readonly operations: readonly FileOperation[];
  /** The files that were there before. */
  readonly before: readonly DiskFile[];
}

/** What the process did to its files. */
async function written(
  { kind, seed, batches }: Pick<PowerCutsOptions, "kind" | "seed" | "batches">,
  folder: TempFolder,
): Promise<Written> {
  const log = folder.file("log");
  const disk = folder.file("disk");
  const what = kind === "ledger" ? "ledger" : "buffer";
  mkdirSync(disk);
  if (kind === "salvage") {
    await write([], [what, disk, "before", String(seed), String(batches)]);
    damage(`${disk}/buffer.db`);
  }
  const before = filesOf(disk);
  await write(logWrites(log), [what, disk, "after", String(seed + 1), String(batches)]);
  const operations = readWrites(log, { folder: disk, before: before.map(({ path }) => path) });
  // The replay of all of it is what the process has left behind: else the log says not what happened.
  const whole = cutAt([...operations, { kind: "sync", file: undefined }], {
    at: operations.length + 1,
    dice: { ...dice(1), pick: (list) => list.at(-1) as never },
    before,
  });
  for (const { path, content } of filesOf(disk)) {
    ok(content.equals(whole.get(path) ?? Buffer.alloc(0)), `the log and ${path} differ`);
  }
  return { operations, before };
}

async function write(under: readonly string[], args: readonly string[]): Promise<void> {
  const [program = "", ...more] = [
    ...under,
    ...[process.execPath, "--disable-warning=ExperimentalWarning", "test/soak/cut-writer.ts"],
    ...args,
  ];
  await using running = startProgram(program, more);
  const { code, stderr } = await running.ended;
  ok(code === 0, `the writer ended with ${code}: ${stderr}`);
}

/** Without the shared memory of SQLite's, which no power cut leaves behind. */
function filesOf(folder: string): DiskFile[] {
  return readdirSync(folder)
    .filter((name) => !name.endsWith("-shm"))
    .map((name) => ({ path: `${folder}/${name}`, content: readFileSync(`${folder}/${name}`) }));
}

/** Overwrites a page in the middle. */
function damage(path: string): void {
  const content = readFileSync(path);
  const page = Math.floor(content.length / 2 / 4096) * 4096;
  content.fill(0xa5, page, page + 4096);
  writeFileSync(path, content);
}

function eventsOfBuffer(folder: string): Set<string> {
  for (let attempt = 1; ; attempt++) {
    const outbox = new Outbox({ path: `${folder}/buffer.db`, storeId: "store-01", now });
    try {
      outbox.database.check();
      const events = outbox.events({ limit: 100_000 });
      for (const { eventId, type, payload, timestamp } of events) {
        deepEqual({ eventId, type, payload, timestamp }, eventOf(eventId));
      }
      return new Set(events.map(({ eventId }) => eventId));
    } catch (error) {
      // Damage that only a reader meets is salvaged when the file is opened the next time.
      if (!(error instanceof DamagedError) || attempt === 3) {
        throw error;
      }
    } finally {
      outbox.close();
    }
  }
}

function eventsOfLedger(folder: string): Set<string> {
  const ledger = new Ledger({ folder, now });
  try {
    ledger.database.check();
    return new Set(ledger.events({ after: 0, limit: 100_000 }).map(({ eventId }) => eventId));
  } finally {
    ledger.close();
  }
}
