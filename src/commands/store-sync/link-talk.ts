/** What is said of the link to the cloud, and the flags of who uses it. */

import type { Command } from "commander";
import type { LinkState } from "../../bridge/link.ts";
import type { OnUnmarked } from "../../bridge/marks.ts";
import type { Outbox } from "../../bridge/outbox.ts";
import { formatElapsed } from "../../duration.ts";
import { beginning, plain } from "../../plain.ts";
import { maxTextLength } from "../../store-event.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, withClientFlags } from "../flags.ts";
import { type BufferFlags, withBufferFlags } from "./buffer.ts";
import { type UplinkTo, uplinkTo } from "./uplink.ts";

/** Events are still pending or parked. */
export const leftExit = 5;

export interface LinkFlags extends ClientFlags, BufferFlags {}

export function withLinkFlags(command: Command): Command {
  return withBufferFlags(withClientFlags(command));
}

export function openUplink(
  { addr }: LinkFlags,
  outbox: Outbox,
  { clock }: CommandContext,
): UplinkTo {
  return uplinkTo(addr, { storeId: outbox.storeId, epoch: () => outbox.epoch(), clock });
}

/** Says what changes: not each attempt to connect, and not the same reason at each of them. */
export function linkTalk({ terminal }: CommandContext): (state: LinkState) => void {
  let isOffline = false;
  let said = "";
  return (state) => {
    if (state.kind === "offline") {
      isOffline = true;
      const { why, attempt, waitMs } = state;
      const what =
        why === said ? "still offline" : `offline: ${plain(beginning(why, maxTextLength))}`;
      said = why;
      terminal.say(`${what}; attempt ${attempt} to reconnect in ${formatElapsed(waitMs)}`);
    } else if (isOffline && (state.kind === "recovered" || state.kind === "live")) {
      isOffline = false;
      said = "";
      terminal.say("connected again");
    }
  };
}

/** Says that the buffer takes no marks; events go on to the cloud meanwhile. */
export function unmarkedTalk({ terminal }: CommandContext): OnUnmarked {
  return ({ message }, waitMs) =>
    terminal.complain(
      `brewctl: what the cloud has acknowledged cannot be noted: ${plain(message)}; trying again in ${formatElapsed(waitMs)}`,
    );
}

/** `3 pending, 1 parked`, of what is left, and what can be done; empty if nothing is. */
export function describeLeft(outbox: Outbox): string {
  const { pending, parked } = outbox.counts();
  const look = "see: brewctl store-sync events --state parked, and help store-sync retry";
  return [pending > 0 ? `${pending} pending` : "", parked > 0 ? `${parked} parked (${look})` : ""]
    .filter(Boolean)
    .join(", ");
}
