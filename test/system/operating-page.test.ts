/** What docs/operating-the-bridge.md prints works as it is printed. It needs jq, as the page says. */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { root } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

const page = readFileSync(`${root}docs/operating-the-bridge.md`, "utf8");

test("apply.sh, typed as it stands, writes a price where the tills look, and refuses an unknown type", () => {
  using folder = tempFolder();
  const printed =
    /```sh\n(cat >apply\.sh.*?)brewctl store-sync run [^\n]*--exec \.\/apply\.sh\n```/s;
  const made = spawnSync("sh", ["-eu", "-c", printed.exec(page)?.[1] ?? "exit 99"], {
    cwd: folder.path,
    encoding: "utf8",
  });
  expect(made).toMatchObject({ status: 0, stderr: "" });
  const apply = (type: string) =>
    spawnSync("/bin/sh", ["-c", "./apply.sh"], {
      cwd: folder.path,
      encoding: "utf8",
      env: { ...process.env, BREWCTL_COMMAND_TYPE: type },
      input: `${JSON.stringify({ payloadJson: '{"sku":"ITEM-42","newPrice":299}' })}\n`,
    });
  expect(apply("PriceUpdate")).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(folder.file("prices/ITEM-42"), "utf8")).toBe("299\n");
  expect(apply("StockAlert")).toMatchObject({ status: 1, stderr: "unknown type\n" });
});
