/**
 * Receives the cloud's commands, each once, for as long as it is wanted: the server stream of the
 * bridge. After a lost connection the stream goes on behind the last command that is on our disk.
 */

import type { Bell } from "../bell.ts";
import type { Clock, Random } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { type Command, type Inbox, type Received, withinBounds } from "./inbox.ts";
import { keepLinked, type LinkState } from "./link.ts";
import type { Question, Uplink } from "./uplink.ts";

export interface WatchOptions {
  readonly inbox: Inbox;
  readonly uplink: Uplink;
  readonly clock: Clock;
  readonly random: Random;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly onState: (state: LinkState) => void;
  /** As in `LinkOptions`. */
  readonly hurry?: Bell | undefined;
  /** Commands wait on the disk for `Inbox.next` instead of being applied as they come. */
  readonly appliesLater?: boolean;
  /** Is told what the cloud wants to know of the events here; without it, it does not ask. */
  readonly onQuestion?: (question: Question) => void;
  /**
   * Is told of each command, as it was kept, when it is on the disk; one that had come before is
   * `known`.
   */
  readonly onCommand: (command: Command, received: Received) => Promise<void>;
}

/** Throws as `keepLinked`; it has no other end. */
export async function watch(options: WatchOptions): Promise<never> {
  const { inbox, uplink, signal, appliesLater = false, onState, onCommand, onQuestion } = options;
  await keepLinked({
    ...options,
    connect: (call) => uplink.connect(call),
    async session({ progressed }) {
      let ledgerId = "";
      const commands = uplink.watch(inbox.lastCursor(), {
        signal,
        onQuestion,
        onLedger: (ledger) => {
          ledgerId = ledger.ledgerId;
          // The cloud has taken the call, but to be asked for nothing is no answer.
          onState({ kind: "live" });
        },
      });
      for await (const command of commands) {
        const received = inbox.receive(command, ledgerId, { appliesLater });
        if (received.kind !== "known") {
          progressed();
        }
        await onCommand(withinBounds(command), received);
      }
      throw new StatusError("UNAVAILABLE", "the cloud ended the stream of commands");
    },
  });
  throw new Error("a watch has no end of its own");
}
