/**
 * `brewctl store-sync verify`: whether the buffer is as it should be, down to each row.
 *
 * room: bridge/verify.ts
 */

import { existsSync } from "node:fs";
import { Command } from "commander";
import { tellHandedOver } from "../../bridge/hand-over-mark.ts";
import { type Verdict, verify } from "../../bridge/verify.ts";
import { StatusError, statusCodes } from "../../errors.ts";
import { plain } from "../../plain.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type LocalFlags, noBuffer, placeOf, withLocalFlags } from "./buffer.ts";

export const command = withLocalFlags(
  new Command("verify").description("read all of the buffer and say what is wrong with it"),
);

export const examples = `\
  brewctl store-sync verify
  brewctl store-sync verify -o ndjson | jq -r '.findings[]'
  brewctl store-sync verify -q || echo "look at it"`;

export const notes = `\
Checked are the pages of the file, whether the numbers of the current epoch are without a gap,
whether each event and command can be read and makes sense, and whether a salvage has lost events that
nobody has acknowledged (brewctl store-sync acknowledge). Nothing is changed in the file, and others
may use it meanwhile. Exit 79 if anything is wrong; pending and parked events are not.
What is damaged is set aside, and what can be read goes on, when any other command opens it next.`;

/** DATA_LOSS, as for a call. */
const wrongExit = 64 + statusCodes.DATA_LOSS;

export async function run(flags: LocalFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, interrupted } = context;
  const { path, storeId } = placeOf(flags, terminal);
  if (!existsSync(path)) {
    throw noBuffer({ ...flags, ...(storeId === undefined ? {} : { store: storeId }) });
  }
  const progress = terminal.progress("verifying");
  let verdict: Verdict;
  try {
    verdict = await verify(path, { pause: () => clock.sleep(0, { signal: interrupted }) });
  } catch (error) {
    if (error instanceof Stop) {
      return error.exit;
    }
    throw error;
  } finally {
    progress.stop();
  }
  if (storeId !== undefined && verdict.storeId !== "" && verdict.storeId !== storeId) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${path} is the buffer of store ${plain(verdict.storeId)}, not of ${plain(storeId)}`,
      { hint: "each store has a file of its own" },
    );
  }
  const lines =
    flags.output === "ndjson" ? [json(verdict, path)] : text(verdict, path, terminal.out.red);
  for (const line of lines) {
    await terminal.print(line);
  }
  return verdict.findings.length === 0 ? 0 : wrongExit;
}

function json(verdict: Verdict, path: string): string {
  const { storeId, epoch, events, commands, pruned, findings, isMore } = verdict;
  return plain(
    JSON.stringify({
      ...{ storeId, buffer: path, epoch, ...events, pruned },
      commandsReceived: commands.received,
      commandsApplied: commands.applied,
      commandsParked: commands.parked,
      handedOver: verdict.handedOver ?? null,
      ...{ findings, isMore },
    }),
  );
}

function text(verdict: Verdict, path: string, red: (text: string) => string): string[] {
  const { storeId, epoch, events, commands, pruned, findings, isMore } = verdict;
  const gone = verdict.handedOver;
  const rows: [name: string, value: string][] = [
    ["store", plain(storeId)],
    ["buffer", path],
    ["epoch", epoch],
    ["events", `${events.pending} pending, ${events.parked} parked, ${events.acked} acked`],
    [
      "commands",
      `${commands.received} waiting, ${commands.applied} applied, ${commands.parked} parked`,
    ],
    ["pruned", `${pruned}`],
    ...(gone === undefined ? [] : [["gone", tellHandedOver(gone)] as [string, string]]),
    ...findings.map((finding): [string, string] => ["WRONG", red(plain(finding))]),
    ["verdict", verdictOf(findings.length, isMore)],
  ];
  return rows.map(([name, value]) => `${name.padEnd(9)} ${value}`);
}

function verdictOf(findings: number, isMore: boolean): string {
  if (findings === 0) {
    return "all is well";
  }
  return `${isMore ? "more than " : ""}${findings} ${findings === 1 ? "thing is" : "things are"} wrong`;
}
