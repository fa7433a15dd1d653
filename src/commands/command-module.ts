/** What main.ts loads: a command, or a group of them. */

import type { Command } from "commander";
import type { Exit } from "../shutdown.ts";
import type { CommandContext } from "./client-call.ts";

/** What a file in commands/ exports. */
export interface CommandModule {
  /** Its name, flags, defaults and checks. */
  readonly command: Command;
  /** Shown first in its help. */
  readonly examples: string;
  /** Shown last in its help. */
  readonly notes?: string;
  /** Whether a second Ctrl+C hurries the command on instead of ending the process. */
  readonly takesSecondInterrupt?: boolean;
  /** `words` are those behind the command that are no flags. */
  // biome-ignore lint/suspicious/noExplicitAny: commander's flags are checked by the command's own parsers
  run(flags: any, context: CommandContext, words: readonly string[]): Promise<Exit>;
}

/** The same for a group of commands, such as `store-sync`. */
export interface CommandGroup {
  readonly command: Command;
  readonly examples: string;
  readonly notes?: string;
  readonly verbs: Readonly<Record<string, () => Promise<CommandModule>>>;
}
