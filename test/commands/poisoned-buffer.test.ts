/** A buffer with numbers that no JavaScript number can hold, as every command of a store meets it. */

import { expect, test } from "vitest";
import { Outbox } from "../../src/bridge/outbox.ts";
import { lineOf, shop } from "../support/shop.ts";
import { closedPort } from "../support/temp.ts";

test("commands, status, events, verify, export and run --exec go on", async () => {
  using store = shop();
  await store.sync("record --store store-01 --input - -q", `${lineOf("sale-1")}\n`);
  const outbox = new Outbox({ path: store.buffer, now: () => 1 });
  const insert = outbox.database.prepare(
    `INSERT INTO commands
       (command_id, type, payload, sequence, issued_at, received_at, reason, state, ledger_id)
     VALUES (?, 'PriceUpdate', '{}', ?, ?, 1, '', 0, 'ledger-1')`,
  );
  insert.run("bad", 2n ** 62n, 2n ** 63n - 1n);
  insert.run("good", 2n, 1n);
  outbox.close();

  const exits: Record<string, number | null> = {};
  for (const line of ["commands", "commands -o ndjson", "status", "events", "verify"]) {
    const { code, stderr } = await store.sync(line);
    expect(stderr, line).not.toContain("a fault inside brewctl");
    exits[line] = code;
  }
  expect(exits).toMatchObject({ commands: 0, "commands -o ndjson": 0, status: 0, events: 0 });
  expect(exits["verify"]).not.toBe(1);

  const cloud = `127.0.0.1:${await closedPort()}`;
  await using bridge = await store.run(["--addr", cloud, "--exec", "true"]);
  await bridge.output(/\[PriceUpdate\] parked command_id=bad reason="?sequence is/);
  await bridge.output(/\[PriceUpdate\] applied command_id=good/);
  await bridge.stop();

  const exported = await store.sync("export -");
  expect(exported.stderr).not.toContain("a fault inside brewctl");
  expect(exported.code).not.toBe(1);
}, 30_000);
