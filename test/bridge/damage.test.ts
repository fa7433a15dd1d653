/** A store's buffer on a disk that breaks: what is readable goes on, and nothing is thrown away. */

import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Outbox, type Recorded } from "../../src/bridge/outbox.ts";
import { StatusError } from "../../src/errors.ts";
import { interruptTransaction } from "../support/hot-journal.ts";
import { memoryFolder, type TempFolder } from "../support/temp.ts";

const pageSize = 4096;
const total = 360;
const now = () => Date.UTC(2026, 0, 2, 3, 4, 5);

const idOf = (i: number) => `till-1-${String(i).padStart(4, "0")}`;
const payloadOf = (id: string) => JSON.stringify({ id, text: `${id} `.repeat(20) });

let library: TempFolder;
let whole: Buffer;
let before: Recorded[];
/** A buffer of 360 events, closed well: the first 40 acked, ten of the others parked. */
beforeAll(() => {
  library = memoryFolder();
  const outbox = new Outbox({ path: library.file("buffer.db"), storeId: "store-01", now });
  outbox.append(
    Array.from({ length: total }, (_, i) => ({
      eventId: idOf(i + 1),
      type: "Sale",
      payload: payloadOf(idOf(i + 1)),
      timestamp: 1000 + i,
    })),
  );
  outbox.settle([
    ...Array.from({ length: 40 }, (_, i) => ({ kind: "acked" as const, position: i + 1 })),
    ...Array.from({ length: 10 }, (_, i) => ({
      kind: "parked" as const,
      position: 100 + i,
      reason: "no such product",
    })),
  ]);
  before = outbox.events({ limit: 1000 });
  outbox.close();
  whole = readFileSync(library.file("buffer.db"));
});
afterAll(() => library[Symbol.dispose]());

/** The buffer with this content, in a folder of its own. */
function damaged(folder: TempFolder, bytes: Uint8Array): string {
  const path = folder.file("buffer.db");
  writeFileSync(path, bytes);
  copyFileSync(library.file("buffer.db-drainer"), folder.file("buffer.db-drainer"));
  return path;
}

/** Whether rows of the events are on this page. */
const isLeaf = (page: number) =>
  page > 0 &&
  whole[page * pageSize] === 0x0d &&
  whole.subarray(page * pageSize, (page + 1) * pageSize).includes('"text"');

/** Where an event is; a page that was split has a copy that does not count, but looks the same. */
function pagesOf({ payload }: Recorded): number[] {
  const pages: number[] = [];
  for (let at = whole.indexOf(payload); at >= 0; at = whole.indexOf(payload, at + 1)) {
    pages.push(Math.floor(at / pageSize));
  }
  return pages;
}

const setAsides = ({ path }: TempFolder) =>
  readdirSync(path).filter((name) => /\.damaged-[^.]*$/.test(name) && !/-(wal|shm)$/.test(name));

/** Opens it as the next process would, and reads all of it, until it is whole. */
function openAtLast(path: string): Outbox {
  for (let attempt = 1; ; attempt++) {
    let outbox: Outbox | undefined;
    try {
      outbox = new Outbox({ path, storeId: "store-01", now });
      outbox.counts();
      outbox.events({ limit: 1000 });
      outbox.database.check();
      return outbox;
    } catch (error) {
      outbox?.close();
      // Damage may be met by reading only. Then the next opening knows of it.
      if (!(error instanceof StatusError) || error.code !== "DATA_LOSS" || attempt === 3) {
        throw error;
      }
    }
  }
}

/** Undefined if the row that says whose it is now says that it is another's. */
function openUnlessAnothers(path: string): Outbox | undefined {
  try {
    return openAtLast(path);
  } catch (error) {
    if (error instanceof StatusError && error.code === "FAILED_PRECONDITION") {
      return undefined;
    }
    throw error;
  }
}

/**
 * Nothing has the number of another event, what had to be numbered again is numbered from 1 without a
 * gap, and recording goes on.
 */
function expectWell(outbox: Outbox): Recorded[] {
  const events = outbox.events({ limit: 1000 });
  expect(new Set(events.map(({ epoch, seq }) => `${epoch} ${seq}`)).size).toBe(events.length);
  const strays = events.filter(({ epoch }) => epoch === outbox.epoch());
  expect(strays.map(({ seq }) => seq)).toEqual(strays.map((_, i) => i + 1));
  const [added] = outbox.append([{ eventId: "new", type: "Sale", payload: "", timestamp: 1 }]);
  const numbers = { epoch: outbox.epoch(), seq: strays.length + 1 };
  expect(added).toMatchObject({ kind: "recorded", event: numbers });
  return events;
}

const essence = ({ eventId, type, payload, timestamp, state, reason, position }: Recorded) => ({
  ...{ eventId, type, payload, timestamp, state, reason, position },
});
const numbersOf = ({ epoch, seq }: Recorded) => ({ epoch, seq });

/** The ranges of seqs that are in `before` and not among these events. */
function absent(kept: readonly Recorded[]): [number, number][] {
  const seqs = new Set(kept.map(({ seq }) => seq));
  const ranges: [number, number][] = [];
  for (const { seq } of before.filter(({ seq }) => !seqs.has(seq))) {
    const range = ranges.at(-1);
    if (range?.[1] === seq - 1) {
      range[1] = seq;
    } else {
      ranges.push([seq, seq]);
    }
  }
  return ranges;
}

test("the rows of a broken page are lost and counted, and the others keep their numbers", () => {
  using folder = memoryFolder();
  const leaves = Array.from({ length: whole.length / pageSize }, (_, i) => i).filter(isLeaf);
  // Two that follow one another, and one further on.
  const broken = [leaves[2], leaves[3], leaves[9]].map(Number);
  const bytes = Buffer.from(whole);
  let lost = 0;
  for (const page of broken) {
    lost += whole.readUInt16BE(page * pageSize + 3);
    bytes.fill(0, page * pageSize, (page + 1) * pageSize);
  }
  const path = damaged(folder, bytes);
  const outbox = openAtLast(path);
  expect(outbox.hasJustSalvaged).toBe(true);
  const [setAside = ""] = setAsides(folder);
  expect(outbox.salvaged()).toEqual({
    at: now(),
    setAside: folder.file(setAside),
    events: total - lost,
    losses: [
      {
        ...{ at: now(), read: total - lost, atLeast: lost, atMost: lost },
        ...{ epoch: before[0]?.epoch, numbers: absent(outbox.events({ limit: 1000 })) },
        ...{ isMore: false, hasPruned: false },
      },
    ],
  });
  expect(readFileSync(folder.file(setAside)).equals(bytes)).toBe(true);
  const epoch = before[0]?.epoch;
  expect(outbox.epoch()).not.toBe(epoch);
  const kept = expectWell(outbox);
  const keptIds = new Set(kept.map(({ eventId }) => eventId));
  expect(kept.map(essence)).toEqual(
    before.filter(({ eventId }) => keptIds.has(eventId)).map(essence),
  );
  expect(kept.map(numbersOf)).toEqual(
    before.filter(({ eventId }) => keptIds.has(eventId)).map(numbersOf),
  );
  expect(kept).toHaveLength(total - lost);
  outbox.close();
  // It is whole now: the next opening finds nothing to do.
  const again = new Outbox({ path, now });
  expect(again.counts()).toMatchObject({ pending: again.counts().pending });
  expect(again.hasJustSalvaged).toBe(false);
  expect(again.salvaged()?.setAside).toBe(folder.file(setAside));
  expect(setAsides(folder)).toEqual([setAside]);
  again.close();
});

describe("whatever is done to the file", () => {
  test.each<[string, (bytes: Buffer) => Buffer]>([
    ["its header is garbage", (bytes) => bytes.fill("garbage ", 0, 100)],
    ["its first page is zeros", (bytes) => bytes.fill(0, 0, pageSize)],
    ["it is cut off in the middle", (bytes) => bytes.subarray(0, bytes.length / 2)],
    ["it is cut off within a page", (bytes) => bytes.subarray(0, pageSize * 9 + 77)],
    ["little more than its header is left", (bytes) => bytes.subarray(0, 600)],
    ["all behind its first page is zeros", (bytes) => bytes.fill(0, pageSize)],
    ["all behind its first page is garbage", (bytes) => bytes.fill(0xa5, pageSize)],
  ])("and so when %s, it is set aside as it is and the store goes on", (_, damage) => {
    using folder = memoryFolder();
    const bytes = damage(Buffer.from(whole));
    const outbox = openAtLast(damaged(folder, bytes));
    const kept = expectWell(outbox);
    const known = new Map(before.map((event) => [event.eventId, event.payload]));
    for (const { eventId, payload } of kept) {
      expect(payload).toBe(known.get(eventId));
    }
    expect(outbox.salvaged()?.events).toBe(kept.length);
    const [loss] = outbox.salvaged()?.losses ?? [];
    if (loss === undefined) {
      expect(kept).toHaveLength(total);
    } else {
      expect(loss.atLeast).toBeLessThanOrEqual(total - kept.length);
      expect(loss.atMost ?? total).toBeGreaterThanOrEqual(total - kept.length);
    }
    expect(setAsides(folder)).toHaveLength(1);
    expect(readFileSync(folder.file(setAsides(folder)[0] ?? "")).equals(bytes)).toBe(true);
    outbox.close();
  });

  // Four tests, so that each is far from the time limit on a busy machine.
  test.each([1, 2, 3, 4])("random damage to its pages costs what was in them (%i of 4)", () => {
    const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
    let state = seed;
    // mulberry32
    const random = (below: number) => {
      state = (state + 0x6d2b79f5) | 0;
      let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
      mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
      return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
    };
    const places = new Map(before.map((event) => [event, pagesOf(event)]));
    for (let run = 0; run < 6; run++) {
      using folder = memoryFolder();
      const bytes = Buffer.from(whole);
      const pages = new Set<number>();
      for (let i = random(4); i >= 0; i--) {
        const page = random(bytes.length / pageSize);
        pages.add(page);
        const from = page * pageSize;
        // The head of a page is where a flipped byte does most.
        const at = from + random(random(2) === 0 ? 16 : pageSize);
        const to = Math.min(from + pageSize, at + 1 + random(random(2) === 0 ? 4 : pageSize));
        for (let j = at; j < to; j++) {
          bytes[j] = random(256);
        }
      }
      const told = `seed ${seed}, run ${run}, pages ${[...pages]}`;
      try {
        const path = damaged(folder, bytes);
        const outbox = openUnlessAnothers(path);
        if (outbox === undefined) {
          expect(pages.has(1), told).toBe(true);
          expect(readFileSync(path).equals(bytes), told).toBe(true);
          continue;
        }
        const kept = new Map(outbox.events({ limit: 1000 }).map((event) => [event.eventId, event]));
        // A row of a page that nothing has happened to is as it was, and it is there unless a page
        // above it was hit.
        const onlyLeaves = [...pages].every(isLeaf);
        for (const [event, ownPages] of places) {
          const found = kept.get(event.eventId);
          if (ownPages.every((page) => !pages.has(page)) && (onlyLeaves || found)) {
            expect(found && essence(found), told).toEqual(essence(event));
          }
        }
        if (outbox.salvaged() !== undefined) {
          expectWell(outbox);
        }
        outbox.close();
      } catch (error) {
        throw new Error(told, { cause: error });
      }
      for (const name of setAsides(folder)) {
        expect(readFileSync(folder.file(name)).length, told).toBe(bytes.length);
      }
    }
  });
});

test("what only the log had is salvaged with it", () => {
  using folder = memoryFolder();
  const path = folder.file("buffer.db");
  for (const suffix of ["", "-drainer"]) {
    copyFileSync(library.file("buffer.db") + suffix, path + suffix);
  }
  const writer = new Outbox({ path, storeId: "store-01", now });
  writer.append([{ eventId: "late", type: "Sale", payload: "late one", timestamp: 7 }]);
  // As a crash leaves it.
  using crashed = memoryFolder();
  for (const suffix of ["", "-wal", "-drainer"]) {
    copyFileSync(path + suffix, crashed.file("buffer.db") + suffix);
  }
  writer.close();
  const bytes = readFileSync(crashed.file("buffer.db"));
  bytes.fill(0, pageSize * 20, pageSize * 21);
  writeFileSync(crashed.file("buffer.db"), bytes);
  const outbox = new Outbox({ path: crashed.file("buffer.db"), now });
  expect(outbox.storeId).toBe("store-01");
  expect(outbox.salvaged()).toBeDefined();
  expect(outbox.event("late")).toMatchObject({ payload: "late one", timestamp: 7 });
  outbox.close();
});

describe("a salvage that is interrupted", () => {
  const breakIt = (folder: TempFolder) => {
    const bytes = Buffer.from(whole);
    // The pages of an event in the middle, so that the first and the last one stay readable.
    for (const page of before.slice(total / 2, total / 2 + 1).flatMap(pagesOf)) {
      bytes.fill(0, page * pageSize, (page + 1) * pageSize);
    }
    return damaged(folder, bytes);
  };
  const intention = (folder: TempFolder) => {
    const setAside = folder.file("buffer.db.damaged-earlier");
    writeFileSync(
      folder.file("buffer.db-salvaging"),
      `${JSON.stringify({ at: 1, owner: "store-01", setAside })}\n`,
    );
    return setAside;
  };
  const expectFinished = (folder: TempFolder) => {
    const outbox = openAtLast(folder.file("buffer.db"));
    expect(outbox.hasJustSalvaged).toBe(true);
    expect(outbox.salvaged()?.events).toBeGreaterThan(300);
    expect(outbox.event(idOf(1))).toBeDefined();
    expect(outbox.event(idOf(total))).toBeDefined();
    outbox.close();
    expect(setAsides(folder)).toHaveLength(1);
    expect(existsSync(folder.file("buffer.db-salvaging"))).toBe(false);
  };

  test("a salvage that a power cut has interrupted while it made the new file is finished", () => {
    using folder = memoryFolder();
    const path = damaged(folder, whole);
    const setAside = folder.file("buffer.db.damaged-1");
    renameSync(path, setAside);
    interruptTransaction(path);
    const salvaging = { at: now(), owner: "store-01", setAside };
    writeFileSync(`${path}-salvaging`, `${JSON.stringify(salvaging)}\n`);
    const outbox = new Outbox({ path, storeId: "store-01", now });
    expect(outbox.salvaged()?.events).toBe(total);
    expect(existsSync(`${path}-salvaging`)).toBe(false);
    outbox.close();
  });

  test("before it began is begun anew", () => {
    using folder = memoryFolder();
    breakIt(folder);
    writeFileSync(folder.file("buffer.db-suspect"), "");
    writeFileSync(folder.file("buffer.db-salvaging"), '{"at":1,"own');
    expectFinished(folder);
  });

  test("before the file was moved is finished", () => {
    using folder = memoryFolder();
    breakIt(folder);
    intention(folder);
    expectFinished(folder);
  });

  test("when the file was moved is finished", () => {
    using folder = memoryFolder();
    renameSync(breakIt(folder), intention(folder));
    expectFinished(folder);
  });

  test.each(["/mnt/elsewhere/", ""])(
    "on a disk that is mounted elsewhere by now is finished (set aside as %j)",
    (place) => {
      using folder = memoryFolder();
      renameSync(breakIt(folder), folder.file("buffer.db.damaged-earlier"));
      writeFileSync(
        folder.file("buffer.db-salvaging"),
        `${JSON.stringify({ at: 1, owner: "store-01", setAside: `${place}buffer.db.damaged-earlier` })}\n`,
      );
      expectFinished(folder);
    },
  );

  test("when the new file had nothing in it yet is finished", () => {
    using folder = memoryFolder();
    renameSync(breakIt(folder), intention(folder));
    writeFileSync(folder.file("buffer.db"), "");
    expectFinished(folder);
  });
});

test("damage twice at the same moment keeps both files", () => {
  using folder = memoryFolder();
  for (const length of [5, 6]) {
    const path = damaged(folder, whole.subarray(0, pageSize * length));
    for (const suffix of ["-wal", "-shm"]) {
      rmSync(path + suffix, { force: true });
    }
    openAtLast(path).close();
  }
  expect(
    setAsides(folder)
      .map((name) => readFileSync(folder.file(name)).length / pageSize)
      .sort(),
  ).toEqual([5, 6]);
});

test("damage that only reading meets is an error once, and salvaged at the next opening", () => {
  using folder = memoryFolder();
  const bytes = Buffer.from(whole);
  bytes.fill(0, pageSize * 20, pageSize * 21);
  const path = damaged(folder, bytes);
  const outbox = new Outbox({ path, now });
  expect(outbox.salvaged()).toBeUndefined();
  expect(() => outbox.events({ limit: 1000 })).toThrow(StatusError);
  outbox.close();
  const next = new Outbox({ path, now });
  expect(next.salvaged()?.events).toBeGreaterThan(300);
  expect(existsSync(`${path}-suspect`)).toBe(false);
  next.close();
});

test("a damaged file that was never ours is refused and stays as it is", () => {
  using folder = memoryFolder();
  const path = folder.file("notes.txt");
  writeFileSync(path, "bread and butter, ".repeat(1000));
  const open = () => new Outbox({ path, storeId: "store-01", now });
  expect(open).toThrow(/notes\.txt is no store buffer/);
  expect(open).toThrow(StatusError);
  expect(readFileSync(path, "utf8")).toBe("bread and butter, ".repeat(1000));
  expect(readdirSync(folder.path)).toEqual(["notes.txt"]);
});

test("a damaged file is not salvaged for another store", () => {
  using folder = memoryFolder();
  const bytes = Buffer.from(whole);
  bytes.fill(0, pageSize * 20, pageSize * 21);
  const path = damaged(folder, bytes);
  writeFileSync(`${path}-suspect`, "");
  expect(() => new Outbox({ path, storeId: "store-02", now })).toThrow(StatusError);
  expect(setAsides(folder)).toEqual([]);
  expect(readFileSync(path).equals(bytes)).toBe(true);
});

test("who asks for it gets a damaged file refused, as it is, instead of salvaged", () => {
  using folder = memoryFolder();
  const bytes = Buffer.from(whole);
  bytes.fill(0, pageSize * 20, pageSize * 21);
  const path = damaged(folder, bytes);
  expect(() => new Outbox({ path, now, salvages: false })).toThrow(/is damaged: /);
  expect(setAsides(folder)).toEqual([]);
  expect(readFileSync(path).equals(bytes)).toBe(true);
  // Also one whose salvage was interrupted.
  writeFileSync(`${path}-salvaging`, "{");
  expect(() => new Outbox({ path, now, salvages: false })).toThrow(/its salvage was interrupted/);
  rmSync(`${path}-salvaging`);
  // The next one who does not ask for it salvages it.
  const outbox = new Outbox({ path, now });
  expect(outbox.salvaged()).toBeDefined();
  outbox.close();
});

describe("a buffer that was emptied", () => {
  /** A buffer with three events of which the log alone tells, as a process that was killed leaves it. */
  function killed(folder: TempFolder): string {
    const elsewhere = folder.file("elsewhere.db");
    const outbox = new Outbox({ path: elsewhere, storeId: "store-01", now });
    outbox.append(["a", "b", "c"].map((eventId) => ({ eventId, type: "Sale", payload: "" })));
    const path = folder.file("buffer.db");
    for (const suffix of ["", "-wal", "-drainer"]) {
      copyFileSync(elsewhere + suffix, path + suffix);
    }
    outbox.close();
    return path;
  }
  const setAsideIn = (folder: TempFolder) =>
    readdirSync(folder.path).filter((name) => name.includes(".damaged-"));

  test.each([
    ["emptied", (path: string) => writeFileSync(path, "")],
    ["removed, but for its log", (path: string) => rmSync(path)],
  ])("while it had a log (%s) is set aside together with the log", (_, empty) => {
    using folder = memoryFolder();
    const path = killed(folder);
    const log = readFileSync(`${path}-wal`);
    empty(path);
    const outbox = new Outbox({ path, storeId: "store-01", now });
    expect(outbox.hasJustSalvaged).toBe(true);
    expect(outbox.salvaged()?.events).toBe(0);
    const [setAside = ""] = setAsideIn(folder);
    expect(readFileSync(folder.file(`${setAside}-wal`)).equals(log)).toBe(true);
    outbox.append([{ eventId: "d", type: "Sale", payload: "" }]);
    expect(outbox.unsettled().pending).toBe(1);
    outbox.close();
  });

  test("after it was closed is set aside, and not taken for a new one", () => {
    using folder = memoryFolder();
    const path = damaged(folder, Buffer.alloc(0));
    const outbox = new Outbox({ path, storeId: "store-01", now });
    expect(outbox.hasJustSalvaged).toBe(true);
    expect(setAsideIn(folder)).toHaveLength(1);
    outbox.close();
    const again = new Outbox({ path, storeId: "store-01", now });
    expect(again.hasJustSalvaged).toBe(false);
    again.close();
  });

  test("while it was open takes no event any more", () => {
    using folder = memoryFolder();
    const path = folder.file("buffer.db");
    const outbox = new Outbox({ path, storeId: "store-01", now });
    truncateSync(path);
    expect(() => outbox.append([{ eventId: "a", type: "Sale", payload: "" }])).toThrow(
      /buffer\.db is damaged: it was emptied while it was open here/,
    );
    outbox.close();
  });
});
