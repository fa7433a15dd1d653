import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { beginning, printableLine } from "../src/plain.ts";

test("the beginning of a text is all of it if it is short, and never half a character", () => {
  expect(beginning("coffee", 6)).toBe("coffee");
  expect(beginning("coffee", 3)).toBe("cof");
  expect(beginning("☕☕", 1)).toBe("☕");
  expect(beginning("\u{1f600}", 1)).toBe("\ufffd");
});

test("the beginning of a text does not keep the rest of it in memory", () => {
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  // From bytes, as they come from the wire.
  const kept = Array.from({ length: 50 }, (_, i) =>
    beginning(Buffer.alloc(2_000_000, String(i)).toString(), 128),
  );
  collectGarbage();
  expect((process.memoryUsage().heapUsed - before) / 1e6).toBeLessThan(30);
  expect(kept.every((text) => text.length === 128)).toBe(true);
});

test("a composed line keeps its colours, tabs and line ends, and nothing else that a terminal obeys", () => {
  expect(printableLine("\x1b[1mbold\x1b[22m\tand\n☕")).toBe("\x1b[1mbold\x1b[22m\tand\n☕");
  expect(printableLine("\x1b[2J\r\x07\x9b31m\x1b]0;title\x07")).toBe(
    "\\u001b[2J\\u000d\\u0007\\u009b31m\\u001b]0;title\\u0007",
  );
});
