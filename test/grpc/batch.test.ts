import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { Batch, maxGatheredBytes, maxGatheredMessages } from "../../src/grpc/batch.ts";

const { signal } = new AbortController();
const message = Buffer.alloc(100);

/** A batch whose writes are kept, and are on the wire when the test says so. */
function held() {
  const writes: { count: number; bytes: number; done: () => void }[] = [];
  let charged = 0;
  const batch = new Batch({
    transmit: (messages, bytes, done) => writes.push({ count: messages.length, bytes, done }),
    charge: (bytes) => {
      charged += bytes;
    },
  });
  return {
    batch,
    writes,
    counts: () => writes.map(({ count }) => count),
    get charged() {
      return charged;
    },
  };
}

test("what is written in one turn leaves together, also after promises", async () => {
  const { batch, counts } = held();
  batch.write(message);
  await Promise.resolve();
  await Promise.resolve();
  batch.write(message);
  expect(counts()).toEqual([]);
  await nextTurn();
  expect(counts()).toEqual([2]);
});

test("what is written while earlier bytes are on their way leaves when those are on the wire", async () => {
  const { batch, writes, counts } = held();
  batch.write(message);
  await nextTurn();
  for (let i = 0; i < 5; i++) {
    batch.write(message);
    await nextTurn();
  }
  expect(counts()).toEqual([1]);
  writes[0]?.done();
  expect(counts()).toEqual([1, 5]);
});

test("a flush does not wait, and keeps the order", () => {
  const { batch, writes } = held();
  batch.write(Buffer.alloc(1));
  batch.flush();
  batch.write(Buffer.alloc(2));
  batch.flush();
  batch.flush();
  expect(writes.map(({ bytes }) => bytes)).toEqual([1, 2]);
});

test.each([
  ["bytes", Buffer.alloc(maxGatheredBytes / 4), 4],
  ["tiny messages", Buffer.alloc(0), maxGatheredMessages],
])("takes no more when enough %s have gathered", async (_, one, enough) => {
  const { batch, writes, counts } = held();
  for (let i = 1; i < enough; i++) {
    expect(batch.write(one)).toBe(true);
  }
  expect(batch.write(one)).toBe(false);
  // As much may gather while this is on its way.
  await batch.room({ signal });
  expect(counts()).toEqual([enough]);
  for (let i = 1; i < enough; i++) {
    expect(batch.write(one)).toBe(true);
  }
  expect(batch.write(one)).toBe(false);
  let hasRoom = false;
  const room = batch.room({ signal }).then(() => {
    hasRoom = true;
  });
  await nextTurn();
  expect(hasRoom).toBe(false);
  writes[0]?.done();
  await room;
  expect(counts()).toEqual([enough, enough]);
});

test("a sender does not wait for room when the call is over", async () => {
  const { batch } = held();
  const over = new AbortController();
  for (let i = 0; i < 2; i++) {
    batch.write(Buffer.alloc(maxGatheredBytes));
    batch.flush();
  }
  batch.write(Buffer.alloc(maxGatheredBytes));
  const room = batch.room({ signal: over.signal });
  over.abort();
  await room;
  await batch.room({ signal: over.signal });
});

test("what waits is charged with its frames, until it is on the wire", async () => {
  const kept = held();
  kept.batch.write(message);
  kept.batch.write(Buffer.alloc(0));
  expect(kept.charged).toBe(110);
  await nextTurn();
  expect(kept.charged).toBe(110);
  kept.writes[0]?.done();
  expect(kept.charged).toBe(0);
});
