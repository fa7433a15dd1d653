/** `store-sync` against a cloud that knows only the original contract. */

import { describe, expect, test } from "vitest";
import { originalCloud } from "../support/original-contract.ts";
import { lineOf, shop } from "../support/shop.ts";
import { serveImplementations } from "../support/start-server.ts";

async function open(options: Parameters<typeof originalCloud>[0] = {}) {
  const cloud = originalCloud(options);
  const server = await serveImplementations(cloud.implementation);
  const store = shop();
  const addr = `--addr 127.0.0.1:${server.port}`;
  const record = (...ids: string[]) =>
    store.sync("record --store store-01 --input - -q", ids.map((id) => `${lineOf(id)}\n`).join(""));
  return {
    ...{ cloud, store, addr, record },
    async [Symbol.asyncDispose]() {
      store[Symbol.dispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

describe("flush", () => {
  test("drains by batches as long as nothing is rejected", async () => {
    await using own = await open();
    await own.record("a", "b", "c");
    const { stdout, stderr, code } = await own.store.sync(`flush ${own.addr}`);
    expect(stdout).toContain("Upload complete — 3 accepted, 0 rejected\n");
    expect(stderr).not.toContain("does not say which");
    expect(code).toBe(0);
    expect(own.cloud.calls).toMatchObject({ upload: 1, channel: 0 });
  });

  test("goes on event by event when a summary rejects events and does not name them", async () => {
    await using own = await open();
    own.cloud.known.add("b");
    await own.record("a", "b", "c");
    const { stdout, stderr, code } = await own.store.sync(`flush ${own.addr}`);
    expect(stderr).toContain(
      "the cloud has rejected 1 of 3 events and does not say which, or whether it has them already; going on with an answer for each event",
    );
    expect(stderr.match(/does not say which/g)).toHaveLength(1);
    expect(stdout).toContain("Upload complete — 3 accepted, 0 rejected\n");
    expect(code).toBe(0);
    expect(own.cloud.calls).toMatchObject({ upload: 1, channel: 1 });
    expect((await own.store.sync("status -o ndjson")).stdout).toContain('"pending":0');
  });

  test("ends with exit 5 when the cloud has no channel either, and keeps the events", async () => {
    await using own = await open({ hasChannel: false });
    own.cloud.known.add("b");
    await own.record("a", "b", "c");
    const { stderr, code } = await own.store.sync(`flush ${own.addr}`);
    expect(stderr).toMatch(/it has no channel to ask event by event: 3 pending\n$/);
    expect(code).toBe(5);
    expect(own.cloud.calls).toMatchObject({ upload: 1, channel: 1 });
  });
});

test("channel and watch work without numbers, cursors or codes", async () => {
  await using own = await open();
  own.cloud.known.add("b");
  await own.record("a", "b");
  const channel = await own.store.sync(`channel --until-drained ${own.addr}`);
  expect(channel.stdout).toBe("ACK: a\nACK: b\n");
  expect(channel.code).toBe(0);
  const watch = await own.store.sync(`watch --limit 1 ${own.addr}`);
  expect(watch.stdout).toBe("[PriceUpdate] received → applying locally\n");
  expect(watch.code).toBe(0);
});
