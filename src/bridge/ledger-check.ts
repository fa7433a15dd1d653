/** Checks what the cloud says of its ledger at the beginning of each call of a drainer. */

import { StatusError } from "../errors.ts";
import { onOurDisk } from "./marks.ts";
import type { LedgerSeen, Outbox } from "./outbox.ts";

/**
 * Returns the `onLedger` of one session. It tells `onAlarm` when the cloud has forgotten what it had
 * acknowledged. That happens to a cloud once in years: one that says so twice in one session is
 * broken, and this throws `StatusError` ABORTED, so that the link waits before the next call.
 */
export function ledgerCheck(
  outbox: Outbox,
  onAlarm: (why: string) => void,
): (ledger: LedgerSeen) => void {
  let alarms = 0;
  return (ledger) => {
    const alarm = onOurDisk(() => outbox.meet(ledger));
    if (alarm === undefined) {
      return;
    }
    alarms += 1;
    if (alarms > 1) {
      throw new StatusError("ABORTED", `the cloud has changed its ledger again: ${alarm}`);
    }
    onAlarm(alarm);
  };
}
