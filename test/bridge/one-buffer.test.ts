/** A buffer is one file, whatever it is called: who drains it, drains it alone. */

import { linkSync, mkdirSync, symlinkSync } from "node:fs";
import { expect, test } from "vitest";
import { Outbox } from "../../src/bridge/outbox.ts";
import { tempFolder } from "../support/temp.ts";

const open = (path: string, storeId: string | undefined = undefined) =>
  new Outbox({ path, storeId, now: () => 1 });

test("a buffer has one drainer, also when it is named by a link or through a linked folder", () => {
  using folder = tempFolder();
  mkdirSync(folder.file("real"));
  symlinkSync(folder.file("real"), folder.file("linked"));
  const outbox = open(folder.file("real/buffer.db"), "store-01");
  symlinkSync(outbox.path, folder.file("link.db"));
  const lock = outbox.drain();
  for (const name of ["linked/buffer.db", "link.db"]) {
    const other = open(folder.file(name));
    expect(() => other.drain(), name).toThrow(`another process, ${process.pid}, drains the buffer`);
    other.close();
  }
  lock.release();
  outbox.close();
});

test("a buffer that is being drained cannot be opened by a hard link to it", () => {
  using folder = tempFolder();
  const outbox = open(folder.file("buffer.db"), "store-01");
  const lock = outbox.drain();
  linkSync(outbox.path, folder.file("other.db"));
  expect(() => open(folder.file("other.db"))).toThrow(/other\.db has 2 names \(hard links\)/);
  outbox.append([{ eventId: "a", type: "Sale", payload: "", timestamp: 1 }]);
  lock.release();
  outbox.close();
});
