/** `brewctl head-office`: what an operator asks of the cloud, a verb a file in head-office/. */

import { Command } from "commander";
import type { CommandGroup } from "./command-module.ts";

export const command = new Command("head-office").description(
  "the cloud's side of the store bridge: how stores are, commands to them, events from them",
);

export const verbs: CommandGroup["verbs"] = {
  cancel: () => import("./head-office/cancel.ts"),
  command: () => import("./head-office/command.ts"),
  commands: () => import("./head-office/commands.ts"),
  events: () => import("./head-office/events.ts"),
  forget: () => import("./head-office/forget.ts"),
  reconcile: () => import("./head-office/reconcile.ts"),
  stores: () => import("./head-office/stores.ts"),
};

export const examples = `\
  brewctl head-office stores --watch
  brewctl head-office command --store store-01 --type PriceUpdate --payload '{"sku":"ITEM-42","newPrice":299}'
  brewctl head-office events --store store-01
  brewctl head-office events --follow -o ndjson
  brewctl head-office reconcile --store store-01   are both sides the same?`;
