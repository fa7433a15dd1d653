/** `brewctl store-sync compact`: the room of what was removed goes back to the disk. */

import { Command } from "commander";
import { formatBytes } from "../../bytes.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { becomeDrainer, type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";

export const command = withLocalFlags(
  new Command("compact").description("give the room of removed events back to the disk"),
);

export const examples = `\
  brewctl store-sync compact
  brewctl store-sync prune --older-than 24h && brewctl store-sync compact`;

export const notes = `\
The file is written again, which for a while takes the room of what is in it, and twice that above
64 MiB; if the disk has less, it says so before it begins. Nothing may drain meanwhile, and who records waits: some seconds
for a gigabyte on a fast disk.`;

export async function run(flags: LocalFlags, context: CommandContext): Promise<Exit> {
  const { terminal } = context;
  const outbox = openBuffer(flags, context);
  const lock = becomeDrainer(outbox);
  const progress = terminal.progress("compacting");
  try {
    const { before, after, isDone } = outbox.compact();
    progress.stop();
    if (!isDone) {
      terminal.complain("another process still reads; the room is given back when it has finished");
    }
    await terminal.print(
      flags.output === "ndjson"
        ? JSON.stringify({ before, after })
        : `compacted ${outbox.path}: ${formatBytes(before)} before, ${formatBytes(after)} after`,
    );
    return 0;
  } finally {
    progress.stop();
    lock.release();
    outbox.close();
  }
}
