/** The sentences of --explain on a terminal: broken at words, whatever its width. */

import { expect, test } from "vitest";
import { wrapSentence } from "../../../src/commands/observe/explain.ts";

const sentence =
  "  0.0 ms → HEADERS: POST /orders.v1.StreamingService/Chat opens a stream of its own on the HTTP/2 connection.";

test("a sentence that fits, or is read by no terminal, stays one line", () => {
  expect(wrapSentence(sentence, 200)).toEqual([sentence]);
  expect(wrapSentence(sentence, Number.POSITIVE_INFINITY)).toEqual([sentence]);
});

test("a long one goes on below its own beginning", () => {
  expect(wrapSentence(sentence, 80)).toEqual([
    "  0.0 ms → HEADERS: POST /orders.v1.StreamingService/Chat opens a stream of its",
    "           own on the HTTP/2 connection.",
  ]);
});

test("no word is broken or lost at any width", () => {
  for (let columns = 1; columns <= 120; columns += 1) {
    const lines = wrapSentence(sentence, columns);
    expect(lines.join(" ").split(/\s+/)).toEqual(sentence.split(/\s+/));
    for (const line of lines.filter((text) => text.trim().includes(" "))) {
      if (columns >= 60) {
        expect(line.length).toBeLessThanOrEqual(columns);
      }
    }
  }
});
