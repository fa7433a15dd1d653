import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { openPending } from "../src/private-file.ts";
import { tempFolder } from "./support/temp.ts";

test("a pending file that must not overwrite leaves a file that has appeared meanwhile as it is", () => {
  using folder = tempFolder();
  const path = folder.file("export.ndjson");
  {
    using file = openPending(path, { overwrites: false });
    file.write("late");
    writeFileSync(path, "early");
    expect(() => file.put()).toThrow(expect.objectContaining({ code: "EEXIST" }));
  }
  expect(readFileSync(path, "utf8")).toBe("early");
  expect(readdirSync(folder.path)).toEqual(["export.ndjson"]);
  const free = folder.file("other.ndjson");
  {
    using file = openPending(free, { overwrites: false });
    file.write("whole");
    file.put();
  }
  expect(readFileSync(free, "utf8")).toBe("whole");
  expect(readdirSync(folder.path).sort()).toEqual(["export.ndjson", "other.ndjson"]);
});
