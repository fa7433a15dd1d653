/** `bin/brewctl` and `bin/start.cjs`: found through links, from anywhere, with whichever Node there is. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cleanEnv, type Ended, launcher, root, start } from "./support/brewctl.ts";
import { reap } from "./support/reaper.ts";
import { tempFolder } from "./support/temp.ts";

const { version } = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
const nodeFolder = dirname(process.execPath);

/** A copy of what is installed, without dependencies, in a folder with spaces in its name. */
let installed: ReturnType<typeof tempFolder>;
let copied: string;
beforeAll(() => {
  installed = tempFolder("brewctl with spaces ");
  for (const folder of ["bin", "dist"]) {
    cpSync(`${root}${folder}`, installed.file(folder), { recursive: true });
  }
  copied = installed.file("bin/brewctl");
});
afterAll(() => installed[Symbol.dispose]());

interface Options {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
}

async function run(
  file: string,
  args: readonly string[],
  { cwd = root, env = {} }: Options = {},
): Promise<Ended> {
  const path = `${nodeFolder}:${process.env["PATH"]}`;
  const child = spawn(file, args, {
    cwd,
    env: cleanEnv({ PATH: path, ...env }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  reap(child);
  const written = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      written[name] += text;
    });
  }
  const [code, signal] = await once(child, "close");
  return { code, signal, ...written };
}

const works = async (outcome: Promise<Ended>) => {
  expect(await outcome).toEqual({ code: 0, signal: null, stdout: `${version}\n`, stderr: "" });
};

/** A folder for PATH with just these programs of the machine in it. */
function tools(folder: string, names: readonly string[]): string {
  mkdirSync(folder, { recursive: true });
  for (const name of names) {
    const found = ["/bin", "/usr/bin"].map((dir) => join(dir, name)).find(existsSync);
    symlinkSync(found ?? `/bin/${name}`, join(folder, name));
  }
  return folder;
}

/** A preload that makes Node say that it is another version. */
function pretend(file: string, old: string): string {
  const versions = `{ ...process.versions, node: ${JSON.stringify(old)} }`;
  writeFileSync(file, `Object.defineProperty(process, "versions", { value: ${versions} });\n`);
  return file;
}

describe("is found", () => {
  test("from another folder", async () => {
    using folder = tempFolder();
    await works(run(launcher, ["--version"], { cwd: folder.path }));
    await works(run(launcher, ["--version"], { cwd: "/" }));
  });

  test("by a relative path", async () => {
    await works(run("bin/brewctl", ["--version"]));
    await works(run("./brewctl", ["--version"], { cwd: `${root}bin` }));
    await works(run("../bin/brewctl", ["--version"], { cwd: `${root}bin` }));
  });

  test("by way of PATH", async () => {
    const env = { PATH: `${root}bin:${nodeFolder}:${process.env["PATH"]}` };
    await works(run("sh", ["-c", "brewctl --version"], { cwd: "/", env }));
  });

  test("as an argument of sh", async () => {
    await works(run("sh", ["bin/brewctl", "--version"]));
  });

  test("with CDPATH set", async () => {
    using folder = tempFolder();
    mkdirSync(folder.file("bin"));
    await works(run("bin/brewctl", ["--version"], { env: { CDPATH: folder.path } }));
  });

  test("through links: absolute, relative, of a link, of a folder", async () => {
    using folder = tempFolder("brewctl links ");
    const absolute = folder.file("absolute");
    symlinkSync(launcher, absolute);
    await works(run(absolute, ["--version"], { cwd: "/" }));

    const linkOfLink = folder.file("link of link");
    symlinkSync("absolute", linkOfLink);
    await works(run(linkOfLink, ["--version"], { cwd: "/" }));

    cpSync(copied, folder.file("lib/bin/brewctl"), { recursive: true });
    cpSync(installed.file("bin/start.cjs"), folder.file("lib/bin/start.cjs"));
    cpSync(installed.file("dist"), folder.file("lib/dist"), { recursive: true });
    mkdirSync(folder.file("in here"));
    symlinkSync("../lib/bin/brewctl", folder.file("in here/relative"));
    await works(run(folder.file("in here/relative"), ["--version"], { cwd: "/" }));
    await works(run("./relative", ["--version"], { cwd: folder.file("in here") }));

    symlinkSync(`${root}bin`, folder.file("of a folder"));
    await works(run(folder.file("of a folder/brewctl"), ["--version"], { cwd: "/" }));
  });

  test("in a folder with spaces in its name", async () => {
    await works(run(copied, ["--version"], { cwd: "/" }));
    await works(run("bin/brewctl", ["--version"], { cwd: installed.path }));
  });
});

describe("Node", () => {
  test("without dependencies beside it, it is the one on PATH", async () => {
    using folder = tempFolder();
    const node = folder.file("node");
    writeFileSync(node, `#!/bin/sh\necho chosen >&2\nexec "${process.execPath}" "$@"\n`);
    chmodSync(node, 0o755);
    const env = { PATH: `${folder.path}:${process.env["PATH"]}` };
    const { stdout, stderr, code } = await run(copied, ["--version"], { env });
    expect(stderr).toBe("chosen\n");
    expect(stdout).toBe(`${version}\n`);
    expect(code).toBe(0);
  });

  test("with dependencies beside it, it is the one of the checkout", async () => {
    using folder = tempFolder();
    const node = folder.file("node");
    writeFileSync(node, "#!/bin/sh\necho chosen >&2\nexit 1\n");
    chmodSync(node, 0o755);
    const env = { PATH: `${folder.path}:${process.env["PATH"]}` };
    await works(run(launcher, ["--version"], { env }));
  });

  test.each(["8.17.0", "20.19.0", "22.23.1", "24.14.9"])("%s is too old", async (old) => {
    using folder = tempFolder();
    const fake = pretend(folder.file("fake.cjs"), old);
    const tooOld = (hint = "") => ({
      code: 2,
      signal: null,
      stdout: "",
      stderr: `brewctl: Node ${old} is too old; brewctl needs Node 24.15 or newer, from https://nodejs.org${hint}\n`,
    });
    const ofCheckout = "; `make build` brings one to this checkout";
    const starter = `${root}bin/start.cjs`;
    expect(await run(process.execPath, ["-r", fake, starter, "--version"])).toEqual(
      tooOld(ofCheckout),
    );

    const node = folder.file("node");
    writeFileSync(node, `#!/bin/sh\nexec "${process.execPath}" -r "${fake}" "$@"\n`);
    chmodSync(node, 0o755);
    const env = { PATH: `${folder.path}:${process.env["PATH"]}` };
    expect(await run(copied, ["--version"], { env })).toEqual(tooOld());
  });

  test.each(["24.15.0", "24.99.0", "25.0.0", "100.0.0"])("%s is new enough", async (recent) => {
    using folder = tempFolder();
    const fake = pretend(folder.file("fake.cjs"), recent);
    await works(run(process.execPath, ["-r", fake, `${root}bin/start.cjs`, "--version"]));
  });

  test("none at all is said in a sentence", async () => {
    using folder = tempFolder();
    const env = { PATH: tools(folder.file("tools"), ["dirname", "readlink"]) };
    const { stdout, stderr, code } = await run(copied, ["--version"], { env });
    expect(stdout).toBe("");
    expect(stderr).toBe(
      "brewctl: there is no Node on PATH; install Node 24.15 or newer, from https://nodejs.org\n",
    );
    expect(code).toBe(2);
  });

  test("none on PATH does not matter with dependencies beside it", async () => {
    using folder = tempFolder();
    const env = { PATH: tools(folder.file("tools"), ["dirname", "readlink"]) };
    await works(run(launcher, ["--version"], { env }));
  });
});

test("not built says what to do", async () => {
  using folder = tempFolder();
  cpSync(`${root}bin`, folder.file("bin"), { recursive: true });
  expect(await run(folder.file("bin/brewctl"), ["--version"])).toEqual({
    code: 2,
    signal: null,
    stdout: "",
    stderr: "brewctl: not built yet; run: make build\n",
  });
});

describe("passes on", () => {
  test("arguments as they are", async () => {
    const odd = ` a  b * $HOME "c" 'd' \\e`;
    const { stderr, code } = await run(copied, ["subscribe", "--limit", odd]);
    expect(stderr).toContain(`argument '${odd}' is invalid`);
    expect(code).toBe(2);
    expect((await run(copied, ["subscribe", "--limit", ""])).stderr).toContain("argument '' is");
  });

  test.each(["SIGTERM", "SIGINT"] as const)("%s, so a server stops gracefully", async (signal) => {
    await using own = start(["serve", "--addr", "127.0.0.1:0"]);
    await own.output(/streaming-server started/);
    process.kill(own.child.pid ?? 0, signal);
    const { stderr, code } = await own.ended;
    expect(stderr).toMatch(/^graceful stop$/m);
    expect(code).toBe(0);
  });
});

describe("the compile cache", () => {
  test("is in the user's own folder, and nowhere else", async () => {
    using home = tempFolder();
    const before = readdirSync(installed.path);
    const env = { HOME: home.path, XDG_CACHE_HOME: "" };
    await works(run(copied, ["--version"], { env, cwd: installed.path }));
    expect(readdirSync(home.path)).toEqual([".cache"]);
    expect(readdirSync(home.file(".cache"))).toEqual(["brewctl"]);
    expect(readdirSync(installed.path)).toEqual(before);
  });

  test("may be impossible", async () => {
    await works(run(copied, ["--version"], { env: { XDG_CACHE_HOME: "/dev/null/no" } }));
    await works(run(copied, ["--version"], { env: { XDG_CACHE_HOME: "" } }));
  });
});
