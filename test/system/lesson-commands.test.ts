/** The lesson's command lines with their flags, by make and by `run`. */

import { execFileSync, spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { cleanEnv, root } from "../support/brewctl.ts";

const env = { ...cleanEnv(), PATH: `${root}bin:${process.env["PATH"]}` };

test.each([
  ["run-chat -- -count=20 -interval=10ms", "chat", ["-count=20", "-interval=10ms"]],
  ["run-upload -- -bad=5", "upload", ["-bad=5"]],
  ["run-subscribe -- -limit=0", "subscribe", ["-limit=0"]],
  ["run-upload ARGS=--stats", "upload", ["--stats"]],
])("make %s", (line, command, flags) => {
  const shown = execFileSync("make", ["--dry-run", ...line.split(" ")], {
    cwd: root,
    env,
    encoding: "utf8",
  });
  const words = shown.trimEnd().split("\n").at(-1)?.split(/\s+/) ?? [];
  expect(words.slice(0, 3)).toEqual(["exec", "bin/brewctl", command]);
  // make keeps variables in an order of its own.
  expect(words.slice(3).filter(Boolean).sort()).toEqual([...flags].sort());
});

test("run run-chat -count=20, as the lesson has it, from any folder", () => {
  const flags = ["run-chat", "-count=20", "-interval=10ms", "-addr=127.0.0.1:1"];
  const { stderr, status } = spawnSync("run", flags, { cwd: "/", env, encoding: "utf8" });
  expect(stderr).toContain("no server at 127.0.0.1:1");
  expect(status).toBe(78);
});

test("run says what it runs", () => {
  const { stderr, status } = spawnSync("run", ["run-nothing"], { env, encoding: "utf8" });
  expect(stderr).toBe(
    "run: expected run-server, run-subscribe, run-upload, run-chat or run-store-sync, then flags\n",
  );
  expect(status).toBe(2);
});
