/** Which store is meant, and what the folder of a store is called. */

import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { folderName, storeOfFolder } from "../../../src/commands/store-sync/buffer.ts";
import { brewctl } from "../../support/brewctl.ts";
import { shop } from "../../support/shop.ts";

/** As `shop`, without the environment variable that names the store. */
function namelessShop() {
  const box = shop("s1");
  const stores = box.folder.file("brewctl/stores");
  const sync = (line: string) =>
    brewctl(["store-sync", ...line.split(" ")], { env: { XDG_STATE_HOME: box.folder.path } });
  return {
    ...{ folder: box.folder, stores, sync },
    [Symbol.dispose]: () => box[Symbol.dispose](),
  };
}

test.each([
  ...["store-01", "Köln 1", "s1.bak", ".", "..", "a/b", "100%", "=", "店".repeat(28)],
  ...["店".repeat(42), "🏪".repeat(32), `${"é".repeat(63)}/`, "~".repeat(128), "%".repeat(128)],
])(
  "the store %s has a folder whose name every file system takes, and is found by it",
  (storeId) => {
    const name = folderName(storeId);
    expect(Buffer.byteLength(name)).toBeLessThanOrEqual(255);
    expect(name).toMatch(/^[^/]+$/);
    expect(name).not.toMatch(/^\.+$/);
    expect(storeOfFolder(name)).toBe(storeId);
  },
);

test("an id whose folder has had a name before keeps it", () => {
  expect(folderName("Köln 1")).toBe("K%C3%B6ln%201");
  expect(folderName("店".repeat(28))).toBe("%E5%BA%97".repeat(28));
});

test.each(["s1 (99%)", "s1 copy", "%41", "=a b", "=QQ", "lost+found"])(
  "%s is not the name of a store's folder",
  (name) => {
    expect(storeOfFolder(name)).toBeUndefined();
  },
);

test("a store whose id takes 128 bytes of any script is recorded for, and found without --store", async () => {
  using box = namelessShop();
  const storeId = `${"店".repeat(42)}ab`;
  expect((await box.sync(`record --store ${storeId} --type Sale`)).code).toBe(0);
  const { stdout, code } = await box.sync("status -o ndjson");
  expect(JSON.parse(stdout)).toMatchObject({ storeId, pending: 1 });
  expect(code).toBe(0);
  const tooLong = await box.sync(`record --store ${storeId}c --type Sale`);
  expect(tooLong.stderr).toBe("brewctl: --store has 129 bytes; at most 128 are allowed\n");
  expect(tooLong.code).toBe(2);
});

test("copies of a store's folder are named, passed over and left as they are", async () => {
  using box = namelessShop();
  await box.sync("record --store s1 --type Sale");
  for (const name of ["s1.bak", "s1 (99%)"]) {
    cpSync(`${box.stores}/s1`, `${box.stores}/${name}`, { recursive: true });
  }
  mkdirSync(`${box.stores}/lost+found`);
  writeFileSync(`${box.stores}/notes.txt`, "");
  const files = readdirSync(`${box.stores}/s1.bak`);
  const status = await box.sync("status -o ndjson");
  expect(JSON.parse(status.stdout)).toMatchObject({ storeId: "s1", pending: 1 });
  expect(status.stderr.trimEnd().split("\n").sort()).toEqual([
    `${box.stores}/s1 (99%) is not the folder of a store but a copy of one, and is passed over`,
    `${box.stores}/s1.bak is not the folder of a store but a copy of one, and is passed over`,
  ]);
  expect(status.code).toBe(0);
  expect(readdirSync(`${box.stores}/s1.bak`)).toEqual(files);
  // A second store is another matter.
  await box.sync("record --store s2 --type Sale");
  const unclear = await box.sync("status -q");
  expect(unclear.stderr).toBe(
    "brewctl: which store? There are: s1, s2\n  say so with --store or BREWCTL_STORE\n",
  );
});

test("where there are only copies, no store is made of one", async () => {
  using box = namelessShop();
  await box.sync("record --store s1 --type Sale");
  renameSync(`${box.stores}/s1`, `${box.stores}/s1 (99%)`);
  const { stderr, code } = await box.sync("status");
  expect(stderr).toMatch(/s1 \(99%\) is not the folder of a store .*\nbrewctl: there is no store/);
  expect(stderr).toContain("  a copy can be looked at with --buffer");
  expect(code).toBe(2);
});

test("where the folder of the stores is a file, that is said", async () => {
  using box = namelessShop();
  mkdirSync(box.folder.file("brewctl"));
  writeFileSync(box.stores, "");
  const { stderr, code } = await box.sync("status");
  expect(stderr).toMatch(/^brewctl: the folder of the stores cannot be read: ENOTDIR/);
  expect(code).toBe(2);
});

test.each([
  ["record --type Sale --store s1 --buffer", "expected the path of a file, and this is a folder"],
  ["export --store s1", "is no file; expected the name of a file to be written"],
])("store-sync %s refuses a folder, there or not, and makes nothing", async (line, complaint) => {
  using box = namelessShop();
  await box.sync("record --store s1 --type Sale");
  const folder = box.folder.file("folder");
  mkdirSync(folder);
  const there = await box.sync(`${line} ${folder}`);
  expect(there.stderr).toContain(complaint);
  expect(there.code).toBe(2);
  const missing = await box.sync(`${line} ${folder}-2/`);
  expect(missing.stderr).toContain("expected the");
  expect(missing.code).toBe(2);
  expect(existsSync(`${folder}-2`)).toBe(false);
});
