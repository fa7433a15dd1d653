/** A store's bridge in this process: its buffer, its links to a real cloud, and what it tells. */

import type { Address } from "../../src/address.ts";
import { Bridge, type BridgeNews, type BridgeOptions } from "../../src/bridge/bridge.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { systemClock } from "../../src/clock.ts";
import { uplinkTo } from "../../src/commands/store-sync/uplink.ts";
import { inMemory } from "../../src/sqlite.ts";

export interface ShopBridge extends AsyncDisposable {
  readonly bridge: Bridge;
  readonly outbox: Outbox;
  readonly inbox: Inbox;
  readonly news: readonly BridgeNews[];
  /** Resolves with the first news, past or future, for which this holds. */
  told(is: (news: BridgeNews) => boolean): Promise<BridgeNews>;
  stop(graceMs?: number): Promise<void>;
}

export function shopBridge(
  to: Address,
  { storeId = "store-01", ...options }: { storeId?: string } & Partial<BridgeOptions> = {},
): ShopBridge {
  const clock = systemClock;
  const now = () => clock.now();
  const outbox = new Outbox({ path: inMemory, storeId, now });
  const inbox = new Inbox(outbox.database, { now });
  const uplink = { storeId, epoch: () => outbox.epoch(), clock };
  const events = uplinkTo(to, uplink);
  const control = uplinkTo(to, uplink);
  const news: BridgeNews[] = [];
  const waiting = new Set<() => void>();
  const bridge = new Bridge({
    ...{ outbox, inbox, events, control, clock, random: () => 0.01, maxAttempts: 5 },
    keepMs: 3_600_000,
    alarms: () => [],
    tell(one) {
      news.push(one);
      for (const look of [...waiting]) {
        look();
      }
    },
    ...options,
  });
  let stopped: Promise<void> | undefined;
  const stop = (graceMs = 0) => {
    stopped ??= bridge.stop({ graceMs, force: new AbortController().signal });
    return stopped;
  };
  return {
    ...{ bridge, outbox, inbox, news, stop },
    told: (is) =>
      new Promise((resolve) => {
        const look = () => {
          const found = news.find(is);
          if (found !== undefined) {
            waiting.delete(look);
            resolve(found);
          }
        };
        waiting.add(look);
        look();
      }),
    async [Symbol.asyncDispose]() {
      await stop();
      events.close();
      control.close();
      outbox.close();
    },
  };
}

export const isLinked = (news: BridgeNews) => news.kind === "link" && news.state.kind === "live";
