/** Many small writes, one commit. */

import { expect, test } from "vitest";
import { systemClock } from "../src/clock.ts";
import { GroupCommit, type GroupCommitOptions } from "../src/group-commit.ts";
import { failure } from "./support/serve-handlers.ts";
import { testClock } from "./support/test-clock.ts";

function grouped(options: Partial<GroupCommitOptions<number, string>> = {}) {
  const clock = testClock();
  const batches: number[][] = [];
  const commits = new GroupCommit<number, string>({
    clock,
    ...options,
    commit(items) {
      batches.push([...items]);
      if (items.some((item) => item < 0)) {
        throw new Error(`cannot write ${items}`);
      }
      return items.map((item) => `#${item}`);
    },
  });
  return { clock, batches, commits };
}

test("what comes alone is committed at once", async () => {
  const { clock, batches, commits } = grouped();
  for (const item of [1, 2]) {
    const result = commits.add(item);
    await clock.advance(0);
    expect(await result).toBe(`#${item}`);
  }
  expect(batches).toEqual([[1], [2]]);
});

test("what comes together is one commit, and each gets its own result", async () => {
  const { clock, batches, commits } = grouped();
  const results = [1, 2, 3].map((item) => commits.add(item));
  expect(batches).toEqual([]);
  await clock.advance(0);
  expect(await Promise.all(results)).toEqual(["#1", "#2", "#3"]);
  expect(batches).toEqual([[1, 2, 3]]);
});

test("what is large enough is committed at once, and those before it with it", async () => {
  const { clock, batches, commits } = grouped({ sizeOf: (item) => item, maxSize: 10 });
  const results = [4, 5, 1, 12, 3].map((item) => commits.add(item));
  expect(batches).toEqual([[4, 5, 1], [12]]);
  await clock.advance(0);
  expect(batches).toEqual([[4, 5, 1], [12], [3]]);
  expect(await Promise.all(results)).toEqual(["#4", "#5", "#1", "#12", "#3"]);
});

test("without a linger, those who heard of a commit share the next one, and wait for no timer", async () => {
  const { clock, batches, commits } = grouped();
  const tills = [10, 20, 30].map(async (till) => {
    const results: string[] = [];
    for (const item of [till, till + 1, till + 2]) {
      results.push(await commits.add(item));
    }
    return results;
  });
  const results = await clock.settled(Promise.all(tills));
  expect(batches).toEqual([
    [10, 20, 30],
    [11, 21, 31],
    [12, 22, 32],
  ]);
  expect(clock.monotonic()).toBe(0);
  expect(results).toEqual([
    ["#10", "#11", "#12"],
    ["#20", "#21", "#22"],
    ["#30", "#31", "#32"],
  ]);
});

/** Adds an item in each of so many turns of the event loop, in which the clock stands still. */
async function addInTurns(commits: GroupCommit<number, string>, count: number): Promise<void> {
  for (let item = 1; item <= count; item += 1) {
    commits.add(item);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("without a linger, a batch is open while each turn adds to it, and ends with one that does not", async () => {
  const batches: number[][] = [];
  const commits = new GroupCommit<number, string>({
    // Real turns of the event loop, in which no time passes.
    clock: { ...systemClock, monotonic: () => 0 },
    commit(items) {
      batches.push([...items]);
      return items.map(String);
    },
  });
  await addInTurns(commits, 5);
  expect(batches).toEqual([]);
  const last = await commits.add(6);
  expect(last).toBe("6");
  expect(batches).toEqual([[1, 2, 3, 4, 5, 6]]);
});

test("without a linger, turns that keep adding keep a batch open for 2 ms and no longer", async () => {
  let now = 0;
  const batches: number[][] = [];
  const commits = new GroupCommit<number, string>({
    // Each look at the clock finds it half a millisecond later.
    clock: { ...systemClock, monotonic: () => now++ / 2 },
    commit(items) {
      batches.push([...items]);
      return items.map(String);
    },
  });
  await addInTurns(commits, 20);
  expect(batches.length).toBeGreaterThan(2);
  expect(Math.max(...batches.map(({ length }) => length))).toBeLessThanOrEqual(6);
});

test("behind a batch of several the next one waits for more, so long and no longer", async () => {
  const { clock, batches, commits } = grouped({ lingerMs: 4 });
  commits.add(1);
  commits.add(2);
  await clock.advance(0);
  commits.add(3);
  await clock.advance(3);
  expect(batches).toEqual([[1, 2]]);
  commits.add(4);
  await clock.advance(1);
  expect(batches).toEqual([
    [1, 2],
    [3, 4],
  ]);
});

test("behind a batch of one nobody waits again", async () => {
  const { clock, batches, commits } = grouped({ lingerMs: 4 });
  commits.add(1);
  commits.add(2);
  await clock.advance(0);
  commits.add(3);
  await clock.advance(4);
  commits.add(4);
  await clock.advance(0);
  expect(batches).toEqual([[1, 2], [3], [4]]);
});

test("a full batch does not wait, and what comes behind it is the next one", async () => {
  const { clock, batches, commits } = grouped({ maxItems: 2, lingerMs: 4 });
  const results = [1, 2, 3].map((item) => commits.add(item));
  expect(batches).toEqual([[1, 2]]);
  expect(await Promise.all(results.slice(0, 2))).toEqual(["#1", "#2"]);
  // The timer of the first batch is still to come, and is not the second one's.
  await clock.advance(0);
  expect(batches).toEqual([[1, 2]]);
  await clock.advance(4);
  expect(batches).toEqual([[1, 2], [3]]);
});

test("a commit that fails fails all of its batch, and no other", async () => {
  const { clock, batches, commits } = grouped({ maxItems: 2 });
  const outcomes = [1, 2, 3, -4, 5].map((item) => commits.add(item));
  const failures = [
    failure(outcomes[2] as Promise<string>),
    failure(outcomes[3] as Promise<string>),
  ];
  await clock.advance(100);
  expect(await outcomes[0]).toBe("#1");
  expect(await outcomes[1]).toBe("#2");
  for (const failed of await Promise.all(failures)) {
    expect(failed).toEqual(new Error("cannot write 3,-4"));
  }
  expect(await outcomes[4]).toBe("#5");
  expect(batches).toEqual([[1, 2], [3, -4], [5]]);
});

test("a flush commits what waits, and an empty one nothing", async () => {
  const { clock, batches, commits } = grouped();
  commits.flush();
  expect(batches).toEqual([]);
  const result = commits.add(1);
  commits.flush();
  expect(await result).toBe("#1");
  await clock.advance(100);
  expect(batches).toEqual([[1]]);
});
