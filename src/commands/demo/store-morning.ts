/**
 * A store's morning: sales are recorded without a network, flushed when it comes, then go up live;
 * head office sends a command; in the middle the cloud is gone for a while. Each step is what the
 * command beside it would do; only the pauses are ours.
 */

import type { Address } from "../../address.ts";
import { Outbox } from "../../bridge/outbox.ts";
import { StatusError } from "../../errors.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { run as command } from "../head-office/command.ts";
import { run as channel } from "../store-sync/channel.ts";
import { run as flush } from "../store-sync/flush.ts";
import { run as record } from "../store-sync/record.ts";
import { run as status } from "../store-sync/status.ts";
import { run as watch } from "../store-sync/watch.ts";

export interface MorningOptions {
  /** The store's buffer is made here. */
  readonly folder: string;
  /** The cloud, which comes and goes; `start` returns where it is. */
  readonly cloud: { start(): Promise<Address>; stop(): Promise<void> };
  readonly context: CommandContext;
}

const store = "store-01";

/** Between two sales, in milliseconds: slow enough to watch. */
const pauseMs = 300;

/** How long the cloud is away, in milliseconds. */
const outageMs = 1_200;

/** By then the link has come back by itself, in milliseconds. */
const patienceMs = 40_000;

export async function storeMorning(options: MorningOptions): Promise<Exit> {
  const { folder, cloud, context } = options;
  const { terminal, clock } = context;
  const { bold, dim } = terminal.err;
  const buffer = `${folder}/buffer.db`;
  const local = { store, buffer, output: "text" } as const;
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, context.interrupted, terminal.outputLost]);
  const inBackground = { ...context, interrupted: signal };
  let sales = 0;

  const step = (what: string, line: string) =>
    terminal.say(`\n   ${bold(what)}\n${dim(`   ${line}`)}`);
  const sell = async (count: number) => {
    for (let i = 0; i < count; i += 1) {
      sales += 1;
      const total = 100 + sales * 33;
      const payload = JSON.stringify({ receipt: sales, total });
      await record({ ...local, type: "Sale", eventId: `sale-${sales}`, payload }, context);
      await clock.sleep(pauseMs, { signal });
    }
  };

  step(
    "Opening time, and no network. A sale is safe when it is on this disk.",
    "$ brewctl store-sync record --type Sale ...",
  );
  await sell(3);
  step(
    "The network is there: the backlog goes up, and gets one summary.",
    "$ brewctl store-sync flush",
  );
  const flags = { ...local, addr: await cloud.start() };
  await flush(flags, context);

  step("Live: each sale goes up at once, and each gets an answer.", "$ brewctl store-sync channel");
  const links = [
    channel({ ...flags, untilDrained: false }, inBackground),
    watch({ ...flags, limit: 1 }, inBackground),
  ];
  const outbox = new Outbox({ path: buffer, now: () => clock.now() });
  const drained = async () => {
    const giveUpAt = clock.monotonic() + patienceMs;
    while (!outbox.isDrained()) {
      if (clock.monotonic() > giveUpAt) {
        throw new StatusError("DEADLINE_EXCEEDED", "the events did not reach the cloud");
      }
      await clock.sleep(50, { signal });
    }
  };
  try {
    await sell(2);
    await drained();
    step(
      "Head office speaks, and the store listens.",
      `$ brewctl head-office command --store ${store} --type PriceUpdate ...`,
    );
    const payload = JSON.stringify({ sku: "ITEM-42", newPrice: 299 });
    await command(
      { ...flags, store: [store], type: "PriceUpdate", payload, id: "cmd-101" },
      context,
    );
    await links[1];

    step(
      "The cloud is gone. The tills do not notice.",
      "$ brewctl store-sync record --type Sale ...",
    );
    await cloud.stop();
    await sell(2);
    await clock.sleep(outageMs, { signal });
    step(
      "It is back. The channel finds it, and sends what has no answer yet.",
      "(nothing to type)",
    );
    await cloud.start();
    await drained();
    await clock.sleep(pauseMs, { signal });
  } finally {
    outbox.close();
    over.abort(new Stop("the morning is over"));
    await Promise.allSettled(links);
  }
  step("Not a sale was lost, and none was counted twice.", "$ brewctl store-sync status");
  return await status(local, context);
}
