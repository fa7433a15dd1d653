/** A test that runs into its time limit with a server and a folder in hand: see reaper.test.ts. */

import { writeFileSync } from "node:fs";
import { beforeAll, test } from "vitest";
import { serve } from "./brewctl.ts";
import { tempFolder } from "./temp.ts";

beforeAll(async () => {
  const folder = tempFolder();
  const server = await serve(["--memory"]);
  const report = process.env["REPORT"] ?? "";
  writeFileSync(report, JSON.stringify({ pid: server.child.pid, folder: folder.path }));
});

test("never ends", () => new Promise(() => {}));
