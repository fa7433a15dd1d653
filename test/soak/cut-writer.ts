/**
 * Records events and says so, for power-cuts.ts: `node cut-writer.ts buffer|ledger FOLDER PREFIX
 * SEED BATCHES`. It says each id, which begins with the prefix, when its event is promised to be on the
 * disk. A buffer is drained and pruned on the way: `~` before an id says that its event may go.
 */

import { writeSync } from "node:fs";
import { Outbox } from "../../src/bridge/outbox.ts";
import { Ledger } from "../../src/engine/ledger.ts";
import { dice } from "../support/dice.ts";
import { eventOf } from "../support/oracle.ts";

const [kind, folder = "", prefix, seed, batches] = process.argv.slice(2);
const { below, isHeads } = dice(Number(seed));
/** In Unix milliseconds. */
let time = Date.UTC(2026, 0, 2);
const now = () => time;

function say(ids: readonly string[]): void {
  if (ids.length > 0) {
    writeSync(1, ids.map((id) => `${id}\n`).join(""));
  }
}

let count = 0;
const nextIds = () => Array.from({ length: 1 + below(8) }, () => `${prefix}-${++count}`);

if (kind === "ledger") {
  const ledger = new Ledger({ folder, now });
  for (let i = 0; i < Number(batches); i++) {
    const ids = nextIds();
    const events = ids.map((id, n) => ({
      ...eventOf(id),
      storeId: `store-${1 + below(3)}`,
      ...{ epoch: "", seq: 0 },
      ...(n === 0 && isHeads() ? { payload: JSON.stringify("☕".repeat(below(3_000))) } : {}),
    }));
    ledger.take(events);
    say(ids);
    time += 1_000;
  }
  ledger.close();
} else {
  const outbox = new Outbox({ path: `${folder}/buffer.db`, storeId: "store-01", now });
  const drain = outbox.drain();
  const byPosition = new Map<number, string>();
  let settled = 0;
  for (let i = 0; i < Number(batches); i++) {
    const ids = nextIds();
    let position = settled;
    for (const one of outbox.append(ids.map(eventOf))) {
      if (one.kind === "recorded") {
        position = one.event.position;
        byPosition.set(position, one.event.eventId);
      }
    }
    say(ids);
    if (isHeads()) {
      const upTo = settled + below(position - settled + 1);
      const positions = Array.from({ length: upTo - settled }, (_, n) => settled + n + 1);
      say(positions.flatMap((position) => `~${byPosition.get(position)}`));
      outbox.settle(positions.map((position) => ({ kind: "acked", position })));
      settled = upTo;
    }
    if (i % 10 === 9) {
      outbox.prune({ keepMs: 30 * 24 * 3_600_000 });
    }
    // A day, so that what was acknowledged a month ago may go.
    time += 24 * 3_600_000;
  }
  drain.release();
  outbox.close();
}
