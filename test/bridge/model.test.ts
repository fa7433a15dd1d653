/**
 * A store and a cloud against a model of ten lines: whatever is lost, refused, crashed or restored
 * on the way, the ledger has every recorded event in the end, once and as it was.
 */

import { copyFileSync, existsSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Outbox, type Recorded, type Settlement } from "../../src/bridge/outbox.ts";
import { Ledger } from "../../src/engine/ledger.ts";
import { inMemory } from "../../src/sqlite.ts";
import { memoryFolder } from "../support/temp.ts";

const storeId = "store-01";
const payloadOf = (id: string) => `${id}: ${Buffer.from(id).toString("hex")}`;

type Step =
  | { readonly kind: "append"; readonly count: number }
  /** Each digit is what happens to an event of the batch. */
  | { readonly kind: "send"; readonly fates: readonly Fate[] }
  | { readonly kind: (typeof others)[number] };
const others = [
  ...(["repeat", "crash", "close", "keep", "restore", "tick", "retry", "anew", "prune"] as const),
] as const;
type Fate = "answered" | "answer lost" | "lost" | "refused for now" | "refused for good";

const fate = fc.constantFrom<Fate>(
  ...(["answered", "answered", "answered", "answer lost", "lost"] as const),
  ...(["refused for now", "refused for good"] as const),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("append" as const), count: fc.nat(4) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("send" as const),
      fates: fc.array(fate, { minLength: 1, maxLength: 6 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom(...others),
    }) as fc.Arbitrary<Step>,
  },
);

/** Of the current epoch: the events that are there, those that are gone, the numbers that were given. */
function numbersOf({ database }: Outbox): { rows: number; gone: number; given: number } {
  const row = database
    .prepare(
      `SELECT next_seq - 1 AS given, gone,
         (SELECT count(*) FROM events WHERE events.epoch = outbox.epoch) AS rows
       FROM outbox JOIN epochs ON number = outbox.epoch`,
    )
    .get();
  return {
    rows: Number(row?.["rows"]),
    gone: Number(row?.["gone"]),
    given: Number(row?.["given"]),
  };
}

test("the ledger has each recorded event once, whatever happened on the way", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 40 }), (steps) => {
      using folder = memoryFolder();
      const time = { now: 1_000_000 };
      const now = () => time.now;
      const uptime = () => ({ boot: "boot-1", ms: time.now });
      const ledger = new Ledger({ folder: inMemory, now });
      let generation = 0;
      let path = folder.file("0.db");
      let outbox = new Outbox({ path, storeId, now, uptime });
      let kept: { path: string; recorded: ReadonlySet<string> } | undefined;
      let nextId = 1;

      /** The model: what a till was told is recorded, and was not lost with a disk since. */
      let recorded = new Set<string>();
      const offered = new Set<string>();
      const renamed = new Map<string, string>();

      const copied = () => {
        generation += 1;
        const copy = folder.file(`${generation}.db`);
        for (const suffix of ["", "-wal", "-drainer"]) {
          if (existsSync(path + suffix)) {
            copyFileSync(path + suffix, copy + suffix);
          }
        }
        return copy;
      };
      const open = (at: string) => {
        path = at;
        outbox = new Outbox({ path, now, uptime });
      };
      const record = (...ids: string[]) => {
        const appended = outbox.append(
          ids.map((eventId) => ({
            eventId,
            type: "Sale",
            payload: payloadOf(renamed.get(eventId) ?? eventId),
            timestamp: 7,
          })),
        );
        expect(appended.every(({ kind }) => kind === "recorded")).toBe(true);
        for (const id of ids) {
          recorded.add(id);
          offered.add(id);
        }
      };
      const send = (events: readonly Recorded[], fateOf: (i: number) => Fate) => {
        const settlements: Settlement[] = [];
        for (const [i, event] of events.entries()) {
          const { position } = event;
          const fate = fateOf(i);
          if (fate === "lost") {
            continue;
          }
          if (fate === "refused for now") {
            settlements.push({ kind: "retry", position, notBefore: time.now + 5, reason: "busy" });
            continue;
          }
          if (fate === "refused for good") {
            settlements.push({ kind: "parked", position, reason: "no" });
            continue;
          }
          const [outcome] = ledger.take([{ ...event, storeId }]);
          if (fate === "answer lost") {
            continue;
          }
          if (outcome?.kind === "refused") {
            expect(outcome.code).toBe("seq taken");
            outbox.settle(settlements);
            outbox.renumber();
            return;
          }
          settlements.push({ kind: "acked", position });
        }
        outbox.settle(settlements);
      };
      const due = (limit: number) => [...outbox.pending(0, limit), ...outbox.retries(limit)];

      for (const step of steps) {
        switch (step.kind) {
          case "append":
            record(...Array.from({ length: step.count }, () => `e${nextId++}`));
            break;
          case "send":
            send(due(step.fates.length), (i) => step.fates[i] ?? "answered");
            break;
          case "repeat":
            // The till did not hear the answer.
            record(...[...recorded].slice(-2));
            break;
          case "crash": {
            const copy = copied();
            outbox.close();
            open(copy);
            break;
          }
          case "close":
            outbox.close();
            open(path);
            break;
          case "keep":
            kept = { path: copied(), recorded: new Set(recorded) };
            break;
          case "restore":
            if (kept !== undefined) {
              outbox.close();
              open(kept.path);
              // What was recorded since is lost with the disk, but for what the cloud has.
              recorded = new Set(kept.recorded);
              kept = undefined;
            }
            break;
          case "tick":
            time.now += 10;
            break;
          case "retry":
            outbox.retry("all");
            break;
          case "anew":
            for (const { eventId } of outbox.events({ state: "parked", limit: 1 })) {
              const newId = `e${nextId++}`;
              // Its payload is still that of the old id; the two are one event.
              renamed.set(newId, renamed.get(eventId) ?? eventId);
              outbox.retry([eventId], () => newId);
              recorded.delete(eventId);
              recorded.add(newId);
              offered.add(newId);
            }
            break;
          case "prune":
            outbox.prune({ keepMs: 5 });
            break;
        }
        const { rows, gone, given } = numbersOf(outbox);
        expect(rows + gone).toBe(given);
        const seqs = outbox.events({ limit: 1000 }).filter(({ epoch }) => epoch === outbox.epoch());
        expect(new Set(seqs.map(({ seq }) => seq)).size).toBe(seqs.length);
      }

      outbox.retry("all");
      for (let round = 0; !outbox.isDrained(); round++) {
        expect(round).toBeLessThan(20);
        time.now += 10;
        send(due(1000), () => "answered");
      }
      const taken = ledger.events({ after: 0, limit: 10_000 });
      const ids = taken.map(({ eventId }) => eventId);
      expect(new Set(ids).size).toBe(ids.length);
      expect([...recorded].filter((id) => !ids.includes(id))).toEqual([]);
      expect(ids.filter((id) => !offered.has(id))).toEqual([]);
      for (const { eventId, payload, timestamp } of taken) {
        expect([payload, timestamp]).toEqual([payloadOf(renamed.get(eventId) ?? eventId), 7]);
      }
      outbox.close();
      ledger.close();
    }),
    { numRuns: 100 },
  );
});
