/**
 * `brewctl head-office reconcile`: do the ledger and a store have the same events? Both sides sum up
 * their events by day and type; where the sums differ, the events are named. The cloud asks the store,
 * which must be connected, or its buffer is at hand as a file.
 *
 * rpc: sync.v1.HeadOffice/Digest (proto/sync/v1/head_office.proto)
 * handler: server/digest.ts, which asks bridge/digesting.ts
 * decision: docs/decisions/reconcile.md
 */

import { statSync } from "node:fs";
import { Command, InvalidArgumentError } from "commander";
import { digestsOf } from "../../bridge/digesting.ts";
import type { Outbox } from "../../bridge/outbox.ts";
import { messageOf, StatusError, UsageError } from "../../errors.ts";
import { dayOf } from "../../event-digest.ts";
import { DigestSide, type HeadOffice } from "../../gen/sync/v1/head_office_pb.ts";
import type { CallOptions, Client } from "../../grpc/dial.ts";
import { plain } from "../../plain.ts";
import { isTaken, replaceFile } from "../../private-file.ts";
import type { Exit } from "../../shutdown.ts";
import { version } from "../../version.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, filePath, nonEmpty, withClientFlags } from "../flags.ts";
import { openBuffer } from "../store-sync/buffer.ts";
import { leftExit } from "../store-sync/link-talk.ts";
import { ask } from "./ask.ts";
import { type Cell, type Compared, compare, type Entry, type Side } from "./comparing.ts";

export interface ReconcileFlags extends ClientFlags {
  readonly store: string;
  readonly from?: string;
  readonly to?: string;
  readonly type?: string;
  readonly buffer?: string;
  readonly receipt?: string;
  readonly force?: boolean;
}

export const command = withClientFlags(
  new Command("reconcile")
    .description("compare the ledger with a store, by day and type, and name what differs")
    .requiredOption("--store <id>", "the store", nonEmpty)
    .option(
      "--from <day>",
      "the first day, in UTC, such as 2026-01-02 (default: six days before --to)",
      day,
    )
    .option("--to <day>", "the last day (default: today)", day)
    .option("--type <type>", "only events of this type")
    .option(
      "--buffer <file>",
      "the store's buffer, if it is at hand: the store is not asked",
      filePath,
    )
    .option("--receipt <file>", "keep the result as a file, to be filed", filePath)
    .option("--force", "write over the file of --receipt"),
);

export const examples = `\
  brewctl head-office reconcile --store store-01
  brewctl head-office reconcile --store store-01 --from 2026-01-01 --to 2026-01-31 --receipt january.json
  brewctl head-office reconcile --store store-01 --buffer /mnt/old-disk/buffer.db
  brewctl head-office reconcile --store store-01 -o ndjson | jq -c 'select(.differences != [])'`;

export const notes = `\
An event belongs to the day of its own timestamp, in UTC. The exit code is 0 if both sides have the
same events and 5 if not: events that are still pending at the store are not in the ledger yet. A
store keeps acknowledged events for a week; of older ones it knows counts and sums, so a
difference among them shows, but cannot be named.
If a salvage at the store has lost events, the rest is not certified and the exit code is 5 until
somebody there acknowledges it: brewctl store-sync acknowledge.`;

/** Named in text; the receipt and ndjson have them all. */
const maxNamed = 20;

const dayMs = 86_400_000;

export async function run(flags: ReconcileFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock } = context;
  const { to = dayOf(clock.now()), type = "", store: storeId } = flags;
  const losses: string[] = [];
  const onLoss = (what: string) => {
    losses.push(what);
  };
  const { from = dayOf(Math.max(0, Date.parse(to) - 6 * dayMs)) } = flags;
  if (from > to) {
    throw new UsageError(`--from ${from} is after --to ${to}`);
  }
  const range = { fromDay: from, toDay: to, type };
  checkReceipt(flags);
  const outbox = flags.buffer === undefined ? undefined : openBuffer(flags, context);
  try {
    return await ask(flags, context, async (client, call) => {
      const ledger = sideOf(client, call, { storeId, side: DigestSide.LEDGER, range, onLoss });
      const store =
        outbox === undefined
          ? sideOf(client, call, { storeId, side: DigestSide.STORE, range, onLoss })
          : sideOfBuffer(outbox, { range, onLoss, clock, signal: call.signal });
      const compared: Compared[] = [];
      for await (const cell of withHint(compare(ledger, store))) {
        compared.push(cell);
        for (const line of flags.output === "ndjson"
          ? [JSON.stringify(onPaper(cell))]
          : text(cell)) {
          await terminal.print(plain(line));
        }
      }
      const verdict = verdictOf(compared, losses);
      const asked = { storeId, from, to, ...(type === "" ? {} : { type }) };
      const receipt = {
        ...{ kind: "brewctl reconciliation", format: 1, brewctl: version },
        madeAt: new Date(clock.now()).toISOString(),
        ...{ ...asked, verdict: verdict.words, same: verdict.isSame },
        ...{ ledgerEvents: verdict.ledger, storeEvents: verdict.store, losses },
      };
      if (flags.receipt !== undefined) {
        file(flags.receipt, flags, { ...receipt, cells: compared.map(onPaper) });
        terminal.say(`receipt: ${flags.receipt}`);
      }
      const words = `${storeId}, ${from} to ${to}: ${verdict.words}`;
      const { green, red } = terminal.out;
      await terminal.print(
        flags.output === "ndjson"
          ? plain(JSON.stringify(receipt))
          : (verdict.isSame ? green : red)(plain(words)),
      );
      return verdict.isSame ? 0 : leftExit;
    });
  } finally {
    outbox?.close();
  }
}

interface Asked {
  readonly storeId: string;
  readonly side: DigestSide;
  readonly range: { readonly fromDay: string; readonly toDay: string; readonly type: string };
  /** Is told of each loss of the store's buffer that nobody has acknowledged. */
  readonly onLoss: (what: string) => void;
}

function sideOf(client: Client<typeof HeadOffice>, call: CallOptions, asked: Asked): Side {
  const { storeId, side, range, onLoss } = asked;
  return {
    async *cells(): AsyncGenerator<Cell, void> {
      for await (const { part } of client.digest({ storeId, side, range }, call)) {
        if (part.case === "cell") {
          const { day, type, digest, count, pruned } = part.value;
          yield { day, type, digest, count: Number(count), pruned: Number(pruned) };
        } else if (part.case === "loss") {
          onLoss(part.value);
        }
      }
    },
    async *entries({ day, type }): AsyncGenerator<Entry, void> {
      const events = { fromDay: day, toDay: day, type, withEvents: true };
      for await (const { part } of client.digest({ storeId, side, range: events }, call)) {
        if (part.case === "event") {
          yield part.value;
        }
      }
    },
  };
}

function sideOfBuffer(
  outbox: Outbox,
  {
    range,
    onLoss,
    ...options
  }: Pick<Asked, "range" | "onLoss"> & Omit<Parameters<typeof digestsOf>[1], "outbox">,
): Side {
  return {
    async *cells() {
      for await (const part of digestsOf({ ...range, withEvents: false }, { outbox, ...options })) {
        if (part.kind === "cell") {
          yield { ...part.cell, pruned: part.pruned };
        } else if (part.kind === "loss") {
          onLoss(part.what);
        }
      }
    },
    async *entries({ day, type }) {
      const events = { fromDay: day, toDay: day, type, withEvents: true };
      for await (const part of digestsOf(events, { outbox, ...options })) {
        if (part.kind === "event") {
          yield part;
        }
      }
    },
  };
}

/** A store that cannot be asked now has a way out. */
async function* withHint<T>(compared: AsyncIterable<T>): AsyncGenerator<T, void> {
  try {
    yield* compared;
  } catch (error) {
    if (error instanceof StatusError && error.code === "FAILED_PRECONDITION") {
      throw new StatusError(error.code, error.message, {
        hint: "ask again when it is connected, or give its buffer with --buffer FILE",
        cause: error,
      });
    }
    throw error;
  }
}

function text({ day, type, ledger, store, differences, unnamed }: Compared): string[] {
  const isSame = differences.length + unnamed === 0;
  const counts = `${day} [${type}] ledger ${ledger.count}, store ${store.count}`;
  return [
    `${counts}${isSame ? ": the same" : ""}`,
    ...differences
      .slice(0, maxNamed)
      .map(({ eventId, what, state }) => `  ${eventId}: ${what}${state && `, ${state} there`}`),
    ...(differences.length > maxNamed ? [`  … and ${differences.length - maxNamed} more`] : []),
    ...(unnamed > 0
      ? [`  up to ${unnamed} events that the store has removed cannot be compared`]
      : []),
  ];
}

function onPaper({ day, type, ledger, store, same, differences, unnamed }: Compared) {
  const hex = ({ digest }: Cell) => Buffer.from(digest).toString("hex");
  return {
    ...{ day, type, same, differences, unnamed },
    ledger: { count: ledger.count, digest: hex(ledger) },
    store: { count: store.count, digest: hex(store), pruned: store.pruned },
  };
}

function verdictOf(compared: readonly Compared[], losses: readonly string[]) {
  const sum = (of: (cell: Compared) => number) =>
    compared.reduce((total, cell) => total + of(cell), 0);
  const [ledger, store, same] = [
    sum((c) => c.ledger.count),
    sum((c) => c.store.count),
    sum((c) => c.same),
  ];
  const all = compared.flatMap(({ differences }) => differences);
  const unnamed = sum((c) => c.unnamed);
  const count = (what: string, state?: string) =>
    all.filter((one) => one.what === what && (state === undefined || one.state === state)).length;
  const parts: [number, string][] = [
    [count("at the store only", "pending"), "still pending at the store"],
    [count("at the store only", "parked"), "parked at the store"],
    [count("at the store only", "acked"), "acknowledged, and not in the ledger"],
    [count("in the ledger only"), "in the ledger only"],
    [count("another content"), "with another content"],
    [unnamed, "that the store has removed cannot be compared"],
  ];
  const wrong = parts.filter(([n]) => n > 0).map(([n, what]) => `${n} ${what}`);
  // Between the two questions the rest may have gone up: then the second one found no difference.
  const isEqual = wrong.length === 0;
  const total = Math.max(ledger, store, same);
  const some = `${same} of ${total} are the same; ${wrong.join(", ")}`;
  const counted =
    total === 0 ? "no events on either side" : isEqual ? `all ${total} of ${total}` : some;
  // What the store has lost is on neither side, if the cloud never got it.
  const words = [counted, ...losses.map((loss) => `at the store ${loss}`)].join("; ");
  return { isSame: isEqual && losses.length === 0, ledger, store, words };
}

/** A pipe that nobody reads would hold us up for ever, after all the work. */
function checkReceipt({ receipt: path, force = false }: ReconcileFlags): void {
  if (path === undefined) {
    if (force) {
      throw new UsageError("--force goes with a file: --receipt january.json --force");
    }
    return;
  }
  const there = statSync(path, { throwIfNoEntry: false });
  if (there !== undefined && !there.isFile()) {
    throw new UsageError(`--receipt ${path}: expected the name of a file`);
  }
  if (!force && isTaken(path)) {
    throw new UsageError(`--receipt ${path}: there is a file already`, {
      hint: "a receipt is kept as it is; choose another name, or write over it with --force",
    });
  }
}

function file(path: string, { force = false }: ReconcileFlags, receipt: object): void {
  try {
    // It names events, so it is for its owner alone.
    replaceFile(path, `${JSON.stringify(receipt, null, 2)}\n`, { overwrites: force });
  } catch (error) {
    throw new UsageError(`--receipt ${path}: ${messageOf(error)}`);
  }
}

function day(text: string): string {
  const ms = /^\d{4}-\d\d-\d\d$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : Number.NaN;
  if (Number.isNaN(ms) || dayOf(ms) !== text) {
    throw new InvalidArgumentError("expected a day such as 2026-01-02");
  }
  return text;
}
