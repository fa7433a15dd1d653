/** A power cut while a buffer or a ledger is being made: every command that comes next can open it. */

import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test } from "vitest";
import { serve } from "../support/brewctl.ts";
import { interruptTransaction } from "../support/hot-journal.ts";
import { shop } from "../support/shop.ts";
import { tempFolder } from "../support/temp.ts";

test("a buffer whose making was interrupted is made by the next command", async () => {
  for (const line of ["record --type Sale -q", "status"]) {
    using box = shop();
    mkdirSync(dirname(box.buffer), { recursive: true });
    interruptTransaction(box.buffer);
    expect(await box.sync(line), line).toMatchObject({ code: 0, stderr: "" });
    expect(await box.sync("verify"), line).toMatchObject({ code: 0, stderr: "" });
  }
});

test("a bridge starts on a buffer whose making was interrupted, and records", async () => {
  using box = shop();
  mkdirSync(dirname(box.buffer), { recursive: true });
  interruptTransaction(box.buffer);
  await using bridge = await box.run(["--addr", "127.0.0.1:1"]);
  expect(await box.record(bridge.bridge, ["a"])).toMatchObject({ code: 0 });
  expect(await bridge.stop()).toMatchObject({ code: 0 });
});

test("a cloud starts on a ledger whose making was interrupted", async () => {
  using folder = tempFolder();
  interruptTransaction(folder.file("ledger.db"));
  await using cloud = await serve(["--data-dir", folder.path]);
  await cloud.output(/ledger opened/);
  cloud.child.kill("SIGTERM");
  expect(await cloud.ended).toMatchObject({ code: 0 });
});
