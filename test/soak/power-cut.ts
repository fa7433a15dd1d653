/**
 * What a disk may hold after the power went, as far as file systems with a journal promise:
 *
 * - What was synced is there.
 * - Names, and sizes that were set, change in order: any number of the last ones may be missing, but for
 *   those before a sync of anything, with which the journal was written.
 * - What was written and not synced may be there or not, whatever came later, and in parts of 512 bytes.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Dice } from "../support/dice.ts";
import type { FileOperation } from "./write-log.ts";

const sectorBytes = 512;

export interface DiskFile {
  readonly path: string;
  readonly content: Buffer;
}

export interface CutOptions {
  /** How many operations came before the cut. */
  readonly at: number;
  readonly dice: Dice;
  /** A disk that ignores syncs, which must lose something: else the test sees nothing. */
  readonly ignoresSyncs?: boolean;
  /** The files that were there at the start, in the order in which `readWrites` was given them. */
  readonly before?: readonly DiskFile[];
}

/** The files after the cut, by path. */
export function cutAt(
  operations: readonly FileOperation[],
  { at, dice, ignoresSyncs = false, before = [] }: CutOptions,
): Map<string, Buffer> {
  const synced = new Map<number, number>();
  let journalled = 0;
  if (!ignoresSyncs) {
    for (const [i, operation] of operations.slice(0, at).entries()) {
      if (operation.kind === "sync") {
        journalled = i;
        if (operation.file !== undefined) {
          synced.set(operation.file, i);
        }
      }
    }
  }
  const named = journalled + dice.below(at - journalled + 1);
  // Some disks lose all that they may, some nothing, and most something.
  const kept = dice.pick([0, 0.5, 0.9, 1]);
  const tears = dice.isHeads();

  const names = new Map<string, number>(before.map(({ path }, file) => [path, file]));
  const contents = new Map<number, Buffer>(
    before.map(({ content }, file) => [file, Buffer.from(content)]),
  );
  for (const [i, operation] of operations.slice(0, at).entries()) {
    switch (operation.kind) {
      case "create":
        if (i < named) {
          names.set(operation.path, operation.file);
        }
        break;
      case "unlink":
        if (i < named) {
          names.delete(operation.path);
        }
        break;
      case "rename": {
        const file = names.get(operation.path);
        if (i < named && file !== undefined) {
          names.delete(operation.path);
          names.set(operation.to, file);
        }
        break;
      }
      case "truncate":
        if (i < named) {
          contents.set(operation.file, resized(contents.get(operation.file), operation.size));
        }
        break;
      case "write": {
        const { file, offset, data } = operation;
        const isSynced = i < (synced.get(file) ?? -1);
        const step = tears ? sectorBytes : data.length;
        for (let from = 0; from < data.length; from += step) {
          if (isSynced || dice.roll() < kept) {
            const part = data.subarray(from, from + step);
            const end = offset + from + part.length;
            const content = contents.get(file) ?? Buffer.alloc(0);
            const grown = content.length < end ? resized(content, end) : content;
            part.copy(grown, offset + from);
            contents.set(file, grown);
          }
        }
        break;
      }
    }
  }
  return new Map(
    Array.from(names, ([path, file]) => [path, contents.get(file) ?? Buffer.alloc(0)]),
  );
}

/** Writes such files, with another folder in place of the one that they were in. */
export function putBack(
  files: ReadonlyMap<string, Buffer>,
  { from, to }: { readonly from: string; readonly to: string },
): void {
  mkdirSync(to, { recursive: true });
  for (const [path, content] of files) {
    const copy = to + path.slice(from.length);
    mkdirSync(dirname(copy), { recursive: true });
    writeFileSync(copy, content, { mode: 0o600 });
  }
}

function resized(content: Buffer = Buffer.alloc(0), size: number): Buffer {
  const copy = Buffer.alloc(size);
  content.copy(copy);
  return copy;
}
