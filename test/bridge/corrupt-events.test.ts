/** Events whose bits have flipped on the store's disk: found by each reader, parked, and never sent. */

import { readFileSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { headOf, keptIn, NewBuffer } from "../../src/bridge/hand-over.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { corruptHere, Outbox } from "../../src/bridge/outbox.ts";
import { verify } from "../../src/bridge/verify.ts";
import { alarmsOf } from "../../src/commands/store-sync/buffer.ts";
import { exportLines, readExport } from "../../src/commands/store-sync/export-lines.ts";
import { isCorrupt } from "../../src/event-checksum.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { collect } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { openBox } from "../support/store-box.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const now = () => Date.UTC(2026, 0, 2, 3, 4, 5);
const pause = async () => {};
const ids = (events: readonly { readonly eventId: string }[]) => events.map((e) => e.eventId);
const sale = (n: number) => ({
  ...{ eventId: `sale-${n}`, type: "Sale", payload: `{"total":${n}00}` },
  timestamp: 1_700_000_000_000 + n,
});

/** A closed buffer of five sales, in whose file a bit of the third one's payload has flipped. */
function corruptBuffer(folder: TempFolder): string {
  const path = folder.file("buffer.db");
  const outbox = new Outbox({ path, storeId: "store-01", now });
  outbox.append([1, 2, 3, 4, 5].map(sale));
  outbox.close();
  const bytes = readFileSync(path);
  const at = bytes.indexOf('{"total":300}') + 9;
  // The 3 becomes a 2.
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  writeFileSync(path, bytes);
  return path;
}

async function ledgerOf(cloud: Awaited<ReturnType<typeof serveCloud>>) {
  const { messages } = await collect(cloud.office.listEvents({}, { signal: never }));
  return messages.map(({ eventId, payload }) => [eventId, payload]);
}
const takenWithoutThird = [1, 2, 4, 5].map((n) => [`sale-${n}`, `{"total":${n}00}`]);

describe("an event that is corrupt on the store's disk", () => {
  for (const verb of ["channel", "flush"] as const) {
    test(`is parked by ${verb} and not sent, while the others go`, async () => {
      using folder = tempFolder();
      await using cloud = await serveCloud();
      using box = openBox({ path: corruptBuffer(folder) });
      await using drain =
        verb === "flush"
          ? box.flush(cloud.address)
          : box.channel(cloud.address, { untilDrained: true });
      await drain.done;
      expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 1, acked: 4 });
      expect(box.outbox.event("sale-3")).toMatchObject({ state: "parked", reason: corruptHere });
      expect(await ledgerOf(cloud)).toEqual(takenWithoutThird);
      expect(alarmsOf(box.outbox)).toEqual([
        expect.stringMatching(/^1 parked event is corrupt on this disk and cannot be sent/),
      ]);
    });
  }

  test("is told to the process that finds it, once", () => {
    using folder = tempFolder();
    const told: string[] = [];
    const outbox = new Outbox({
      ...{ path: corruptBuffer(folder), now },
      onCorrupt: ({ eventId }) => told.push(eventId),
    });
    expect(ids(outbox.pending(0, 9))).toEqual(["sale-1", "sale-2", "sale-4", "sale-5"]);
    outbox.pending(0, 9);
    expect(told).toEqual(["sale-3"]);
    outbox.close();
  });

  test("is not the end of what is pending, where a page has nothing else", () => {
    using folder = tempFolder();
    const outbox = new Outbox({ path: corruptBuffer(folder), now });
    expect(ids(outbox.pending(2, 1))).toEqual(["sale-4"]);
    outbox.close();
  });

  test("is parked instead of sent again when its time has come", () => {
    using folder = tempFolder();
    const path = folder.file("buffer.db");
    const outbox = new Outbox({ path, storeId: "store-01", now });
    outbox.append([1, 2].map(sale));
    for (const position of [1, 2]) {
      outbox.settle([{ kind: "retry", position, notBefore: 1, reason: "busy" }]);
    }
    outbox.database.prepare("UPDATE events SET type = 'Tale' WHERE position = 1").run();
    expect(ids(outbox.retries(9))).toEqual(["sale-2"]);
    expect(outbox.event("sale-1")).toMatchObject({ state: "parked", reason: corruptHere });
    outbox.close();
  });

  test.each<[column: string, sql: string]>([
    ["event_id", "event_id = 'sale-7'"],
    ["type", "type = 'Tale'"],
    ["payload", "payload = CAST('{\"total\":201}' AS BLOB)"],
    ["payload, so that it is not UTF-8", "payload = X'7bff7d'"],
    ["timestamp", "timestamp = timestamp + 1"],
    ["checksum", "checksum = checksum + 1"],
  ])("is found whichever column it is: %s", async (_, sql) => {
    using folder = tempFolder();
    const path = folder.file("buffer.db");
    const outbox = new Outbox({ path, storeId: "store-01", now });
    outbox.append([1, 2, 3].map(sale));
    outbox.database.prepare(`UPDATE events SET ${sql} WHERE position = 2`).run();
    expect(ids(outbox.pending(0, 9))).toEqual(["sale-1", "sale-3"]);
    outbox.close();
    expect((await verify(path, { pause })).findings).toEqual([expect.stringMatching(/^event 2: /)]);
  });

  test("is named by verify in whatever state it is", async () => {
    using folder = tempFolder();
    const path = corruptBuffer(folder);
    const corrupt = 'event 3: it is corrupt: event "sale-3" does not have its checksum';
    expect((await verify(path, { pause })).findings).toEqual([corrupt]);
    const outbox = new Outbox({ path, now });
    outbox.settle([{ kind: "acked", position: 3 }]);
    outbox.close();
    expect((await verify(path, { pause })).findings).toEqual([corrupt]);
  });

  test("cannot be retried, and is left out when all that is parked is", () => {
    using folder = tempFolder();
    const outbox = new Outbox({ path: corruptBuffer(folder), now });
    outbox.settle([{ kind: "parked", position: 2, reason: "no" }]);
    outbox.pending(0, 9);
    const newIds = () => "sale-9";
    expect(() => outbox.retry(["sale-3"])).toThrow(/"sale-3" is corrupt on the store's disk/);
    expect(() => outbox.retry(["sale-3"], newIds)).toThrow(/"sale-3" is corrupt/);
    expect(outbox.retry("all")).toEqual(["sale-2"]);
    expect(outbox.event("sale-3")).toMatchObject({ state: "parked" });
    outbox.close();
  });

  test("is as it was again when a till repeats it, and goes up", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    using box = openBox({ path: corruptBuffer(folder) });
    box.outbox.pending(0, 9);
    expect(box.outbox.append([{ ...sale(3), payload: "another" }])).toMatchObject([
      { kind: "refused", why: { code: "ALREADY_EXISTS" } },
    ]);
    expect(box.outbox.append([sale(3)])).toMatchObject([{ kind: "recorded", isNew: false }]);
    await using drain = box.flush(cloud.address);
    await drain.done;
    expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 5 });
    expect(await ledgerOf(cloud)).toEqual([...takenWithoutThird, ["sale-3", '{"total":300}']]);
  });

  test("stays corrupt in another box, and every other event has its checksum there", async () => {
    using folder = tempFolder();
    const outbox = new Outbox({ path: corruptBuffer(folder), now });
    const inbox = new Inbox(outbox.database, { now });
    const head = { ...headOf(outbox), counts: outbox.counts(), exportedAt: 0, only: undefined };
    const lines = Array.from(exportLines(head, keptIn(outbox, inbox)));
    outbox.close();
    expect(lines.filter((line) => line.includes('"corrupt":true'))).toHaveLength(1);
    async function* read() {
      for (const [i, text] of lines.entries()) {
        yield { text, where: `line ${i + 1}` };
      }
    }
    const { head: readHead, things } = await readExport(read(), "export");
    const target = new NewBuffer({ path: folder.file("other.db"), head: readHead, now });
    try {
      for await (const thing of things) {
        target.add([thing]);
      }
      target.finish();
      target.put();
    } finally {
      target.close();
    }
    const other = new Outbox({ path: folder.file("other.db"), now });
    const events = other.events({ limit: 9 });
    expect(events.every(({ checksum }) => checksum !== undefined)).toBe(true);
    expect(ids(events.filter(isCorrupt))).toEqual(["sale-3"]);
    expect(ids(other.pending(0, 9))).toEqual(["sale-1", "sale-2", "sale-4", "sale-5"]);
    other.close();
  });
});

describe("an event without a checksum", () => {
  test("is sent as it is", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    using box = openBox({ path: corruptBuffer(folder) });
    box.outbox.database.prepare("UPDATE events SET checksum = NULL").run();
    await using drain = box.flush(cloud.address);
    await drain.done;
    expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 5 });
    expect(await ledgerOf(cloud)).toHaveLength(5);
  });

  test("is no finding of verify", async () => {
    using folder = tempFolder();
    const path = corruptBuffer(folder);
    const sqlite = new DatabaseSync(path);
    sqlite.exec("UPDATE events SET checksum = NULL");
    sqlite.close();
    expect((await verify(path, { pause })).findings).toEqual([]);
  });
});
