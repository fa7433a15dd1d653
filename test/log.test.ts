/** Log lines. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { createLogger, type LogFormat, maxBacklogBytes } from "../src/log.ts";
import { plain } from "../src/plain.ts";

function logged(format: LogFormat, write: (log: ReturnType<typeof createLogger>) => void) {
  const lines: string[] = [];
  write(createLogger({ format, write: (line) => lines.push(line), now: () => 1234 }));
  return lines;
}

test("text is the message, then its fields", () => {
  const lines = logged("text", (log) => {
    log.info("chat ended");
    log.info("upload ended", { received: 20, total: 2n ** 63n, ok: true, missing: undefined });
    log.info("subscribe started", { customer_id: "", name: "two words", path: "/a/b.c:1" });
    log.warn("slow");
    log.error("handler failed", { stack: "Error: x\n    at y" });
  });
  expect(lines).toEqual([
    "chat ended",
    "upload ended received=20 total=9223372036854775808 ok=true",
    'subscribe started customer_id="" name="two words" path=/a/b.c:1',
    "WARN slow",
    'ERROR handler failed stack="Error: x\\n    at y"',
  ]);
});

test("json is one object a line, with time and level", () => {
  const lines = logged("json", (log) =>
    log.warn("upload ended", { received: 20, total: 2n ** 63n, missing: undefined }),
  );
  expect(lines).toEqual([
    '{"time":"1970-01-01T00:00:01.234Z","level":"warn","msg":"upload ended","received":20,"total":"9223372036854775808"}',
  ]);
});

/** Letters, and what must not reach a terminal as it is. */
const special = fc.constantFrom(...'a "=\n\u007f\u009b\u200b\u200f\u2028\u202e\u2066\ufeff');

test("no value breaks out of its line, or passes for another field", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.string({ unit: special })), (value) => {
      const [text = "", json = ""] = [
        ...logged("text", (log) => log.info("m", { a: value, b: 1 })),
        ...logged("json", (log) => log.info("m", { a: value, b: 1 })),
      ];
      for (const control of ["\n", "\r", "\u001b"]) {
        expect(text + json).not.toContain(control);
      }
      expect(plain(text)).toBe(text);
      expect(plain(json)).toBe(json);
      expect(JSON.parse(json)).toMatchObject({ a: value, b: 1 });
      const quoted = /^m a=(.*) b=1$/.exec(text)?.[1] ?? "";
      expect(quoted.startsWith('"') ? JSON.parse(quoted) : quoted).toBe(value);
      expect(quoted.startsWith('"') || !/[\s="]/.test(quoted)).toBe(true);
    }),
  );
});

test("what a stranger has made long is cut, and an error keeps more of its stack", () => {
  const [warning = "", failure = ""] = logged("text", (log) => {
    log.warn("m".repeat(5_000), { store: "s".repeat(5_000), count: 3 });
    log.error("failed", { stack: "x".repeat(5_000) });
  });
  expect(warning).toBe(`WARN ${"m".repeat(2_047)}… store="${"s".repeat(511)}…" count=3`);
  expect(failure).toBe(`ERROR failed stack="${"x".repeat(4_095)}…"`);
});

test("lines that a slow reader has no room for are dropped, and counted when it has read", () => {
  const lines: string[] = [];
  const reader = { bytes: maxBacklogBytes, report: () => {} };
  const log = createLogger({
    format: "text",
    write: (line) => lines.push(line),
    now: () => 0,
    backlog: {
      get bytes() {
        return reader.bytes;
      },
      onceEmpty(report) {
        reader.report = report;
      },
    },
  });
  log.info("one");
  reader.bytes += 1;
  log.info("two");
  log.error("three");
  // There is room again, but a line now would stand before those that it comes after.
  reader.bytes = 10;
  log.info("four");
  expect(lines).toEqual(["one"]);
  reader.bytes = 0;
  reader.report();
  log.info("five");
  expect(lines).toEqual(["one", "WARN the log's reader was too slow lines_dropped=3", "five"]);
});
