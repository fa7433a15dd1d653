/** `brewctl store-sync`: a store's side of the bridge, a verb a file in store-sync/. */

import { Command } from "commander";
import type { CommandGroup } from "./command-module.ts";

export const command = new Command("store-sync").description(
  "a store's events: record them offline, bring them to the cloud, receive its commands",
);

export const verbs: CommandGroup["verbs"] = {
  run: () => import("./store-sync/run.ts"),
  record: () => import("./store-sync/record.ts"),
  flush: () => import("./store-sync/flush.ts"),
  channel: () => import("./store-sync/channel.ts"),
  watch: () => import("./store-sync/watch.ts"),
  status: () => import("./store-sync/status.ts"),
  events: () => import("./store-sync/events.ts"),
  retry: () => import("./store-sync/retry.ts"),
  replay: () => import("./store-sync/replay.ts"),
  commands: () => import("./store-sync/commands.ts"),
  prune: () => import("./store-sync/prune.ts"),
  compact: () => import("./store-sync/compact.ts"),
  verify: () => import("./store-sync/verify.ts"),
  acknowledge: () => import("./store-sync/acknowledge.ts"),
  export: () => import("./store-sync/export.ts"),
  import: () => import("./store-sync/import.ts"),
};

export const examples = `\
  brewctl store-sync record --store store-01 --type Sale --payload '{"total":299}'
  brewctl store-sync flush                         the backlog, and end (client stream)
  brewctl store-sync channel                       events up, answers down (bidirectional)
  brewctl store-sync watch                         the cloud's commands (server stream)
  brewctl store-sync status
  brewctl store-sync verify                        is the buffer whole?
  brewctl store-sync export store-01.ndjson        for another box: import`;

export const notes = `\
A store's buffer is a file: brewctl/stores/<store>/buffer.db in your state folder, or --buffer.
Any number of processes may record and look; one at a time drains (flush or channel).
More: brewctl help store-sync <verb>`;
