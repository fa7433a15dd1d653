/** Commands, applied one after the other by a program that may fail. */

import { expect, test } from "vitest";
import { Bell } from "../../src/bell.ts";
import { type ApplyingOptions, keepApplying } from "../../src/bridge/applying.ts";
import { type CommandOutcome, Inbox, type ReceivedCommand } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { inMemory } from "../../src/sqlite.ts";
import { failure } from "../support/serve-handlers.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

const second = 1_000;

function applying(
  apply: ApplyingOptions["apply"],
  {
    path = inMemory,
    clock = testClock(),
    news = new Bell(),
    ...options
  }: Partial<ApplyingOptions> & { path?: string; clock?: ReturnType<typeof testClock> } = {},
) {
  const now = () => clock.now();
  const outbox = new Outbox({ path, storeId: "store-01", now });
  const inbox = new Inbox(outbox.database, { now });
  const over = new AbortController();
  const outcomes: [string, CommandOutcome][] = [];
  const ended = failure(
    keepApplying({
      ...{ inbox, apply, maxAttempts: 3, clock, random: () => 0.5, signal: over.signal, news },
      onOutcome: ({ commandId }, outcome) => outcomes.push([commandId, outcome]),
      ...options,
    }),
  );
  return {
    ...{ clock, outbox, inbox, outcomes, ended },
    /** As the cloud sends them. */
    come(...commandIds: string[]) {
      for (const commandId of commandIds) {
        const sequence = (inbox.lastCursor()?.sequence ?? 0) + 1;
        const command = { commandId, type: "PriceUpdate", payloadJson: "{}", issuedAt: 1 };
        inbox.receive({ ...command, sequence }, "ledger-1", { appliesLater: true });
      }
      news.ring();
    },
    /** As a crash does. */
    async stop() {
      over.abort(new Error("over"));
      const error = await ended;
      outbox.close();
      return error;
    },
  };
}

const kinds = ({ outcomes }: ReturnType<typeof applying>) =>
  outcomes.map(([id, { kind }]) => `${id} ${kind}`);

test("commands are applied in their order, one at a time", async () => {
  const began: string[] = [];
  const mayEnd = new Map<string, () => void>();
  const it = applying(async ({ commandId }) => {
    began.push(commandId);
    await new Promise<void>((resolve) => mayEnd.set(commandId, resolve));
  });
  it.come("a", "b", "c");
  for (const [i, id] of ["a", "b", "c"].entries()) {
    await it.clock.advance(second);
    expect(began).toEqual(["a", "b", "c"].slice(0, i + 1));
    mayEnd.get(id)?.();
  }
  await it.clock.advance(second);
  expect(kinds(it)).toEqual(["a applied", "b applied", "c applied"]);
  expect(it.inbox.counts()).toEqual({ received: 0, applied: 3, parked: 0 });
  await it.stop();
});

test("a command that comes while nothing waits is applied at once", async () => {
  const it = applying(async () => {});
  await it.clock.advance(100);
  it.come("a");
  await it.clock.advance(0);
  expect(kinds(it)).toEqual(["a applied"]);
  await it.stop();
});

test("one that comes while another is applied is not overlooked", async () => {
  const mayEnd = Promise.withResolvers<void>();
  const it = applying(() => mayEnd.promise);
  it.come("a");
  await it.clock.advance(0);
  it.come("b");
  mayEnd.resolve();
  await it.clock.advance(0);
  expect(kinds(it)).toEqual(["a applied", "b applied"]);
  await it.stop();
});

test("one that fails is tried again after 1 s, 2 s, 4 s; those behind it wait", async () => {
  const attempts: [id: string, at: number, attempts: number][] = [];
  const it = applying(
    async ({ commandId, attempts: failed }) => {
      attempts.push([commandId, it.clock.monotonic(), failed]);
      if (commandId === "a" && attempts.length < 4) {
        throw new Error("the printer is out");
      }
    },
    // All of each wait.
    { random: () => 0.999_999, maxAttempts: 9 },
  );
  it.come("a", "b");
  await it.clock.advance(60 * second);
  expect(attempts).toEqual([
    ["a", 0, 0],
    ["a", second, 1],
    ["a", 3 * second, 2],
    ["a", 7 * second, 3],
    ["b", 7 * second, 0],
  ]);
  expect(it.outcomes[0]).toMatchObject(["a", { kind: "retry", reason: "the printer is out" }]);
  expect(it.inbox.counts()).toEqual({ received: 0, applied: 2, parked: 0 });
  await it.stop();
});

test("one that fails too often is parked with its reason, and the next one goes on", async () => {
  const it = applying(async ({ commandId }) => {
    if (commandId === "a") {
      throw new Error("no such product");
    }
  });
  it.come("a", "b");
  await it.clock.advance(10 * second);
  expect(kinds(it)).toEqual(["a retry", "a retry", "a parked", "b applied"]);
  const [parked] = it.inbox.lastParked(1);
  const reason = "failed 3 times: no such product";
  expect(parked).toMatchObject({ commandId: "a", state: "parked", attempts: 3, reason });
  expect(it.inbox.progress()).toMatchObject({ receivedSequence: 2, appliedSequence: 2 });
  await it.stop();
});

test("with one attempt it is parked at once", async () => {
  const fails = async () => {
    throw new Error("no");
  };
  const it = applying(fails, { maxAttempts: 1 });
  it.come("a");
  await it.clock.advance(0);
  expect(kinds(it)).toEqual(["a parked"]);
  await it.stop();
});

test("what a person puts back is noticed within a second, and has all its attempts again", async () => {
  let isBroken = true;
  const seen: number[] = [];
  const it = applying(
    async ({ attempts }) => {
      seen.push(attempts);
      if (isBroken) {
        throw new Error("no");
      }
    },
    { maxAttempts: 1 },
  );
  it.come("a");
  await it.clock.advance(second);
  isBroken = false;
  // Another process does it: nobody rings.
  it.inbox.retry("all");
  await it.clock.advance(second);
  expect(kinds(it)).toEqual(["a parked", "a applied"]);
  expect(seen).toEqual([0, 0]);
  await it.stop();
});

test("a clock that is set back does not make a command wait for days", async () => {
  let fails = true;
  const it = applying(async () => {
    if (fails) {
      fails = false;
      throw new Error("no");
    }
  });
  it.come("a");
  await it.clock.advance(0);
  expect(kinds(it)).toEqual(["a retry"]);
  it.inbox.settle(1, { kind: "retry", notBefore: it.clock.now() + 1_000 * 3600, reason: "no" });
  await it.clock.advance(second);
  expect(kinds(it)).toEqual(["a retry", "a applied"]);
  await it.stop();
});

test("a failed command waits no longer when the clock is set back", async () => {
  let fails = true;
  const it = applying(async () => {
    if (fails) {
      fails = false;
      throw new Error("no");
    }
  });
  it.come("a");
  await it.clock.advance(0);
  it.clock.jump(-50 * second);
  await it.clock.advance(second / 4);
  expect(kinds(it)).toEqual(["a retry"]);
  await it.clock.advance(3 * second);
  expect(kinds(it)).toEqual(["a retry", "a applied"]);
  await it.stop();
});

test("a command that is being applied when the bridge stops is applied again, under its id", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  const clock = testClock();
  const seen: ReceivedCommand[] = [];
  const hangs: ApplyingOptions["apply"] = (command, { signal }) => {
    seen.push(command);
    return new Bell().next({ signal });
  };
  const it = applying(hangs, { path, clock });
  it.come("a");
  await clock.advance(0);
  expect(await it.stop()).toMatchObject({ message: "over" });
  expect(it.outcomes).toEqual([]);
  const again = applying(async (command) => void seen.push(command), { path, clock });
  await clock.advance(0);
  expect(kinds(again)).toEqual(["a applied"]);
  // The interruption was not its fault.
  expect(seen.map(({ commandId, attempts }) => [commandId, attempts])).toEqual([
    ["a", 0],
    ["a", 0],
  ]);
  await again.stop();
});

test("attempts are counted over a restart", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  const clock = testClock();
  const fails = async () => {
    throw new Error("no");
  };
  const it = applying(fails, { path, clock, maxAttempts: 2 });
  it.come("a");
  await clock.advance(0);
  await it.stop();
  const again = applying(fails, { path, clock, maxAttempts: 2 });
  await clock.advance(10 * second);
  expect([...kinds(it), ...kinds(again)]).toEqual(["a retry", "a parked"]);
  await again.stop();
});

test("a disk that does not keep the outcome ends it; nothing is skipped", async () => {
  const it = applying(async () => {});
  it.inbox.settle = () => {
    throw new Error("the disk is full");
  };
  it.come("a", "b");
  await it.clock.advance(0);
  expect(await it.ended).toMatchObject({ message: "the disk is full" });
  expect(it.outcomes).toEqual([]);
  expect(it.inbox.next()?.commandId).toBe("a");
  await it.stop();
});

/** Knows how many wait for it. */
class CountingBell extends Bell {
  waiting = 0;

  override next(options: { readonly signal: AbortSignal }): Promise<void> {
    this.waiting += 1;
    const rung = super.next(options);
    const settled = () => {
      this.waiting -= 1;
    };
    rung.then(settled, settled);
    return rung;
  }
}

test("weeks without a command, and with one that fails for weeks, leave nothing behind", async () => {
  const news = new CountingBell();
  const fails = async () => {
    throw new Error("no");
  };
  const it = applying(fails, { news, maxAttempts: 1_000_000 });
  await it.clock.advance(200 * second);
  expect(news.waiting).toBeLessThan(3);
  it.come("a");
  await it.clock.advance(2_000 * second);
  expect(it.outcomes.length).toBeGreaterThan(50);
  expect(news.waiting).toBeLessThan(3);
  await it.stop();
});
