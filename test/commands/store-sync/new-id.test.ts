import { expect, test } from "vitest";
import { newIds } from "../../../src/commands/store-sync/new-id.ts";

test("an id is a UUID of version 7 with the time in it", () => {
  const [id, other] = [newIds(() => 0x19b7f5e8c20)(), newIds(() => 0x19b7f5e8c20)()];
  expect(id).toMatch(/^evt-019b7f5e-8c20-7000-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(other).not.toBe(id);
});

test("ids sort as they were made, while the clock stands and when it is set back", () => {
  const times = [
    ...Array<number>(5_000).fill(1_000),
    ...Array<number>(5_000).fill(500),
    ...[1_002, 1_003, 1_100],
  ];
  const ids: string[] = [];
  const newId = newIds(() => times[ids.length] ?? 0);
  for (const _ of times) {
    ids.push(newId());
  }
  expect(ids).toEqual(ids.toSorted());
  expect(new Set(ids).size).toBe(ids.length);
});
