/** The link: attempt after attempt, with waits that grow until the cloud has answered something. */

import { expect, test } from "vitest";
import { Bell } from "../../src/bell.ts";
import { keepLinked, type LinkState } from "../../src/bridge/link.ts";
import { type StatusCode, StatusError } from "../../src/errors.ts";
import { Stop } from "../../src/shutdown.ts";
import { DamagedError } from "../../src/sqlite.ts";
import { lost } from "../support/played-cloud.ts";
import { testClock } from "../support/test-clock.ts";

type Session = Parameters<typeof keepLinked>[0]["session"];

/** Runs a link whose sessions are played one after another; the last one is done. */
async function play(sessions: readonly Session[], connect = () => Promise.resolve()) {
  const clock = testClock();
  const states: LinkState[] = [];
  const kill = new AbortController();
  let i = 0;
  let isDone = false;
  const done = keepLinked({
    connect,
    session: (link) => sessions[i++]?.(link) ?? Promise.resolve("done"),
    onState: (state) => states.push(state),
    ...{ clock, random: () => 1, signal: kill.signal },
  }).finally(() => {
    isDone = true;
  });
  done.catch(() => {});
  for (let step = 0; step < 10_000 && !isDone; step += 1) {
    await clock.advance(100);
  }
  await done;
  return states;
}

const waits = (states: readonly LinkState[]) =>
  states.flatMap((state) => (state.kind === "offline" ? [state.waitMs] : []));

const fails: Session = () => Promise.reject(lost());

test("the waits double from 1 s up to 30 s, and the attempts never end", async () => {
  const states = await play(Array.from({ length: 8 }, () => fails));
  expect(waits(states)).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
});

test("what is brought forward begins them again, a connection alone does not", async () => {
  const answersOnce: Session = ({ progressed }) => {
    progressed();
    return Promise.reject(lost());
  };
  const states = await play([fails, fails, answersOnce, fails]);
  expect(waits(states)).toEqual([1000, 2000, 1000, 2000]);
  expect(states.map(({ kind }) => kind)).toContain("recovered");
});

const again: Session = () => Promise.resolve({ again: "the numbers are taken" });

test("a session that asks for it is made again at once, as long as each brings something forward", async () => {
  const progressing: Session = ({ progressed }) => {
    progressed();
    return Promise.resolve({ again: "more to do" });
  };
  const states = await play([again, ...Array.from({ length: 20 }, () => progressing), again]);
  expect(waits(states)).toEqual([]);
  expect(states.map(({ kind }) => kind)).toEqual(["connecting"]);
});

test("a session that asks for it twice in a row to no avail waits like a lost connection", async () => {
  const states = await play([again, again, again, again, again]);
  expect(waits(states)).toEqual([1000, 2000, 4000, 8000]);
  expect(states.find(({ kind }) => kind === "offline")).toMatchObject({
    why: "the numbers are taken",
  });
});

test("a connection that cannot be made is tried again", async () => {
  let attempts = 0;
  const states = await play([], async () => {
    attempts += 1;
    if (attempts < 3) {
      throw new StatusError("UNAVAILABLE", "no server");
    }
  });
  expect(attempts).toBe(3);
  expect(states.find(({ kind }) => kind === "offline")).toMatchObject({
    ...{ why: "no server", attempt: 1, waitMs: 1000 },
  });
});

test.each<StatusCode>([
  "UNAVAILABLE",
  "CANCELLED",
  "DEADLINE_EXCEEDED",
  "INTERNAL",
  "RESOURCE_EXHAUSTED",
])("%s may pass", async (code) => {
  const states = await play([
    () => Promise.reject(new StatusError(code as Exclude<StatusCode, "OK">, "for now")),
  ]);
  expect(waits(states)).toEqual([1000]);
});

const malformed: Session = () =>
  Promise.reject(new StatusError("INVALID_ARGUMENT", "illegal tag: field no 0"));

test("a call that the cloud ends as malformed is a lost connection, eight times in a row", async () => {
  const states = await play(Array.from({ length: 8 }, () => malformed));
  expect(waits(states)).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  await expect(play(Array.from({ length: 9 }, () => malformed))).rejects.toMatchObject({
    code: "INVALID_ARGUMENT",
  });
});

test("malformed calls count from the beginning when something was brought forward between them", async () => {
  const halting: Session = ({ progressed }) => {
    progressed();
    return Promise.reject(new StatusError("INVALID_ARGUMENT", "illegal tag: field no 0"));
  };
  const states = await play(Array.from({ length: 20 }, () => halting));
  expect(waits(states)).toEqual(Array.from({ length: 20 }, () => 1000));
});

test("a cloud that has taken something and then lacks the method has read another name", async () => {
  const unknown: Session = () =>
    Promise.reject(new StatusError("UNIMPLEMENTED", "no method OperationalChannem"));
  const useful: Session = ({ progressed }) => {
    progressed();
    return Promise.reject(lost());
  };
  expect(waits(await play([useful, unknown]))).toEqual([1000, 2000]);
});

test.each<[string, Error]>([
  ["UNIMPLEMENTED", new StatusError("UNIMPLEMENTED", "another server")],
  ["UNAUTHENTICATED", new StatusError("UNAUTHENTICATED", "who are you?")],
  ["PERMISSION_DENIED", new StatusError("PERMISSION_DENIED", "not you")],
  ["a damaged buffer", new DamagedError("damaged")],
  ["a fault of ours", new TypeError("oops")],
])("%s ends it", async (_, error) => {
  await expect(play([() => Promise.reject(error)])).rejects.toBe(error);
});

test("an abort ends a wait at once, with its reason", async () => {
  const clock = testClock();
  const kill = new AbortController();
  const done = keepLinked({
    connect: () => Promise.reject(lost()),
    session: () => Promise.resolve("done"),
    onState() {},
    ...{ clock, random: () => 1, signal: kill.signal },
  });
  await clock.sleeping();
  kill.abort(new Stop("Ctrl+C"));
  await expect(done).rejects.toThrow("Ctrl+C");
});

test("a hurry ends a wait, and only that one", async () => {
  const clock = testClock();
  const hurry = new Bell();
  const kill = new AbortController();
  const states: LinkState[] = [];
  let attempts = 0;
  const done = keepLinked({
    connect: () => Promise.resolve(),
    session() {
      attempts += 1;
      return Promise.reject(lost());
    },
    onState: (state) => states.push(state),
    ...{ hurry, clock, random: () => 1, signal: kill.signal },
  });
  done.catch(() => {});
  await clock.sleeping();
  expect(attempts).toBe(1);
  hurry.ring();
  await clock.advance(0);
  expect(attempts).toBe(2);
  // Nobody has rung again: the second wait is a whole one.
  await clock.advance(1_900);
  expect(attempts).toBe(2);
  await clock.advance(100);
  expect(attempts).toBe(3);
  expect(waits(states)).toEqual([1000, 2000, 4000]);
  kill.abort(new Stop("over"));
  await expect(done).rejects.toThrow("over");
});
