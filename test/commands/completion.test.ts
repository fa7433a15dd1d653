/** `brewctl completion`: its script, in a real bash, and what the others are made of. */

import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { brewctl, cleanEnv, root } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

const scripts: Record<string, string> = {};
beforeAll(async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    scripts[shell] = (await brewctl(["completion", shell])).stdout;
  }
});

/** What bash offers when TAB is pressed at the end of these words. */
function offered(words: string[], cwd = root, env: Record<string, string> = {}): string[] {
  using folder = tempFolder();
  const file = folder.file("brewctl.bash");
  writeFileSync(file, scripts["bash"] ?? "");
  // As bash itself calls it; the words are data here.
  const press = `
    source "$0"
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    spec=$(complete -p brewctl) || exit 9
    function=\${spec#*-F }; \${function%% *}
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, status } = spawnSync("bash", ["--norc", "-uc", press, file, ...words], {
    cwd,
    env: cleanEnv(env),
    encoding: "utf8",
  });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return stdout.split("\n").filter((line) => line !== "");
}

const allCommands = [
  ...["serve", "subscribe", "upload", "chat", "store-sync", "head-office"],
  ...["demo", "help", "completion"],
];

describe("in bash", () => {
  test.each<[string, string[]]>([
    ["", allCommands],
    ["s", ["serve", "subscribe", "store-sync"]],
    ["store-sync re", ["record", "retry", "replay"]],
    ["store-sync --", ["--help"]],
    ["store-sync record --ev", ["--event-id"]],
    ["store-sync events --state ", ["pending", "acked", "parked"]],
    ["-q store-sync flush --wait", ["--wait-ready"]],
    ["head-office ", ["cancel", "command", "commands", "events", "forget", "reconcile", "stores"]],
    ["head-office events --fol", ["--follow"]],
    ["subscribe --customer store-sync --li", ["--limit"]],
    ["--v", ["--version"]],
    ["subscribe --li", ["--limit"]],
    ["upload --fail", ["--fail-on-rejected"]],
    ["chat --no-h", ["--no-half-close"]],
    ["chat --time", ["--timeline"]],
    ["subscribe -o ", ["text", "ndjson"]],
    ["subscribe --output ", ["text", "ndjson"]],
    ["subscribe --output = n", ["ndjson"]],
    ["subscribe --output = ", ["text", "ndjson"]],
    ["subscribe --output =", ["text", "ndjson"]],
    ["serve --log-format j", ["json"]],
    ["subscribe --addr ", []],
    ["subscribe --limit 3 --cu", ["--customer"]],
    ["-q subscribe --li", ["--limit"]],
    ["subscribe --reconnect --quie", ["--quiet"]],
    ["help ex", ["exit-codes"]],
    ["help sub", ["subscribe"]],
    ["help store-sync fl", ["flush"]],
    [
      "help head-office ",
      ["cancel", "command", "commands", "events", "forget", "reconcile", "stores"],
    ],
    ["help chat ", []],
    ["demo ", ["lesson", "store"]],
    ["demo --no-c", ["--no-color"]],
    ["completion ", ["bash", "zsh", "fish"]],
    ["nonsense ", allCommands],
  ])("brewctl %s", (line, expected) => {
    expect(offered(["brewctl", ...line.split(" ")])).toEqual(expected);
  });

  test("files follow where a file is expected", () => {
    using folder = tempFolder();
    writeFileSync(folder.file("my orders.ndjson"), "");
    writeFileSync(folder.file("other"), "");
    const words = (last: string) => ["brewctl", "upload", "--input", last];
    expect(offered(words("my"), folder.path)).toEqual(["my orders.ndjson"]);
    expect(offered(words(""), folder.path).sort()).toEqual(["my orders.ndjson", "other"]);
  });

  test("the stores of this machine follow --store", () => {
    using folder = tempFolder();
    for (const name of ["store-01", "store-02", "K%C3%B6ln", "other", "empty"]) {
      mkdirSync(folder.file(`brewctl/stores/${name}`), { recursive: true });
      if (name !== "empty") {
        writeFileSync(folder.file(`brewctl/stores/${name}/buffer.db`), "");
      }
    }
    const env = { XDG_STATE_HOME: folder.path };
    const words = (last: string) => ["brewctl", "store-sync", "status", "--store", last];
    expect(offered(words("store"), root, env)).toEqual(["store-01", "store-02"]);
    expect(offered(words(""), root, env)).toEqual(["other", "store-01", "store-02"]);
    expect(offered(words(""), root, { XDG_STATE_HOME: folder.file("missing") })).toEqual([]);
  });

  test("a file's name is no pattern", () => {
    using folder = tempFolder();
    for (const name of ["a*", "ab", "ac"]) {
      writeFileSync(folder.file(name), "");
    }
    const files = offered(["brewctl", "upload", "--input", "a"], folder.path);
    expect(files.sort()).toEqual(["a*", "ab", "ac"]);
  });

  test("every flag of every command is offered", async () => {
    for (const command of ["serve", "subscribe", "upload", "chat", "demo"]) {
      const { stdout } = await brewctl(["help", command]);
      const flags = Array.from(stdout.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm), ([, flag]) => flag);
      expect(flags.length).toBeGreaterThan(3);
      expect(offered(["brewctl", command, "-"])).toEqual(expect.arrayContaining(flags));
    }
  });

  test("nothing that was typed is run", () => {
    using folder = tempFolder();
    for (const word of ["$(touch ran)", "`touch ran`", "'; touch ran; '", "$HOME"]) {
      offered(["brewctl", "subscribe", word, "--li"], folder.path);
      offered(["brewctl", "subscribe", "--addr", word], folder.path);
      expect(offered(["brewctl", "upload", "--input", word], folder.path)).toEqual([]);
    }
    expect(offered(["brewctl", "upload", "--input", ""], folder.path)).toEqual([]);
  });
});

test("zsh's and fish's have every command, with what it does, and its flags", () => {
  for (const shell of ["zsh", "fish"]) {
    for (const command of allCommands) {
      expect(scripts[shell]).toContain(command);
    }
    expect(scripts[shell]).toContain("watch orders as they come (server stream)");
    expect(scripts[shell]).toMatch(/fail-on-rejected/);
    expect(scripts[shell]).toMatch(/text ndjson/);
  }
});

test("another shell is refused, and help has examples", async () => {
  const wrong = await brewctl(["completion", "ksh"]);
  expect(wrong.stderr).toMatch(/ksh.*bash, zsh, fish/s);
  expect(wrong.code).toBe(2);
  const none = await brewctl(["completion"]);
  expect(none.stderr).toContain("missing required argument 'shell'");
  expect(none.code).toBe(2);
  const help = await brewctl(["help", "completion"]);
  expect(help.stdout).toMatch(/^Examples:\n {2}source <\(brewctl completion bash\)/);
});
