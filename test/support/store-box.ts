/** A store's box in this process: its buffer on a real disk, and its wire to a real cloud. */

import type { Address } from "../../src/address.ts";
import { type ChannelOptions, channel } from "../../src/bridge/channel.ts";
import { type FlushOptions, flush } from "../../src/bridge/flush.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import type { LinkState } from "../../src/bridge/link.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import type { Answer, Summary } from "../../src/bridge/uplink.ts";
import { type WatchOptions, watch } from "../../src/bridge/watch.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { uplinkTo } from "../../src/commands/store-sync/uplink.ts";
import { eventOf } from "./oracle.ts";

export interface BoxOptions {
  /** Of the buffer. */
  readonly path: string;
  readonly storeId?: string;
  readonly clock?: Clock;
}

/** What a drain has told so far. */
export interface Told {
  readonly states: LinkState[];
  readonly answers: Answer[];
  readonly summaries: Summary[];
  readonly alarms: string[];
  /** Resolves when `is` holds; it is asked whenever something was told. */
  until(is: (told: Told) => boolean): Promise<void>;
}

export interface Drain extends AsyncDisposable {
  readonly told: Told;
  readonly done: Promise<void>;
  /** Ends it as Ctrl+C does, and waits for that. */
  stop(): Promise<void>;
}

export interface Box extends Disposable {
  readonly outbox: Outbox;
  readonly inbox: Inbox;
  /** As a till does. A running channel looks for what others record: give the till a box of its own. */
  record(ids: readonly string[]): ReturnType<Outbox["append"]>;
  flush(to: Address, options?: Partial<FlushOptions>): Drain;
  channel(to: Address, options?: Partial<ChannelOptions>): Drain;
  watch(to: Address, onCommand: WatchOptions["onCommand"]): Drain;
}

export function openBox({ path, storeId = "store-01", clock = systemClock }: BoxOptions): Box {
  const outbox = new Outbox({ path, storeId, now: () => clock.now() });
  const inbox = new Inbox(outbox.database, { now: () => clock.now() });
  let isOpen = true;

  function run(
    to: Address,
    start: (parts: {
      readonly uplink: ReturnType<typeof uplinkTo>;
      readonly signal: AbortSignal;
      readonly stop: AbortSignal;
      readonly tell: <T>(list: (told: Told) => T[]) => (what: T) => void;
    }) => Promise<unknown>,
  ): Drain {
    const over = new AbortController();
    const stop = new AbortController();
    const waiting = new Set<() => void>();
    const told: Told = {
      ...{ states: [], answers: [], summaries: [], alarms: [] },
      until: (is) =>
        new Promise((resolve) => {
          const look = () => {
            if (is(told)) {
              waiting.delete(look);
              resolve();
            }
          };
          waiting.add(look);
          look();
        }),
    };
    const tell =
      <T>(list: (told: Told) => T[]) =>
      (what: T) => {
        list(told).push(what);
        for (const look of [...waiting]) {
          look();
        }
      };
    // The deadlines of its calls are the wire's, whatever the store's own clock says.
    const uplink = uplinkTo(to, {
      storeId: outbox.storeId,
      epoch: () => outbox.epoch(),
      clock: systemClock,
    });
    const done = start({ uplink, signal: over.signal, stop: stop.signal, tell }).then(() => {});
    // Whoever stops it is not interested in its end.
    done.catch(() => {});
    return {
      told,
      done,
      async stop() {
        stop.abort(new Error("stopped by the test"));
        await done;
      },
      async [Symbol.asyncDispose]() {
        over.abort(new Error("the test is over"));
        await done.catch(() => {});
        uplink.close();
      },
    };
  }

  // Soon, so that a test does not wait for its own backoff.
  const soon = () => 0.005;

  return {
    outbox,
    inbox,
    record: (ids) => outbox.append(ids.map(eventOf)),
    flush: (to, options = {}) =>
      run(to, ({ uplink, signal, tell }) =>
        flush({
          ...{ outbox, uplink, clock, random: soon, signal },
          onState: tell(({ states }) => states),
          onSending: () => undefined,
          onSummary: tell(({ summaries }) => summaries),
          onAlarm: tell(({ alarms }) => alarms),
          ...options,
        }),
      ),
    channel: (to, options = {}) =>
      run(to, ({ uplink, signal, stop, tell }) =>
        channel({
          ...{ outbox, uplink, clock, random: soon, signal, stop, untilDrained: false },
          onState: tell(({ states }) => states),
          onAnswer: tell(({ answers }) => answers),
          onAlarm: tell(({ alarms }) => alarms),
          ...options,
        }),
      ),
    watch: (to, onCommand) =>
      run(to, ({ uplink, signal, tell }) =>
        watch({
          ...{ inbox, uplink, clock, random: soon, signal, onCommand },
          onState: tell(({ states }) => states),
        }),
      ),
    [Symbol.dispose]() {
      if (isOpen) {
        isOpen = false;
        outbox.close();
      }
    },
  };
}

export const isOffline = ({ states }: Told) => states.some(({ kind }) => kind === "offline");
export const isLive = ({ states }: Told) => states.at(-1)?.kind === "live";
