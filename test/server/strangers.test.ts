/** What a stranger can make the cloud write down, remember and compute: little, whatever it sends. */

import { expect, test, vi } from "vitest";
import { parseAddress } from "../../src/address.ts";
import { DigestSide } from "../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { maxDigestCells, maxDigests } from "../../src/server/digest.ts";
import { maxRefusalsLogged } from "../../src/server/refusal-log.ts";
import { Database } from "../../src/sqlite.ts";
import { serve } from "../support/brewctl.ts";
import { knowStores, noon, openLedger, sale } from "../support/open-ledger.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect, each, failure } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

const day = "2026-01-02";
const range = { fromDay: day, toDay: day, type: "", withEvents: false };

const digest = ({ office }: TestCloud, storeId = "store-01") =>
  office.digest({ storeId, side: DigestSide.LEDGER, range }, { signal: never });

test("100,000 empty events make a dozen lines of log, and no row", async () => {
  await using cloud = await serveCloud();
  const bundles = Array.from({ length: 400 }, () => ({
    more: Array.from({ length: 249 }, () => ({})),
  }));
  const { refused } = await cloud.client.uploadBufferedEvents(each(bundles), { signal: never });
  expect(refused).toBe(100_000);
  const refusals = cloud.log.lines.filter((line) => line.startsWith("WARN event refused"));
  expect(refusals).toHaveLength(maxRefusalsLogged);
  await cloud.log.line("WARN more events refused more=99990");
  await cloud.log.line("flush ended store=unknown accepted=0 duplicates=0 refused=100000");
  expect(cloud.log.lines.length).toBeLessThan(20);
  const { messages } = await collect(cloud.office.listStores({}, { signal: never }));
  expect(messages).toEqual([]);
});

test("a new store that cannot come now is told to try later, and a known one is served", async () => {
  using folder = tempFolder();
  const ids = Array.from({ length: 10_000 }, (_, i) => `store-${i}`);
  {
    using box = openLedger(folder.path);
    knowStores(box.ledger, ids);
  }
  await using cloud = await serveCloud({ dataDir: folder.path });
  const why = "the cloud knows 10000 stores, and takes no new one beyond 10000";
  const watched = cloud.client.watchCommands({ storeId: "new" }, { signal: never });
  const exhausted = { code: "RESOURCE_EXHAUSTED", message: why };
  expect((await collect(watched)).error).toMatchObject(exhausted);
  const report = cloud.client.reportStatus({ storeId: "new" }, { signal: never });
  expect(await failure(report)).toMatchObject(exhausted);
  const event = {
    ...{ eventId: "1", storeId: "new", type: "Sale", payload: "", timestamp: BigInt(noon) },
    ...{ seq: 1n, epoch: "a" },
  };
  const send = (storeId: string) =>
    cloud.client.uploadBufferedEvents(each([{ ...event, storeId }]), { signal: never });
  expect(await send("new")).toMatchObject({ refusals: [{ retryable: true, reason: why }] });
  expect(await send("store-1")).toMatchObject({ accepted: 1 });
  await cloud.client.reportStatus({ storeId: "store-2" }, { signal: never });
  const { queued } = await cloud.office.issueCommand(
    { allStores: true, type: "StockAlert", payloadJson: "{}" },
    { signal: never },
  );
  expect(queued).toHaveLength(10_000);
});

test("stores that watch for the first time at once share a commit", async () => {
  await using cloud = await serveCloud({ opensLedger: true });
  const ids = Array.from({ length: 100 }, (_, i) => `store-${i}`);
  const writes = vi.spyOn(Database.prototype, "write");
  const stop = new AbortController();
  const watches = ids.map((storeId) =>
    failure(
      Promise.resolve(
        cloud.client
          .watchCommands({ storeId }, { signal: stop.signal })
          [Symbol.asyncIterator]()
          .next(),
      ),
    ),
  );
  await Promise.all(ids.map((storeId) => cloud.log.line(`Store ${storeId} connected`)));
  expect(writes.mock.calls.length).toBeLessThan(50);
  writes.mockRestore();
  stop.abort(new Error("enough"));
  await Promise.all(watches);
});

test(`more than ${maxDigests} digests at once are RESOURCE_EXHAUSTED, and there is room again after them`, async () => {
  const clock = testClock();
  await using cloud = await serveCloud({ clock });
  const stop = new AbortController();
  const watched = cloud.client
    .watchCommands({ storeId: "store-01", answersQuestions: true }, { signal: stop.signal })
    [Symbol.asyncIterator]();
  const question = watched.next();
  await cloud.log.line("Store store-01 connected");
  const asked = Array.from({ length: maxDigests }, () =>
    failure(
      Promise.resolve(
        cloud.office
          .digest({ storeId: "store-01", side: DigestSide.STORE, range }, { signal: stop.signal })
          [Symbol.asyncIterator]()
          .next(),
      ),
    ),
  );
  await question;
  // Their questions come to the store one by one.
  for (let i = 1; i < maxDigests; i++) {
    await watched.next();
  }
  expect((await collect(digest(cloud))).error).toMatchObject({
    code: "RESOURCE_EXHAUSTED",
    message: "4 digests are being made; at most 4 at once are allowed; try again later",
  });
  stop.abort(new Error("enough"));
  await Promise.all(asked);
  await cloud.log.line("disconnected");
  expect((await collect(digest(cloud))).error).toBeUndefined();
});

test("a digest of more sums than allowed is RESOURCE_EXHAUSTED, and says what to ask for", async () => {
  using folder = tempFolder();
  {
    using box = openLedger(folder.path);
    const events = Array.from({ length: maxDigestCells + 2 }, (_, i) =>
      sale(i + 1, { type: `t${i}` }),
    );
    box.ledger.take(events);
  }
  await using cloud = await serveCloud({ dataDir: folder.path });
  expect(await collect(digest(cloud))).toMatchObject({
    messages: [],
    error: {
      code: "RESOURCE_EXHAUSTED",
      message: "the answer has more than 20000 sums; ask for fewer days or for one type",
    },
  });
});

test("a log that nobody reads is dropped beyond a bound, and says so when somebody reads again", async () => {
  await using server = await serve(["--memory", "--log-level", "debug"]);
  const connection = dial(parseAddress(server.addr));
  try {
    const client = connection.client(SyncEngine);
    server.child.stderr?.pause();
    const name = "n".repeat(128);
    const bundle = {
      storeId: name,
      more: Array.from({ length: 255 }, () => ({ storeId: name, type: name })),
    };
    // A line of almost 300 bytes for each event: 3 MB.
    const bundles = Array.from({ length: 40 }, () => bundle);
    const { refused } = await client.uploadBufferedEvents(each(bundles), { signal: never });
    expect(refused).toBe(40 * 256);
    const written = server.stderr.length;
    server.child.stderr?.resume();
    const [, dropped] = await server.output(/the log's reader was too slow lines_dropped=(\d+)/);
    expect(Number(dropped)).toBeGreaterThan(3_000);
    expect(server.stderr.length - written).toBeLessThan(1.5 * 1024 * 1024);
    await client.uploadBufferedEvents(each([]), { signal: never });
    await server.output(/lines_dropped=\d+\n(.*\n)*flush ended store=unknown accepted=0/);
  } finally {
    connection.close();
  }
});
