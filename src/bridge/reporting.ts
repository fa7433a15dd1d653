/** Tells head office how the store is: now and then, and when something has changed. */

import type { Bell } from "../bell.ts";
import type { Clock } from "../clock.ts";
import { messageOf, StatusError } from "../errors.ts";
import { needsReopening } from "../sqlite.ts";
import type { Inbox } from "./inbox.ts";
import type { Outbox } from "./outbox.ts";
import type { StoreReport, Uplink } from "./uplink.ts";

export interface ReportingOptions {
  readonly outbox: Outbox;
  readonly inbox: Inbox;
  readonly uplink: Uplink;
  readonly clock: Clock;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Rings when something has changed. */
  readonly changed: Bell;
  /** What the bridge knows beyond its buffer. */
  readonly alarms: () => readonly string[];
  /** Is told how the store's clock differs from the cloud's, in milliseconds. */
  readonly onReported: (clockOffsetMs: number) => void;
  /** Is told why a report did not arrive; the next one says the same and more. */
  readonly onFailure: (why: string) => void;
}

/** Between two reports at most, in milliseconds; the contract says so. */
const everyMs = 10_000;

/** Between two reports at least, in milliseconds, however much changes. */
const atMostEveryMs = 1_000;

/**
 * Between two reports, in milliseconds, to a cloud that takes none: one of the original contract. It
 * may be replaced by one that does.
 */
export const unimplementedEveryMs = 600_000;

/** Parked commands that are named. */
const maxParkedCommands = 20;

/** Has no end of its own: throws the signal's reason, and what is damaged. */
export async function keepReporting(options: ReportingOptions): Promise<never> {
  const { outbox, clock, signal, changed, onFailure } = options;
  for (;;) {
    const over = new AbortController();
    const pause = AbortSignal.any([signal, over.signal]);
    const news = changed.next({ signal: pause });
    // The pause may be over before anybody waits for it.
    news.catch(() => {});
    try {
      // An idle store would otherwise learn only from its next sale that the file is gone.
      outbox.database.insistOnFile();
      await reportOnce(options);
    } catch (error) {
      signal.throwIfAborted();
      if (needsReopening(error)) {
        throw error;
      }
      onFailure(messageOf(error));
      if (error instanceof StatusError && error.code === "UNIMPLEMENTED") {
        over.abort();
        await clock.sleep(unimplementedEveryMs, { signal });
        continue;
      }
    }
    await clock.sleep(atMostEveryMs, { signal });
    await Promise.race([news, clock.sleep(everyMs - atMostEveryMs, { signal: pause })]);
    over.abort();
  }
}

/** One report; rejects as `Uplink.report`. */
export async function reportOnce({
  uplink,
  signal,
  onReported,
  ...options
}: Omit<ReportingOptions, "changed" | "onFailure">): Promise<void> {
  onReported(await uplink.report(reportOf(options), { signal }));
}

export function reportOf({
  outbox,
  inbox,
  clock,
  alarms,
}: Pick<ReportingOptions, "outbox" | "inbox" | "clock" | "alarms">): StoreReport {
  const { pending, parked, oldestUnacked } = outbox.unsettled();
  const parkedCommands = inbox.lastParked(maxParkedCommands);
  return {
    ...inbox.progress(),
    ...{ pending, parked, oldestUnacked },
    commandsParked: inbox.counts().parked,
    parkedCommands: parkedCommands.map(({ commandId, reason }) => ({ commandId, reason })),
    bytes: outbox.bytes(),
    alarms: alarms(),
    sentAt: clock.now(),
  };
}
