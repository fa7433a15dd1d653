/**
 * `brewctl head-office stores`: what the cloud knows of each store: whether it is there, what waits
 * in its buffer, and what a person should look at.
 *
 * rpc: sync.v1.HeadOffice/ListStores (proto/sync/v1/head_office.proto)
 * handler: `listStores` in server/head-office.ts
 */

import { Command } from "commander";
import { UsageError } from "../../errors.ts";
import { HeadOffice, ListStoresResponseSchema } from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import { headOfficeAnswers } from "../answer-bounds.ts";
import { type CommandContext, makeClientCall } from "../client-call.ts";
import { type ClientFlags, withClientFlags } from "../flags.ts";
import { ndjson, printable } from "../output.ts";
import { type ConnectionNews, describeNews, reconnecting } from "../reconnecting.ts";
import type { Canvas } from "../terminal.ts";
import { ask } from "./ask.ts";
import { storeFlag } from "./store-flag.ts";
import { cut, describeStore, drawStores, type SeenStore, troublesOf } from "./store-table.ts";

export interface StoresFlags extends ClientFlags {
  readonly store?: readonly string[];
  readonly watch?: boolean;
  readonly check?: boolean;
}

/** --check found something. The same as for a store's own buffer. */
const troubleExit = 5;

export const command = withClientFlags(
  new Command("stores")
    .description("what the cloud knows of each store")
    .addOption(storeFlag("only this store; may be given several times"))
    .option("--watch", "go on: a table that changes on a terminal, else a line a change")
    .option(
      "--check",
      "exit 5 if a store is dark, or has new gaps, open conflicts, alarms or anything parked",
    ),
);

export const examples = `\
  brewctl head-office stores
  brewctl head-office stores --watch               until Ctrl+C, also if the server restarts
  brewctl head-office stores --store store-01 -o ndjson | jq .depth
  brewctl head-office stores --check -q || echo "a store needs somebody"`;

export const notes = `\
A store is up while a stream of it is open. One that is dark keeps what it reported last, and the age
of its oldest event goes on. The worst stores come first, and why says what a person should look at.
With --check -q nothing is printed but the data of -o ndjson. Ages are by the store's own clock, whose offset the cloud knows. Commands
are counted as applied/queued.`;

export async function run(flags: StoresFlags, context: CommandContext): Promise<Exit> {
  if (flags.watch) {
    if (flags.check) {
      throw new UsageError("--check looks once, and --watch never ends; expected one of them");
    }
    return watch(flags, context);
  }
  const { terminal, clock } = context;
  return ask(flags, context, async (client, call) => {
    const stores: SeenStore[] = [];
    const troubled: string[] = [];
    for await (const state of client.listStores({ storeIds: [...(flags.store ?? [])] }, call)) {
      const troubles = troublesOf(state);
      if (flags.check && troubles.length > 0) {
        troubled.push(`${plain(state.storeId)}: ${troubles.join(", ")}`);
      }
      if (flags.output === "ndjson") {
        await terminal.print(ndjson(ListStoresResponseSchema, state));
      } else {
        stores.push({ state, cameAt: clock.monotonic() });
      }
    }
    if (flags.check && flags.quiet) {
      // For a monitor, which mails whatever is printed: the exit code says it all.
      return troubled.length > 0 ? troubleExit : 0;
    }
    if (stores.length > 0) {
      const lines = drawStores(stores, {
        ...{ columns: terminal.columns, isUnicode: terminal.isUnicode, colours: terminal.out },
        ...{ rows: Number.POSITIVE_INFINITY, now: clock.monotonic() },
      });
      for (const line of lines) {
        await terminal.print(line);
      }
    } else if (flags.output === "text") {
      terminal.say("the cloud has heard of no store yet");
    }
    for (const line of troubled) {
      terminal.say(line);
    }
    return troubled.length > 0 ? troubleExit : 0;
  });
}

function watch(flags: StoresFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random } = context;
  const storeIds = [...(flags.store ?? [])];
  let updates = 0;

  return makeClientCall({
    ...{
      service: HeadOffice,
      bounds: headOfficeAnswers,
      method: "listStores",
      flags,
      context,
      isWatchful: true,
    },
    tally: () => `got ${updates} ${updates === 1 ? "update" : "updates"}`,
    async run(call) {
      const stores = new Map<string, SeenStore>();
      let lost: ConnectionNews | undefined;
      const drawn = onceASecond((canvas) => [
        statusLine(stores, lost, canvas),
        ...drawStores(Array.from(stores.values()), {
          ...{ ...canvas, colours: terminal.err, now: clock.monotonic() },
          isOld: lost !== undefined,
          // A picture must leave a row free.
          rows: canvas.rows - 2,
        }),
      ]);
      const wantsTable = flags.output === "text" && terminal.showsData;
      const picture = wantsTable ? terminal.picture(drawn.draw, { isLive: true }) : undefined;
      try {
        const states = reconnecting({
          ...{ clock, random, deadline: call.deadline, signal: call.signal },
          reconnect: call.reconnect,
          maxAttempts: Number.POSITIVE_INFINITY,
          open: () => call.client.listStores({ storeIds, follow: true }, call),
          tell(news) {
            drawn.change();
            if (news.kind === "back") {
              // All of them come again, and those that the cloud has forgotten do not.
              stores.clear();
            }
            lost = news.kind === "lost" ? news : undefined;
            if (!picture?.isLive) {
              terminal.say(describeNews(news, "here is how it is now"));
            }
          },
        });
        for await (const state of states) {
          const seen = { state, cameAt: clock.monotonic() };
          updates += 1;
          if (picture?.isLive) {
            if (state.isForgotten && storeIds.length === 0) {
              stores.delete(state.storeId);
            } else {
              stores.set(state.storeId, seen);
            }
            drawn.change();
          } else {
            await terminal.print(lineOf(seen));
          }
        }
      } finally {
        if (picture?.isLive) {
          drawn.change();
          picture.end();
        }
      }
      return { why: "the server had no more" };
    },
  });

  function lineOf(seen: SeenStore): string {
    return flags.output === "ndjson"
      ? ndjson(ListStoresResponseSchema, seen.state)
      : printable(() => describeStore(seen));
  }

  function statusLine(
    stores: ReadonlyMap<string, SeenStore>,
    lost: ConnectionNews | undefined,
    { columns, isUnicode }: Canvas,
  ): string {
    const { yellow, dim } = terminal.err;
    if (lost !== undefined) {
      const told = `this is how it was: ${describeNews(lost, "")}`;
      return yellow(cut(told, columns, isUnicode));
    }
    const all = Array.from(stores.values());
    const dark = all.filter(({ state }) => !state.isConnected).length;
    const time = new Date(clock.now()).toTimeString().slice(0, 8);
    const known = `${all.length} ${all.length === 1 ? "store" : "stores"}, ${dark} dark`;
    return dim(cut(`${known}${isUnicode ? " ·" : ","} ${time}`, columns, isUnicode));
  }

  /** Frames come more often than anything changes in them. */
  function onceASecond(draw: (canvas: Canvas) => readonly string[]) {
    let revision = 0;
    let drawnAs = "";
    let lines: readonly string[] = [];
    return {
      change() {
        revision += 1;
      },
      draw(canvas: Canvas) {
        const second = Math.floor(clock.monotonic() / 1000);
        const as = [revision, second, canvas.columns, canvas.rows].join(" ");
        if (as !== drawnAs) {
          drawnAs = as;
          lines = draw(canvas);
        }
        return lines;
      },
    };
  }
}
