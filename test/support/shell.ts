/** Command lines as a person types them: pipes and loops, in a real shell. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { cleanEnv, type Ended, launcher, root } from "./brewctl.ts";
import { reap } from "./reaper.ts";

/** Runs a script in bash, where `brewctl` is the real program; its whole group dies with the test. */
export async function shell(
  script: string,
  env: Record<string, string> = {},
  signal?: AbortSignal,
): Promise<Ended> {
  const child = spawn("bash", ["-c", `brewctl() { "${launcher}" "$@"; }\n${script}`], {
    cwd: root,
    env: cleanEnv(env),
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  reap(child);
  const stop = () => {
    try {
      process.kill(-(child.pid ?? 0), "SIGKILL");
    } catch {
      // It has ended already.
    }
  };
  signal?.addEventListener("abort", stop);
  const written = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      written[name] += text;
    });
  }
  try {
    const [code, ended] = await once(child, "close");
    return { code, signal: ended, ...written };
  } finally {
    signal?.removeEventListener("abort", stop);
    stop();
  }
}
