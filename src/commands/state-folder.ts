/** Where brewctl keeps what must outlive it, as the XDG Base Directory Specification has it. */

import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/** `$XDG_STATE_HOME/brewctl`, else `~/.local/state/brewctl`. Nothing is made. */
export function stateFolder(env: NodeJS.ProcessEnv): string {
  const told = env["XDG_STATE_HOME"] ?? "";
  // The specification: a relative path is to be ignored.
  return join(isAbsolute(told) ? told : join(homedir(), ".local", "state"), "brewctl");
}
