/** A ledger for a test, closed at the end of the scope, and events to offer it. */

import { Dispatch } from "../../src/engine/dispatch.ts";
import { Ledger, type OfferedEvent } from "../../src/engine/ledger.ts";
import { inMemory } from "../../src/sqlite.ts";

/** When everything here happens, in Unix milliseconds. */
export const noon = Date.UTC(2026, 0, 2, 12);

export interface OpenLedger extends Disposable {
  readonly ledger: Ledger;
  readonly dispatch: Dispatch;
}

export function openLedger(
  folder: string = inMemory,
  now: () => number = () => noon,
  free?: () => number,
): OpenLedger {
  const ledger = new Ledger({ folder, now, ...(free === undefined ? {} : { free }) });
  let isOpen = true;
  return {
    ledger,
    dispatch: new Dispatch(ledger.database, {
      ...{ ledgerId: ledger.id, now },
      insistOnRoom: () => ledger.insistOnRoom(),
    }),
    [Symbol.dispose]() {
      if (isOpen) {
        isOpen = false;
        ledger.close();
      }
    },
  };
}

/** Writes stores into a ledger as known, however many there are. */
export function knowStores({ database }: Ledger, storeIds: readonly string[]): void {
  const insert = database.prepare("INSERT INTO stores (store_id) VALUES (?)");
  database.write(() => {
    for (const storeId of storeIds) {
      insert.run(storeId);
    }
  });
}

/** The nth event of a store's first epoch, with some fields changed. */
export function sale(n: number, changes: Partial<OfferedEvent> = {}): OfferedEvent {
  return {
    storeId: "store-01",
    eventId: `sale-${n}`,
    type: "Sale",
    payload: `{"total":${n}}`,
    timestamp: noon - 60_000 + n,
    epoch: "aaaaaaaaaaaaaaaa",
    seq: n,
    ...changes,
  };
}

/** Sales from the first to the last. */
export function sales(first: number, last: number, changes: Partial<OfferedEvent> = {}) {
  return Array.from({ length: last - first + 1 }, (_, i) => sale(first + i, changes));
}
