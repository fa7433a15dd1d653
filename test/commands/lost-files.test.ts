/** A file that is taken away from a running bridge or cloud: it says so, once, and ends to be started again. */

import { copyFileSync, existsSync, renameSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test } from "vitest";
import { serve } from "../support/brewctl.ts";
import { shop } from "../support/shop.ts";
import { tempFolder } from "../support/temp.ts";

const unavailable = 78;
const quickly = ["--addr", "127.0.0.1:1", "--grace", "2s"];

const times = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].length;

test.each([
  ["removed", (buffer: string) => rmSync(buffer), /buffer\.db was removed while/g],
  [
    "replaced",
    (buffer: string) => {
      renameSync(buffer, `${buffer}.old`);
      copyFileSync(`${buffer}.old`, buffer);
    },
    /buffer\.db was replaced by another process while/g,
  ],
  [
    "removed with its folder",
    (buffer: string) => rmSync(dirname(buffer), { recursive: true }),
    /(store-01|buffer\.db) was removed while/g,
  ],
])(
  "a bridge whose buffer was %s refuses the till, ends with 78 and can be started again",
  async (_, lose, says) => {
    using box = shop();
    await using bridge = await box.run(quickly);
    expect(await box.record(bridge.bridge, ["a"])).toMatchObject({ code: 0 });
    lose(box.buffer);
    const till = await box.record(bridge.bridge, ["b"]);
    expect(till.stderr).not.toMatch(/ENOENT|INTERNAL/);
    expect(till.code).not.toBe(0);
    const { code, stderr } = await bridge.ended;
    expect(code).toBe(unavailable);
    expect(times(stderr, /^brewctl: UNAVAILABLE: /gm)).toBe(1);
    expect(stderr).toMatch(says);
    expect(stderr).not.toMatch(/ENOENT|fault inside/);

    await using again = await box.run(quickly);
    expect(await box.record(again.bridge, ["b"])).toMatchObject({ code: 0 });
    expect(existsSync(box.buffer)).toBe(true);
    expect(await again.stop()).toMatchObject({ code: 0 });
  },
);

test("a cloud whose ledger was removed says so, ends with 78 and can be started again", async () => {
  using folder = tempFolder();
  using box = shop();
  await using cloud = await serve(["--grace", "100ms", "--data-dir", folder.file("cloud")]);
  await box.sync("record --type Sale -q");
  expect(await box.sync(`flush --addr ${cloud.addr}`)).toMatchObject({ code: 0 });
  rmSync(folder.file("cloud"), { recursive: true });
  await box.sync("record --type Sale -q");
  const store = await box.sync(`flush --addr ${cloud.addr} --deadline 2s`);
  expect(store.stderr).not.toContain("INTERNAL");
  const { code, stderr } = await cloud.ended;
  expect(code).toBe(unavailable);
  expect(times(stderr, /ledger\.db was removed while it was open here/g)).toBe(1);

  await using again = await serve(["--grace", "100ms", "--data-dir", folder.file("cloud")]);
  expect(await box.sync(`flush --addr ${again.addr}`)).toMatchObject({ code: 0 });
});
