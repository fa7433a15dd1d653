/**
 * What a stranger does first: clone and `make demo`, or install the package. With the Node that is
 * there, be it too old.
 */

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import packageJson from "../../package.json" with { type: "json" };
import { root } from "../support/brewctl.ts";

const run = promisify(execFile);

/** The environment without this checkout's own node_modules/.bin, which has the pinned Node. */
const outside = {
  ...process.env,
  PATH: (process.env["PATH"] ?? "")
    .split(":")
    .filter((folder) => !folder.includes("node_modules"))
    .join(":"),
};
const quiet = ["--no-audit", "--no-fund", "--loglevel=error"];

let folder: string;
let installed: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "brewctl-system-"));
  // dist/ is built; building it again here would take it away from tests that run beside this one.
  const pack = ["pack", "--ignore-scripts", "--pack-destination", folder, ...quiet];
  await run("npm", pack, { cwd: root });
  const tarball = join(folder, `brewctl-${packageJson.version}.tgz`);
  const install = ["install", "--prefix", folder, "--omit=dev", ...quiet, tarball];
  await run("npm", install, { cwd: folder, env: outside });
  installed = join(folder, "node_modules", ".bin", "brewctl");
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** A folder for PATH with this Node release in it, from the package that carries its binary. */
async function nodeRelease(version: string): Promise<string> {
  const name = `node-${process.platform}-${process.arch}`;
  const prefix = join(folder, `node-${version}`);
  await run("npm", ["install", "--prefix", prefix, ...quiet, `${name}@${version}`], {
    cwd: folder,
    env: outside,
  });
  return join(prefix, "node_modules", name, "bin");
}

function underNode(bin: string, args: string[]) {
  return run(installed, args, { cwd: folder, env: { ...outside, PATH: `${bin}:/usr/bin:/bin` } });
}

test("the package runs on the oldest Node it names, without any dependency", async () => {
  const floor = packageJson.engines.node.replace(">=", "");
  const bin = await nodeRelease(`${floor}.0`);
  const { stdout } = await underNode(bin, ["demo"]);
  expect(stdout).toContain("summary: received=20 accepted=17 rejected=3 total_cents=3570");
});

test("the package carries the licences of what it bundles", async () => {
  const file = join(folder, "node_modules", "brewctl", "dist", "THIRD-PARTY-LICENSES");
  const text = await readFile(file, "utf8");
  for (const name of ["@grpc/grpc-js", "@bufbuild/protobuf", "commander", "chalk", "ora"]) {
    expect(text).toMatch(new RegExp(`^${name} [\\d.]+: `, "m"));
  }
});

test.each(["20.20.0", "22.22.0", "24.14.0"])("Node %s is told in one sentence", async (version) => {
  const bin = await nodeRelease(version);
  await expect(underNode(bin, ["--version"])).rejects.toMatchObject({
    code: 2,
    stdout: "",
    stderr: `brewctl: Node ${version} is too old; brewctl needs Node 24.15 or newer, from https://nodejs.org\n`,
  });
});

test("`make demo` in a fresh clone does all the set-up, on whatever Node there is", async () => {
  const clone = join(folder, "a clone");
  await run("git", ["clone", "--quiet", root, clone]);
  const { stdout } = await run("make", ["demo"], { cwd: clone, env: outside });
  expect(stdout).toContain("summary: received=20 accepted=17 rejected=3 total_cents=3570");
  const status = await run("git", ["status", "--porcelain"], { cwd: clone });
  expect(status.stdout).toBe("");
});

test("the launcher of a checkout prefers the pinned Node to an old one on PATH", async () => {
  const bin = await nodeRelease("20.20.0");
  const env = { ...outside, PATH: `${bin}:/usr/bin:/bin` };
  const { stdout } = await run(join(root, "bin", "brewctl"), ["--version"], { env });
  expect(stdout).toBe(`${packageJson.version}\n`);
});

test("the launcher finds its way through a symbolic link", async () => {
  const link = join(folder, "brew");
  await symlink(join(root, "bin", "brewctl"), link);
  const { stdout } = await run(link, ["--version"], { env: outside });
  expect(stdout).toBe(`${packageJson.version}\n`);
});
