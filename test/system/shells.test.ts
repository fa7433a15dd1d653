/** `brewctl completion` in the shells it is for, with a terminal and a TAB. bash: see ../commands/completion.test.ts. */

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { cleanEnv, root } from "../support/brewctl.ts";
import { shellOnTerminal } from "../support/pty.ts";
import { tempFolder } from "../support/temp.ts";

const env = { ...cleanEnv(), PATH: `${root}bin:${process.env["PATH"]}` };

function script(shell: string): string {
  return execFileSync("brewctl", ["completion", shell], { env, encoding: "utf8" });
}

test.each([
  ["brewctl su", ["subscribe"]],
  ["brewctl subscribe --li", ["--limit"]],
  ["brewctl subscribe -o ", ["text", "ndjson"]],
  ["brewctl serve --log-format ", ["text", "json"]],
  ["brewctl completion ", ["bash", "zsh", "fish"]],
  ["brewctl help exit", ["exit-codes"]],
])("fish: %s", (line, expected) => {
  using folder = tempFolder();
  writeFileSync(folder.file("brewctl.fish"), script("fish"));
  const ask = `source brewctl.fish; complete -C ${JSON.stringify(line)}`;
  const answer = execFileSync("fish", ["--no-config", "-c", ask], {
    cwd: folder.path,
    env: { ...env, HOME: folder.path },
    encoding: "utf8",
  });
  const offered = answer
    .trimEnd()
    .split("\n")
    .map((offer) => offer.split("\t")[0]);
  expect(offered.sort()).toEqual([...expected].sort());
});

test("fish: files follow where a file is expected", () => {
  using folder = tempFolder();
  writeFileSync(folder.file("brewctl.fish"), script("fish"));
  const ask = "source brewctl.fish; complete -C 'brewctl upload --input brew'";
  const options = { cwd: folder.path, env: { ...env, HOME: folder.path } };
  const answer = execFileSync("fish", ["--no-config", "-c", ask], { ...options, encoding: "utf8" });
  expect(answer).toContain("brewctl.fish");
});

// What zsh adds to the line.
test.each([
  ["brewctl su", /bscribe/],
  ["brewctl subscribe --lim", /it[\s\S]*=/],
  ["brewctl subscribe -o nd", /json/],
  ["brewctl completion fi", /sh/],
  ["brewctl s", /serve[\s\S]*run the server of the lessons[\s\S]*subscribe/],
])("zsh: %s", { timeout: 20_000 }, async (line, added) => {
  using folder = tempFolder();
  writeFileSync(folder.file("brewctl.zsh"), script("zsh"));
  await using zsh = shellOnTerminal("exec zsh -f", { HOME: folder.path, PATH: env.PATH });
  zsh.type(
    "PS1='ready> '; autoload -Uz compinit; compinit -D; source ~/brewctl.zsh; print set-$((1 + 1))\r",
  );
  await zsh.output(/set-2[\s\S]*ready> /);
  zsh.type(line);
  const { length } = zsh.screen;
  zsh.type("\t");
  await zsh.output(new RegExp(`^[\\s\\S]{${length},}${added.source}`));
});
