/** Nothing that a test has started or made outlives its file, however the worker ends. */

import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { root, startProgram } from "./brewctl.ts";
import { tempFolder } from "./temp.ts";

interface Report {
  readonly pid: number;
  readonly folder: string;
}

/** Resolves when neither the process nor the folder is there; the test's time limit is the deadline. */
async function gone({ pid, folder }: Report): Promise<void> {
  while (existsSync(`/proc/${pid}`) || existsSync(folder)) {
    await sleep(10);
  }
}

test.each(["SIGTERM", "SIGKILL"] as const)(
  "a server and a folder are gone when the worker is ended by %s",
  async (signal) => {
    const script = `
      import { serve } from "./test/support/brewctl.ts";
      import { tempFolder } from "./test/support/temp.ts";
      const folder = tempFolder("with spaces ");
      const server = await serve(["--memory"]);
      console.log("ready " + JSON.stringify({ pid: server.child.pid, folder: folder.path }));
      setInterval(() => {}, 1000);`;
    await using worker = startProgram(process.execPath, ["--input-type=module", "-e", script], {
      cwd: root,
    });
    const [, json = ""] = await worker.output(/^ready (.*)$/m);
    const report: Report = JSON.parse(json);
    expect([existsSync(`/proc/${report.pid}`), existsSync(report.folder)]).toEqual([true, true]);
    worker.child.kill(signal);
    await worker.ended;
    await gone(report);
  },
);

test("a server and a folder are gone after a test that ran into its time limit", async () => {
  using folder = tempFolder();
  const file = folder.file("report");
  await using vitest = startProgram(
    `${root}node_modules/.bin/vitest`,
    ["run", "--config", "test/support/timed-out.config.ts"],
    { env: { REPORT: file } },
  );
  const { code, stderr } = await vitest.ended;
  expect(stderr).toContain("Test timed out in 100ms");
  expect(code).toBe(1);
  await gone(JSON.parse(readFileSync(file, "utf8")));
});

test("what ended by itself is left alone: its id may be another process's by then", async () => {
  const script = `
    import { spawn } from "node:child_process";
    import { once } from "node:events";
    import { reapProcess } from "./test/support/reaper.ts";
    const other = spawn("sleep", ["60"], { detached: true, stdio: "ignore" });
    reapProcess(other.pid)();
    console.log("ready " + other.pid);
    setInterval(() => {}, 1000);`;
  await using worker = startProgram(process.execPath, ["--input-type=module", "-e", script], {
    cwd: root,
  });
  const [, pid = ""] = await worker.output(/^ready (.*)$/m);
  const children = readFileSync(
    `/proc/${worker.child.pid}/task/${worker.child.pid}/children`,
    "utf8",
  );
  const [reaper = ""] = children
    .trim()
    .split(" ")
    .filter((child) => child !== pid);
  worker.child.kill("SIGKILL");
  await worker.ended;
  while (existsSync(`/proc/${reaper}`)) {
    await sleep(10);
  }
  expect(existsSync(`/proc/${pid}`)).toBe(true);
  process.kill(Number(pid), "SIGKILL");
});
