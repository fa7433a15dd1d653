/** Where brewctl keeps what must outlive it, as the XDG Base Directory Specification has it. */

import { userInfo } from "node:os";
import { isAbsolute, join } from "node:path";
import { UsageError } from "../errors.ts";

/**
 * Returns `$XDG_STATE_HOME/brewctl`, or else `~/.local/state/brewctl`. It makes no folder. Throws
 * `UsageError` when there is no home folder; so ask only when no flag names a place.
 */
export function stateFolder(env: NodeJS.ProcessEnv): string {
  const told = env["XDG_STATE_HOME"] ?? "";
  // The specification: a relative path is to be ignored.
  return join(isAbsolute(told) ? told : join(homeFolder(env), ".local", "state"), "brewctl");
}

/**
 * Returns `$HOME`, or what the password database says when that is empty or relative: with it, a buffer
 * would be in whatever folder the shell is in, and another one after the next `cd`.
 */
function homeFolder(env: NodeJS.ProcessEnv): string {
  const told = env["HOME"] ?? "";
  if (isAbsolute(told)) {
    return told;
  }
  const entry = passwordEntryHome();
  if (entry !== undefined && isAbsolute(entry)) {
    return entry;
  }
  throw new UsageError(
    `there is no home folder: HOME is ${told === "" ? "not set" : "not an absolute path"}, and user ${process.getuid?.() ?? ""} has none in the password database`,
    {
      hint: "set HOME or XDG_STATE_HOME, or name the place: --buffer for a store, --data-dir or --memory for serve",
    },
  );
}

/** Returns undefined for a user id that has no entry, as is usual in containers. */
function passwordEntryHome(): string | undefined {
  try {
    return userInfo().homedir;
  } catch {
    return undefined;
  }
}
