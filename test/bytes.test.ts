/** Sizes for people. */

import { expect, test } from "vitest";
import { formatBytes } from "../src/bytes.ts";

test.each([
  [0, "0 bytes"],
  [1023, "1023 bytes"],
  [1024, "1 KiB"],
  [1024 * 1024 - 1, "1023 KiB"],
  [4 * 1024 * 1024, "4 MiB"],
  [1.59 * 1024 * 1024, "1.5 MiB"],
  [300 * 1024 * 1024 * 1024, "307200 MiB"],
])("%i bytes are %s, never more than there are", (bytes, told) => {
  expect(formatBytes(bytes)).toBe(told);
});
