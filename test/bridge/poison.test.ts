/** A buffer that holds numbers which no JavaScript number can hold: it goes on, and says so. */

import { expect, test } from "vitest";
import { Bell } from "../../src/bell.ts";
import { keepApplying } from "../../src/bridge/applying.ts";
import { type CommandOutcome, Inbox, type ReceivedCommand } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { verify } from "../../src/bridge/verify.ts";
import { eventOf } from "../support/oracle.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

/** Four commands that wait to be applied: the second and the third have impossible numbers. */
function poisoned(folder: TempFolder) {
  const clock = testClock();
  const path = folder.file("buffer.db");
  const outbox = new Outbox({ path, storeId: "store-01", now: () => clock.now() });
  const insert = (commandId: string, sequence: bigint, issuedAt: bigint) =>
    outbox.database
      .prepare(
        `INSERT INTO commands
           (command_id, type, payload, sequence, issued_at, received_at, reason, state, ledger_id)
         VALUES (?, 'PriceUpdate', '{}', ?, ?, 1, '', 0, 'ledger-1')`,
      )
      .run(commandId, sequence, issuedAt);
  insert("good-1", 1n, 1n);
  insert("bad-1", 2n, 2n ** 63n - 1n);
  insert("bad-2", -(2n ** 63n), 2n ** 53n);
  insert("good-2", 4n, 1n);
  outbox.database
    .prepare("INSERT INTO cursors (ledger_id, sequence, command_id, used_at) VALUES (?, ?, ?, ?)")
    .run("ledger-1", 2n ** 62n, "bad-2", 2n ** 62n);
  return { clock, path, outbox, inbox: new Inbox(outbox.database, { now: () => clock.now() }) };
}

test("its commands can be read, and each says what is wrong with it", () => {
  using folder = tempFolder();
  const { inbox, outbox } = poisoned(folder);
  const commands = inbox.commands({ limit: 10 });
  expect(commands.map(({ commandId, fault }) => [commandId, fault !== undefined])).toEqual([
    ["good-1", false],
    ["bad-1", true],
    ["bad-2", true],
    ["good-2", false],
  ]);
  for (const { issuedAt, sequence } of commands) {
    expect(() => new Date(issuedAt).toISOString()).not.toThrow();
    expect(sequence).toBeGreaterThanOrEqual(0);
  }
  expect(inbox.counts()).toEqual({ received: 4, applied: 0, parked: 0 });
  // The cursor leads nowhere, so the cloud sends its queue from the beginning.
  expect(inbox.lastCursor()).toEqual({ ledgerId: "ledger-1", sequence: 0, commandId: "" });
  expect(inbox.progress()).toEqual({
    ...{ ledgerId: "ledger-1", receivedSequence: 0, appliedSequence: 0 },
  });
  outbox.close();
});

test("its commands are applied but for the impossible ones, which are parked", async () => {
  using folder = tempFolder();
  const { inbox, outbox, clock } = poisoned(folder);
  const kill = new AbortController();
  const applied: string[] = [];
  const outcomes: [ReceivedCommand, CommandOutcome][] = [];
  const done = keepApplying({
    ...{ inbox, clock, random: () => 1, maxAttempts: 5, signal: kill.signal, news: new Bell() },
    async apply({ commandId }) {
      applied.push(commandId);
    },
    onOutcome: (command, outcome) => outcomes.push([command, outcome]),
  });
  done.catch(() => {});
  await clock.sleeping();
  kill.abort(new Error("enough"));
  await expect(done).rejects.toThrow("enough");
  expect(applied).toEqual(["good-1", "good-2"]);
  expect(outcomes.map(([, { kind }]) => kind)).toEqual(["applied", "parked", "parked", "applied"]);
  expect(inbox.lastParked(2).map(({ reason }) => reason)).toEqual([
    expect.stringMatching(/^sequence is -9007199254740991; expected 0 to/),
    expect.stringMatching(/^issued_at is 9007199254740991; expected 0 to/),
  ]);
  outbox.close();
});

test("verify names each of them", async () => {
  using folder = tempFolder();
  const { path, outbox } = poisoned(folder);
  const { findings } = await verify(path, { pause: async () => {} });
  expect(findings).toEqual([
    expect.stringMatching(/^command 2: issued_at is/),
    expect.stringMatching(/^command 3: sequence is/),
  ]);
  outbox.close();
});

test("an event with an impossible time costs no other event its turn", () => {
  using folder = tempFolder();
  const { outbox } = poisoned(folder);
  outbox.append(["a", "b", "c"].map(eventOf));
  outbox.database
    .prepare(
      "UPDATE events SET timestamp = ?, settled_at = ?, checksum = NULL WHERE event_id = 'b'",
    )
    .run(2n ** 62n, 2n ** 62n);
  expect(outbox.pending(0, 10).map(({ eventId }) => eventId)).toEqual(["a", "b", "c"]);
  expect(outbox.events({ limit: 10 }).map(({ timestamp }) => timestamp)).toContain(
    Number.MAX_SAFE_INTEGER,
  );
  expect(outbox.event("b")?.eventId).toBe("b");
  expect(outbox.counts().pending).toBe(3);
  outbox.close();
});
