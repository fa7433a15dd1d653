/** What is a time, and what only looks like one. */

import { describe, expect, test } from "vitest";
import { parseTimestamp } from "../src/timestamp.ts";

const now = Date.UTC(2026, 0, 2);
const parse = (text: string) => parseTimestamp(text, now);

test.each([
  ["0", 0],
  ["1", 1],
  ["1767323045000", 1_767_323_045_000],
  ["253402300799999", 253_402_300_799_999],
  ["2026-01-02T03:04:05Z", 1_767_323_045_000],
  ["2026-01-02t03:04:05z", 1_767_323_045_000],
  ["2026-01-02T03:04:05.1Z", 1_767_323_045_100],
  ["2026-01-02T03:04:05.123999999Z", 1_767_323_045_123],
  ["2026-01-02T03:04:05+01:30", 1_767_317_645_000],
  ["2026-01-01T19:04:05-08:00", 1_767_323_045_000],
  ["2024-02-29T00:00:00Z", Date.UTC(2024, 1, 29)],
  ["1970-01-01T00:00:00-00:00", 0],
])("%s is a time", (text, ms) => {
  expect(parse(text)).toBe(ms);
});

test.each([
  ...["2027-02-29T12:00:00Z", "2026-04-31T08:00:00Z", "2026-13-01T00:00:00Z"],
  ...["2026-00-10T00:00:00Z", "2026-01-00T00:00:00Z", "2100-02-29T00:00:00Z"],
])("%s is a day that does not exist", (text) => {
  expect(() => parse(text)).toThrow(`there is no day ${text.slice(0, 10)}; expected`);
});

test.each([
  ...["2026-01-02T24:00:00Z", "2026-01-02T03:60:00Z", "2026-01-02T03:04:61Z"],
  ...["2026-01-02T03:04:60Z", "2026-01-02T03:04:05+24:00", "2026-01-02T03:04:05+01:60"],
])("%s is a time of day that does not exist", (text) => {
  expect(() => parse(text)).toThrow("there is no such time of day; expected");
});

test.each([
  ...["", " ", "till 7", "Sale-12", "03/04/2026", "2026/01/02 03:04:05", "2026-01-02"],
  ...["2026-01-02T03:04:05", "2026-01-02T03:04Z", "2026-01-02T03:04:05+0100", "1.5", "1e12"],
  ...[
    "99999999999999999999",
    "+1767323045000",
    "-5",
    "2026-01-02T03:04:05Zulu",
    "0x10",
    "Infinity",
  ],
])("%j is not a time", (text) => {
  expect(() => parse(text)).toThrow(/^expected Unix milliseconds, or a time with its zone/);
});

describe("a leap second", () => {
  test("is the first second of the next day, whatever the zone", () => {
    const nextDay = Date.UTC(2017, 0, 1);
    expect(parse("2016-12-31T23:59:60Z")).toBe(nextDay);
    expect(parse("2017-01-01T00:59:60.5+01:00")).toBe(nextDay + 500);
  });

  test("is not at any other time of the day", () => {
    expect(() => parse("2016-12-31T23:59:60+01:00")).toThrow("there is no such time of day");
  });
});

describe("seconds in place of milliseconds", () => {
  test("are recognized when they are near the present, and the right value is named", () => {
    expect(() => parse("1767323045")).toThrow(
      "1767323045 are seconds; expected milliseconds, which are 1767323045000",
    );
  });

  test.each([1, 12, 21])("are milliseconds %i days after a clock has begun at 1970", (days) => {
    const ms = days * 24 * 3_600_000;
    expect(parseTimestamp(String(ms), ms)).toBe(ms);
  });
});
