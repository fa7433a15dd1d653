/** How acknowledged events grow old: by the time that the machine runs, whatever its wall clock says. */

import { describe, expect, test } from "vitest";
import { Outbox, retentionMs } from "../../src/bridge/outbox.ts";
import { tempFolder } from "../support/temp.ts";

const hour = 3_600_000;
const day = 24 * hour;

/** A store's box: its wall clock is set by the test, and its uptime by the time that passes. */
function box(path: string) {
  const wall = { now: Date.UTC(2026, 0, 2) };
  const up = { boot: "boot-1", ms: hour };
  const open = () =>
    new Outbox({ path, storeId: "store-01", now: () => wall.now, uptime: () => ({ ...up }) });
  return {
    ...{ wall, open },
    pass(ms: number) {
      wall.now += ms;
      up.ms += ms;
    },
    /** It is off for this long. */
    boot(ms: number) {
      wall.now += ms;
      up.boot += "+";
      up.ms = 0;
    },
    /** Another process opens the buffer for this. */
    run<T>(act: (outbox: Outbox) => T): T {
      const outbox = open();
      try {
        return act(outbox);
      } finally {
        outbox.close();
      }
    },
  };
}

let ids = 0;

/** Records one event, has it acknowledged, and returns its id. */
function acknowledge(outbox: Outbox): string {
  ids += 1;
  const [appended] = outbox.append([{ eventId: `e${ids}`, type: "Sale", payload: "" }]);
  if (appended?.kind === "recorded") {
    outbox.settle([{ kind: "acked", position: appended.event.position }]);
  }
  return `e${ids}`;
}

/** Prunes as the bridge does; returns what is kept. */
function kept(outbox: Outbox): string[] {
  for (let step = outbox.prune(); step !== undefined; ) {
    step = outbox.prune({ after: step.next });
  }
  return outbox.events({ state: "acked", limit: 99 }).map(({ eventId }) => eventId);
}

describe("a wall clock that jumps", () => {
  test("8 days ahead and back removes nothing early, while a bridge runs and between two", () => {
    using folder = tempFolder();
    const { wall, pass, run } = box(folder.file("buffer.db"));
    const first = run(acknowledge);
    pass(hour);
    wall.now += 8 * day;
    run((outbox) => {
      expect(kept(outbox)).toEqual([first]);
      acknowledge(outbox);
      wall.now += 8 * day;
      expect(kept(outbox)).toHaveLength(2);
    });
    wall.now -= 16 * day;
    run((outbox) => expect(kept(outbox)).toHaveLength(2));
    pass(retentionMs - hour);
    run((outbox) => expect(kept(outbox)).toHaveLength(2));
    pass(1);
    run((outbox) => expect(kept(outbox)).toHaveLength(1));
  });

  test("to 2096 or to 1970 keeps nothing for ever", () => {
    using folder = tempFolder();
    const { wall, pass, run } = box(folder.file("buffer.db"));
    for (const year of [2096, 1970, 2026]) {
      wall.now = Date.UTC(year, 0, 2);
      run(acknowledge);
    }
    pass(retentionMs);
    run((outbox) => expect(kept(outbox)).toHaveLength(3));
    pass(1);
    run((outbox) => expect(kept(outbox)).toEqual([]));
  });

  test("in a buffer of an older brewctl removes nothing early, and keeps nothing for ever", () => {
    using folder = tempFolder();
    const { wall, pass, run } = box(folder.file("buffer.db"));
    const before = wall.now;
    run((outbox) => {
      acknowledge(outbox);
      acknowledge(outbox);
      outbox.database.prepare("DELETE FROM age_clock").run();
      const date = "UPDATE events SET settled_at = ? WHERE position = ?";
      outbox.database.prepare(date).run(Date.UTC(2096, 0, 2), 1);
      outbox.database.prepare(date).run(before, 2);
    });
    wall.now += 8 * day;
    run((outbox) => expect(kept(outbox)).toHaveLength(2));
    pass(retentionMs + 1);
    run((outbox) => expect(kept(outbox)).toEqual([]));
  });
});

describe("age", () => {
  test("counts while no process runs, as for a flush that cron starts", () => {
    using folder = tempFolder();
    const { pass, run } = box(folder.file("buffer.db"));
    const days = Array.from({ length: 12 }, (_, i) => i);
    const counts = days.map(() => {
      pass(day);
      return run((outbox) => {
        acknowledge(outbox);
        return kept(outbox).length;
      });
    });
    expect(counts).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8]);
  });

  test("does not count while the box is off, and goes on after that", () => {
    using folder = tempFolder();
    const { boot, pass, run } = box(folder.file("buffer.db"));
    run(acknowledge);
    pass(4 * day);
    run(kept);
    boot(30 * day);
    run((outbox) => expect(kept(outbox)).toHaveLength(1));
    pass(day);
    run(kept);
    pass(2 * day);
    run((outbox) => expect(kept(outbox)).toHaveLength(1));
    pass(1);
    run((outbox) => expect(kept(outbox)).toEqual([]));
  });

  test("grows by a day at most when the buffer is copied to a machine that has run for a year", () => {
    using folder = tempFolder();
    const { boot, pass, run } = box(folder.file("buffer.db"));
    run(acknowledge);
    boot(0);
    pass(365 * day);
    run((outbox) => expect(kept(outbox)).toHaveLength(1));
    pass(6 * day + 1);
    run((outbox) => expect(kept(outbox)).toEqual([]));
  });

  test("is kept across a boot to a minute of what was settled or pruned last", () => {
    using folder = tempFolder();
    const { boot, pass, run } = box(folder.file("buffer.db"));
    run((outbox) => {
      acknowledge(outbox);
      for (let i = 0; i < 7 * 24; i++) {
        pass(hour);
        kept(outbox);
      }
      pass(59_000);
      acknowledge(outbox);
    });
    boot(0);
    run((outbox) => expect(kept(outbox)).toHaveLength(2));
    pass(1);
    run((outbox) => expect(kept(outbox)).toHaveLength(1));
  });
});
