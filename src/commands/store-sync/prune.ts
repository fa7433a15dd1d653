/** `brewctl store-sync prune`: acknowledged events leave the buffer before their week is over. */

import { Command, Option } from "commander";
import { retentionMs } from "../../bridge/outbox.ts";
import { formatDuration } from "../../duration.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { duration } from "../flags.ts";
import { describeProgress } from "../terminal.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";

export interface PruneFlags extends LocalFlags {
  readonly olderThan: number;
}

export const command = withLocalFlags(
  new Command("prune")
    .description("remove events that the cloud acknowledged some time ago")
    .addOption(
      new Option("--older-than <duration>", "acknowledged longer ago than that; 0 is all")
        .default(retentionMs, "168h, a week")
        .argParser(duration),
    ),
);

export const examples = `\
  brewctl store-sync prune --older-than 24h
  brewctl store-sync prune --older-than 0 && brewctl store-sync compact`;

export const notes = `\
Pending and parked events always stay. What was removed cannot be sent again by replay; its numbers
and digests by type and day are kept, to be compared with the cloud's. Recording and draining go on
meanwhile. The room in the file is used again; to give it back to the disk: store-sync compact`;

/** After each step others get their turn to write. */
const pauseMs = 1;

export async function run(flags: PruneFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, interrupted } = context;
  const { output, olderThan } = flags;
  const outbox = openBuffer(flags, context);
  const startedAt = clock.monotonic();
  const progress = terminal.progress("pruning");
  let removed = 0;
  let exit: Exit = 0;
  try {
    outbox.insistOnOurs();
    for (let after = 0; ; ) {
      const step = outbox.prune({ after, keepMs: olderThan });
      if (step === undefined) {
        break;
      }
      removed += step.removed;
      after = step.next;
      progress.update(`pruned ${describeProgress(removed, clock.monotonic() - startedAt)}`);
      await clock.sleep(step.removed > 0 ? pauseMs : 0, { signal: interrupted });
    }
  } catch (error) {
    if (!(error instanceof Stop)) {
      throw error;
    }
    exit = error.exit;
  } finally {
    progress.stop();
    outbox.close();
  }
  const events = removed === 1 ? "event" : "events";
  await terminal.print(
    output === "ndjson"
      ? JSON.stringify({ removed, olderThan: formatDuration(olderThan) })
      : `removed ${removed} ${events}, acknowledged longer than ${formatDuration(olderThan)} ago`,
  );
  return exit;
}
