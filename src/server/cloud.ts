/**
 * The cloud's ledger and queues, as the services share them. Opened by the first call that needs
 * them, so that a server that is used for the lessons alone touches no disk.
 */

import { Bell } from "../bell.ts";
import { type Clock, systemClock } from "../clock.ts";
import { Dispatch } from "../engine/dispatch.ts";
import { Ledger, type OfferedEvent, type Outcome, type StatusReport } from "../engine/ledger.ts";
import { messageOf, StatusError } from "../errors.ts";
import { GroupCommit } from "../group-commit.ts";
import type { Logger } from "../log.ts";
import { inMemory } from "../sqlite.ts";

export interface CloudOptions {
  /** The ledger's folder; `:memory:` for one that is to be forgotten. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What became of an event; `not stored` where the disk takes nothing, which is no event's fault. */
export type Taken = Outcome | { readonly kind: "not stored" };

export interface OpenCloud {
  readonly ledger: Ledger;
  readonly dispatch: Dispatch;
  /**
   * Takes an event together with those of all other streams: one fsync for many. Does not reject.
   */
  readonly commits: GroupCommit<OfferedEvent, Taken>;
  /**
   * Keeps a store's report together with those of others, and returns its clock minus ours. Rejects
   * as `know`.
   */
  readonly report: (report: Omit<StatusReport, "cameAt">) => Promise<number>;
  /**
   * Makes a store known together with others. Rejects with RESOURCE_EXHAUSTED for a new store that
   * cannot come now, and with what the disk throws.
   */
  readonly know: (storeId: string) => Promise<void>;
  /** Commits what still waits. */
  readonly flush: () => void;
  /** Rings when the ledger has taken something. */
  readonly taken: Bell;
}

/**
 * How long reports wait for those of other stores where they come in numbers, in milliseconds: nobody
 * is in a hurry for them, and 3,000 stores would else cost 300 fsyncs a second.
 */
const reportsLingerMs = 100;

/**
 * How long the ledger's batches wait for events of other streams, in milliseconds. Stores send ahead of
 * the answers, so what counts here is events per second and not the time until a single answer: without
 * the wait a commit had 7 events, and a stream reached half of the speed that it has when nothing is
 * stored. With a longer wait, a stream's window is full before the batch is committed.
 */
const eventsLingerMs = 4;

/**
 * The most payload of one commit, in characters, but for the last event. To write megabytes takes SQLite
 * some milliseconds each, in which nobody is served.
 */
const maxCommitSize = 4 * 1024 * 1024;

export class Cloud {
  /** Rejects when the ledger's file was removed, replaced or emptied: nothing can be stored in it any more. */
  readonly failed: Promise<never>;
  readonly #fail: (error: unknown) => void;
  readonly #options: CloudOptions;
  #open: OpenCloud | undefined;

  constructor(options: CloudOptions) {
    const { promise, reject } = Promise.withResolvers<never>();
    this.failed = promise;
    // Those who do not wait for it learn of it from the calls that fail.
    promise.catch(() => {});
    this.#fail = reject;
    this.#options = options;
  }

  /** Throws `StatusError` if it cannot be opened. */
  open(): OpenCloud {
    if (this.#open === undefined) {
      const { folder, clock, log } = this.#options;
      const now = () => clock.now();
      const ledger = new Ledger({ folder, now });
      const { lost } = ledger.database;
      lost.addEventListener("abort", () => this.#fail(lost.reason), { once: true });
      const taken = new Bell();
      const newcomers = new GroupCommit({
        // It waits for turns of the event loop, which go on when a test holds the services' clock still.
        clock: systemClock,
        commit: (storeIds: readonly string[]) => ledger.know(storeIds),
      });
      const reports = new GroupCommit({
        clock,
        commit: (batch: readonly StatusReport[]) => ledger.report(batch),
        lingerMs: reportsLingerMs,
      });
      const commits = new GroupCommit({
        clock,
        lingerMs: eventsLingerMs,
        sizeOf: ({ payload }: OfferedEvent) => payload.length,
        maxSize: maxCommitSize,
        commit(events: readonly OfferedEvent[]): readonly Taken[] {
          try {
            const outcomes = ledger.take(events);
            taken.ring();
            return outcomes;
          } catch (error) {
            if (!lost.aborted) {
              log.error("the ledger takes nothing", { why: messageOf(error) });
            }
            return events.map(() => ({ kind: "not stored" }));
          }
        },
      });
      this.#open = {
        ledger,
        dispatch: new Dispatch(ledger.database, {
          ...{ ledgerId: ledger.id, now },
          insistOnRoom: () => ledger.insistOnRoom(),
        }),
        commits,
        async report(report) {
          const result = await reports.add({ ...report, cameAt: now() });
          if (typeof result !== "number") {
            throw new StatusError("RESOURCE_EXHAUSTED", result.reason);
          }
          return result;
        },
        async know(storeId) {
          const reason = ledger.isKnown(storeId) ? undefined : await newcomers.add(storeId);
          if (reason !== undefined) {
            throw new StatusError("RESOURCE_EXHAUSTED", reason);
          }
        },
        flush() {
          commits.flush();
          reports.flush();
          newcomers.flush();
        },
        taken,
      };
      log.info("ledger opened", {
        folder: folder === inMemory ? "in memory, forgotten at the end" : folder,
        ledger: ledger.id,
        events: ledger.size(),
      });
      if (ledger.isDiskFull) {
        log.warn(
          "the ledger's disk is full: what is there can be read, and no event can be stored",
          {
            hint: "make room; the stores keep their events and send them again",
          },
        );
      }
    }
    return this.#open;
  }

  /** For a call: what is wrong here is for our log, and the store tries again later. */
  forCall(): OpenCloud {
    try {
      return this.open();
    } catch (error) {
      this.#options.log.error("the ledger cannot be opened", {
        why: messageOf(error),
        hint: error instanceof StatusError ? error.hint : undefined,
      });
      throw new StatusError(
        "UNAVAILABLE",
        "the ledger cannot be opened; the server's log says why",
      );
    }
  }

  close(): void {
    this.#open?.flush();
    this.#open?.ledger.close();
    this.#open = undefined;
  }
}
