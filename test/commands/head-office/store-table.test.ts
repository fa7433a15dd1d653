/** The table of stores: what it says, and what goes where there is no room. */

import { create } from "@bufbuild/protobuf";
import { Chalk } from "chalk";
import { describe, expect, test } from "vitest";
import {
  describeStore,
  drawStores,
  type TableOptions,
  troublesOf,
} from "../../../src/commands/head-office/store-table.ts";
import { ListStoresResponseSchema } from "../../../src/gen/sync/v1/head_office_pb.ts";
import { noon } from "../../support/open-ledger.ts";

type Changes = Parameters<typeof create<typeof ListStoresResponseSchema>>[1];

const store = (storeId: string, changes: Changes = {}) => ({
  state: create(ListStoresResponseSchema, {
    ...{ storeId, isConnected: true, lastSeen: BigInt(noon), reportedAt: BigInt(noon) },
    asOf: BigInt(noon),
    ...changes,
  }),
  cameAt: 0,
});

const draw = (stores: ReturnType<typeof store>[], changes: Partial<TableOptions> = {}) =>
  drawStores(stores, {
    ...{ columns: Number.POSITIVE_INFINITY, rows: Number.POSITIVE_INFINITY, isUnicode: true },
    ...{ colours: new Chalk({ level: 0 }), now: 0 },
    ...changes,
  });

const dark = (minutes: number) => ({
  isConnected: false,
  lastSeen: BigInt(noon - minutes * 60_000),
});

const busy = store("store-02", {
  ...dark(12),
  ...{
    depth: 40n,
    oldestUnacked: BigInt(noon - 840_000),
    parked: 2n,
    gaps: 3n,
    currentGaps: 1n,
    conflicts: 3n,
    openConflicts: 3n,
  },
  ...{ clockOffsetMs: 172_800_000n, queuedSequence: 5n, appliedSequence: 3n, commandsParked: 1n },
  reportedAt: BigInt(noon - 780_000),
});

test("a row a store, the worst first, with why it is there, numbers to the right, alarms below", () => {
  const stores = [
    store("store-03", { reportedAt: 0n, lastSeen: 0n, isConnected: false }),
    busy,
    store("store-01", { alarms: ["salvaged"], queuedSequence: 1n }),
  ];
  expect(draw(stores)).toEqual([
    "store     link       why                                                                depth  oldest  parked  gaps  conflicts  clock       commands  reported",
    "store-01  up         alarm                                                                  0       -       0     0          0    0 s            0/1       0 s",
    "  ! salvaged",
    "store-02  dark 12 m  2 events parked, 3 conflicts, 1 gap, 1 command parked, clock +2 d     40     2 d       2     3          3   +2 d  3/5, 1 parked      13 m",
    "store-03  dark       -                                                                      0       -       0     0          0      -            0/0     never",
  ]);
});

test("ages go on by our own clock, from what the cloud said, and by the store's for its events", () => {
  const [, row] = draw(
    [
      store("a", {
        ...dark(1),
        depth: 1n,
        oldestUnacked: BigInt(noon - 5000),
        clockOffsetMs: -3000n,
      }),
    ],
    { now: 61_000 },
  );
  // Dark for a minute and 61 s; recorded 2 s ago by the store's clock, and 61 s more.
  expect(row).toMatch(/^a {6}dark 2 m {6}1 {4}63 s .* -3 s .* 61 s$/);
});

test("while the cloud is away no store is said to be up", () => {
  const rows = draw([store("a"), store("b", dark(3))], { isOld: true });
  expect(rows[1]).toMatch(/^b {6}dark 3 m /);
  expect(rows[2]).toMatch(/^a {6}was up /);
});

describe("in a window", () => {
  const stores = [busy, store("store-01")];
  const heads = (columns: number, of = stores) => (draw(of, { columns })[0] ?? "").split(/ +/);

  test("columns with nothing to tell go first, then the less important ones", () => {
    const calm = [store("store-01", { queuedSequence: 1n }), store("store-02")];
    expect(heads(200, calm)).toHaveLength(10);
    expect(heads(60, calm)).toEqual("store link depth oldest clock commands reported".split(" "));
    expect(heads(100)).toEqual("store link why depth oldest clock commands".split(" "));
    expect(heads(80)).toEqual("store link why depth oldest commands".split(" "));
    expect(heads(45)).toEqual("store link why depth".split(" "));
    expect(heads(26)).toEqual("store link depth".split(" "));
    expect(heads(20)).toEqual("store link".split(" "));
  });

  test("no line is longer, however narrow it is, and whoever chose the names", () => {
    const odd = [
      ...stores,
      store("店舗".repeat(20), { alarms: ["アラーム".repeat(30)] }),
      store("e\u0301".repeat(40)),
      store("x".repeat(128)),
    ];
    for (let columns = 1; columns <= 120; columns += 1) {
      for (const line of draw(odd, { columns })) {
        // As a terminal counts: these letters take two columns, accents none.
        const width = Array.from(line).reduce(
          (sum, letter) => sum + (letter === "\u0301" ? 0 : letter > "\u2fff" ? 2 : 1),
          0,
        );
        expect(width).toBeLessThanOrEqual(columns);
      }
    }
  });

  test("a name that is too long is cut, and where there is room it is whole", () => {
    const long = [store("a-store-with-a-very-long-name-of-its-own")];
    expect(draw(long, { columns: 40 })[1]).toMatch(/^a-store-with-a-v\S*… {2}up/);
    expect(draw(long, { columns: 40, isUnicode: false })[1]).toMatch(
      /^a-store-with\S*\.\.\. {2}up/,
    );
    expect(draw(long)[1]).toMatch(/^a-store-with-a-very-long-name-of-its-own {2}up/);
  });

  test("where not all fit, the worst come first, and the rest is counted", () => {
    const many = [
      ...Array.from({ length: 190 }, (_, i) => store(`calm-${i}`)),
      store("deep", { depth: 9n }),
      store("parked", { parked: 1n }),
      store("alarm", { alarms: ["one", "two"] }),
      store("dark", dark(1)),
      store("dark-and-deep", { ...dark(1), depth: 1n }),
    ];
    const firsts = (rows: number) =>
      draw(many, { rows }).map((line) => line.replace(/^(\S+) {2,}.*/, "$1"));
    expect(firsts(10)).toEqual([
      ...["store", "alarm", "  ! one", "  ! two", "parked", "dark-and-deep", "dark", "deep"],
      ...["calm-0", "… and 189 more"],
    ]);
    expect(firsts(5)).toEqual(["store", "alarm", "  ! one", "  ! two", "… and 194 more"]);
    expect(firsts(2)).toEqual(["store", "… and 195 more"]);
    expect(firsts(0)).toEqual([]);
    expect(firsts(198)).toHaveLength(198);
    expect(firsts(198)[1]).toBe("alarm");
  });
});

test("what a stranger named himself moves no cursor", () => {
  const rude = store("a\u001b[2Jb", { alarms: ["\u001b[31mred\r\n"] });
  const all = [...draw([rude]), describeStore(rude), ...troublesOf(rude.state)].join("");
  for (const control of ["\u001b", "\r", "\n"]) {
    expect(all).not.toContain(control);
  }
  expect(all).toContain("a\\u001b[2Jb");
});

test("a line for a file has the same", () => {
  expect(describeStore(busy)).toBe(
    "2026-01-02T12:00:00.000Z store-02 dark 12 m depth=40 oldest=2d parked=2 gaps=3 conflicts=3 commands=3/5 commands_parked=1",
  );
});

test("troubles are what a person should look at", () => {
  expect(troublesOf(store("a", { depth: 9n, queuedSequence: 3n }).state)).toEqual([]);
  expect(troublesOf(busy.state)).toEqual([
    ...["dark 12 m", "2 events parked", "3 conflicts", "1 gap", "1 command parked"],
  ]);
  expect(troublesOf(store("a", { alarms: ["salvaged"] }).state)).toEqual(["alarm: salvaged"]);
});

test("what is settled at the store, or of an epoch that is over, is no trouble any more", () => {
  const settled = store("a", { conflicts: 3n, gaps: 2n });
  expect(troublesOf(settled.state)).toEqual([]);
  const open = { conflicts: 4n, openConflicts: 1n };
  expect(troublesOf(store("a", open).state)).toEqual(["1 conflict"]);
});
