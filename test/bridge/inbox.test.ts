/** Commands: each once, in order, with a cursor that lives beside them. */

import { expect, test } from "vitest";
import { type Command, type Cursor, Inbox } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { watch } from "../../src/bridge/watch.ts";
import { Stop } from "../../src/shutdown.ts";
import { inMemory } from "../../src/sqlite.ts";
import { fakeUplink, lost } from "../support/played-cloud.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

const command = (sequence: number, options: Partial<Command> = {}): Command => ({
  commandId: `cmd-${sequence}`,
  type: "PriceUpdate",
  payloadJson: "{}",
  ...{ sequence, issuedAt: 1 },
  ...options,
});

function open(path = inMemory) {
  const clock = testClock();
  const outbox = new Outbox({ path, storeId: "store-01", now: () => clock.now() });
  return { clock, outbox, inbox: new Inbox(outbox.database, { now: () => clock.now() }) };
}

test("a command is applied once, and the cursor is behind it, also after a crash", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  const { inbox, outbox } = open(path);
  expect(inbox.lastCursor()).toBeUndefined();
  expect(inbox.receive(command(1), "ledger-1")).toEqual({ kind: "applied" });
  expect(inbox.receive(command(1), "ledger-1")).toEqual({ kind: "known" });
  // Not closed: as after a crash.
  const again = open(path);
  expect(again.inbox.lastCursor()).toEqual({
    ...{ ledgerId: "ledger-1", sequence: 1, commandId: "cmd-1" },
  });
  expect(again.inbox.receive(command(1), "ledger-1")).toEqual({ kind: "known" });
  expect(again.inbox.counts()).toEqual({ received: 0, applied: 1, parked: 0 });
  outbox.close();
  again.outbox.close();
});

test.each<[string, Partial<Command>, string]>([
  ["an unknown type", { type: "OpenTheTill" }, 'unknown type "OpenTheTill"'],
  ["a payload that is no JSON", { payloadJson: "{" }, "its payload is not JSON"],
])("%s is parked, and the next one is applied", (_, broken, reason) => {
  const { inbox } = open();
  expect(inbox.receive(command(1, broken), "ledger-1")).toEqual({ kind: "parked", reason });
  expect(inbox.receive(command(2), "ledger-1")).toEqual({ kind: "applied" });
  expect(inbox.counts()).toEqual({ received: 0, applied: 1, parked: 1 });
  expect(inbox.lastCursor()?.sequence).toBe(2);
});

const tooLarge = "x".repeat(1024 * 1024 * 2 + 1);

test.each<[string, Partial<Command>, RegExp]>([
  ["no id", { commandId: "" }, /^command_id is empty/],
  ["an id that is too long", { commandId: "x".repeat(129) }, /^command_id has 129 bytes/],
  ["a type that is too long", { type: "é".repeat(1000) }, /^type has 2000 bytes/],
  ["no type", { type: "" }, /^type is empty/],
  ["a payload that is too large", { payloadJson: tooLarge }, /^payload_json has 2097153 bytes/],
  ["a time before 1970", { issuedAt: -1 }, /^issued_at is -1; expected 0 to/],
  ["a time that no clock shows", { issuedAt: 2 ** 53 }, /^issued_at is 9007199254740992/],
  ["a time at the end of int64", { issuedAt: 2 ** 63 }, /^issued_at is 9223372036854776000/],
])("a command with %s is parked within bounds, and those after it come", (_, broken, reason) => {
  for (const appliesLater of [false, true]) {
    const { inbox, outbox } = open();
    const received = inbox.receive(command(1, broken), "ledger-1", { appliesLater });
    expect(received).toEqual({ kind: "parked", reason: expect.stringMatching(reason) });
    inbox.receive(command(2), "ledger-1");
    expect(inbox.lastCursor()?.sequence).toBe(2);
    const [kept] = inbox.lastParked(1);
    expect(kept).toMatchObject({ reason: expect.stringMatching(reason), fault: undefined });
    expect(JSON.stringify(kept).length).toBeLessThan(1000);
    outbox.close();
  }
});

test.each([-1, 0, 2 ** 40 + 1, 2 ** 53, 2 ** 63])(
  "a command with sequence %s has no place in the queue, and nothing is kept of it",
  (sequence) => {
    const { inbox } = open();
    expect(() => inbox.receive(command(sequence), "ledger-1")).toThrow(
      `the cloud sent a command whose sequence is ${sequence}; expected 1 to 1099511627776`,
    );
    expect(inbox.counts()).toEqual({ received: 0, applied: 0, parked: 0 });
    expect(inbox.lastCursor()).toBeUndefined();
  },
);

test("a cloud that names no ledger need not number its commands, but has to name them", () => {
  const { inbox } = open();
  expect(inbox.receive(command(0, { issuedAt: 0 }), "")).toEqual({ kind: "applied" });
  expect(() => inbox.receive(command(0, { commandId: "" }), "")).toThrow("command_id is empty");
});

test("each ledger has a cursor of its own; the one used last is the one to go on with", () => {
  const { inbox } = open();
  inbox.receive(command(7), "ledger-1");
  inbox.receive(command(1, { commandId: "other" }), "ledger-2");
  expect(inbox.lastCursor()).toEqual({ ledgerId: "ledger-2", sequence: 1, commandId: "other" });
});

test("a watch goes on behind the last command after a lost connection, and tells each once", async () => {
  const { clock, inbox } = open();
  const cursors: (number | undefined)[] = [];
  const told: string[] = [];
  const kill = new AbortController();
  const uplink = fakeUplink({
    async *watch(cursor: Cursor | undefined) {
      cursors.push(cursor?.sequence);
      const from = cursor?.sequence ?? 0;
      // The last one comes again, as when its delivery was not known to the cloud.
      yield* [from, from + 1, from + 2].filter((sequence) => sequence > 0).map((n) => command(n));
      throw lost();
    },
  });
  const done = watch({
    ...{ inbox, uplink, clock, random: () => 0, signal: kill.signal },
    onState() {},
    async onCommand({ commandId }, { kind }) {
      if (kind === "applied") {
        told.push(commandId);
      }
      if (told.length === 6) {
        kill.abort(new Stop("enough"));
      }
    },
  });
  done.catch(() => {});
  for (let i = 0; i < 100 && !kill.signal.aborted; i += 1) {
    await clock.advance(100);
  }
  await expect(done).rejects.toThrow("enough");
  expect(cursors).toEqual([undefined, 2, 4]);
  expect(told).toEqual(["cmd-1", "cmd-2", "cmd-3", "cmd-4", "cmd-5", "cmd-6"]);
});
