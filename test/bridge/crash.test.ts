/**
 * A crash anywhere: after every step of a script the files are copied as a crash would leave them,
 * and the log is cut at every frame and within the last one, as a lost machine may leave it.
 */

import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Outbox, type Recorded } from "../../src/bridge/outbox.ts";
import { memoryFolder, type TempFolder } from "../support/temp.ts";

const now = () => Date.UTC(2026, 0, 2, 3, 4, 5);
const walHeader = 32;
const frameHeader = 24;

const payloadOf = (id: string) => `${id} ${"x".repeat(id.length * 37)}`;
const append =
  (...ids: string[]) =>
  (outbox: Outbox) =>
    outbox.append(
      ids.map((eventId) => ({ eventId, type: "Sale", payload: payloadOf(eventId), timestamp: 1 })),
    );
const settle =
  (...marks: [eventId: string, kind: "acked" | "parked" | "retry"][]) =>
  (outbox: Outbox) =>
    outbox.settle(
      marks.map(([eventId, kind]) => {
        const position = outbox.event(eventId)?.position ?? 0;
        return kind === "acked"
          ? { kind, position }
          : { kind, position, reason: "no", notBefore: 5 };
      }),
    );

const script: ((outbox: Outbox) => unknown)[] = [
  append("a1", "a2", "a3"),
  append("b1"),
  settle(["a1", "acked"]),
  settle(["a2", "parked"], ["a3", "retry"]),
  append(...Array.from({ length: 30 }, (_, i) => `many${i}`)),
  (outbox) => outbox.retry(["a2"]),
  (outbox) => outbox.renumber(),
  append("c1", "c2"),
  settle(["a2", "parked"], ["a3", "acked"], ["many3", "acked"], ["c1", "parked"]),
  (outbox) => outbox.retry(["c1"], () => "c1-anew"),
  (outbox) => outbox.replay(),
  (outbox) => outbox.meet({ ledgerId: "one", epoch: outbox.epoch(), seen: 0 }),
  settle(["b1", "acked"]),
  append("d1"),
];

interface State {
  readonly events: readonly Recorded[];
  readonly epoch: string;
}

const stateOf = (outbox: Outbox): State => ({
  events: outbox.events({ limit: 1000 }),
  epoch: outbox.epoch(),
});

/** What a process finds that opens this. */
function reopened(folder: TempFolder, name: string, file: Buffer, log: Buffer | undefined): State {
  const path = folder.file(name);
  writeFileSync(path, file);
  if (log !== undefined) {
    writeFileSync(`${path}-wal`, log);
  }
  copyFileSync(folder.file("buffer.db-drainer"), `${path}-drainer`);
  const outbox = new Outbox({ path, now });
  expect(outbox.salvaged()).toBeUndefined();
  outbox.database.check();
  const state = stateOf(outbox);
  // And goes on where that was.
  const [added] = append("next")(outbox);
  const unacked = state.events.filter(({ epoch }) => epoch === state.epoch);
  expect(added).toMatchObject({
    event: { epoch: state.epoch, seq: Math.max(0, ...unacked.map(({ seq }) => seq)) + 1 },
  });
  outbox.close();
  return state;
}

test("what a step has returned is there after a crash, and each crash is before or behind a step", () => {
  using folder = memoryFolder();
  const path = folder.file("buffer.db");
  const outbox = new Outbox({ path, storeId: "store-01", now });
  // The log's size behind each step, and what was true then.
  const steps: { readonly end: number; readonly state: State }[] = [
    { end: readFileSync(`${path}-wal`).length, state: stateOf(outbox) },
  ];
  let cuts = 0;
  for (const [i, step] of script.entries()) {
    step(outbox);
    const [file, log] = [readFileSync(path), readFileSync(`${path}-wal`)];
    steps.push({ end: log.length, state: stateOf(outbox) });

    expect(reopened(folder, `full${i}.db`, file, log)).toEqual(stateOf(outbox));

    const frame = frameHeader + file.readUInt16BE(16);
    const from = steps.at(-2)?.end ?? 0;
    const ends = [from];
    for (let end = from; end < log.length; end += frame) {
      ends.push(end + 7, end + frame / 2, end + frame - 1, end + frame);
    }
    for (const end of ends) {
      const expected = steps.findLast((known) => known.end <= end)?.state;
      expect(
        reopened(folder, `cut${i}-${end}.db`, file, log.subarray(0, end)),
        `step ${i}`,
      ).toEqual(expected);
      cuts += 1;
    }
  }
  outbox.close();
  // A cut in the middle of a step there was, and the log did not begin anew on the way.
  expect(cuts).toBeGreaterThan(script.length * 5);
  expect(steps.map(({ end }) => end)).toEqual(steps.map(({ end }) => end).sort((a, b) => a - b));
  expect(walHeader + steps.length).toBeLessThan(steps.at(-1)?.end ?? 0);
});

test("a log whose last frames are garbage ends before them", () => {
  using folder = memoryFolder();
  const path = folder.file("buffer.db");
  const outbox = new Outbox({ path, storeId: "store-01", now });
  append("a1", "a2")(outbox);
  const before = stateOf(outbox);
  const end = readFileSync(`${path}-wal`).length;
  append("b1")(outbox);
  const [file, log] = [readFileSync(path), readFileSync(`${path}-wal`)];
  outbox.close();
  log[end + 100] = (log[end + 100] ?? 0) ^ 0xff;
  expect(reopened(folder, "garbage.db", file, log)).toEqual(before);
});
