/** Help, and what is said about a command line that is wrong: before anything is sent. */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { brewctl, root } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

const { version } = JSON.parse(readFileSync(`${root}package.json`, "utf8"));
const commands = ["serve", "subscribe", "upload", "chat", "store-sync", "head-office", "demo"];
/** Nobody listens there: whoever dials it before checking the flags exits 78 and not 2. */
const nobody = { BREWCTL_ADDR: "127.0.0.1:1" };

describe("help", () => {
  test.each([["help"], ["--help"], ["-h"], ["-help"]])(
    "%s begins with examples",
    async (...args) => {
      const { stdout, stderr, code } = await brewctl(args);
      expect(stdout).toMatch(/^Examples:\n {2}brewctl demo /);
      for (const name of commands) {
        expect(stdout).toMatch(new RegExp(`^ {2}${name} .*\\S`, "m"));
      }
      expect(stdout).toContain("brewctl help exit-codes");
      expect(stderr).toBe("");
      expect(code).toBe(0);
    },
  );

  test("brewctl alone is the same help, as an error", async () => {
    const { stdout, stderr, code } = await brewctl([]);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/^Examples:\n {2}brewctl demo /);
    expect(code).toBe(2);
  });

  test.each(commands)("help %s begins with examples", async (name) => {
    const { stdout, stderr, code } = await brewctl(["help", name]);
    expect(stdout).toMatch(new RegExp(`^Examples:\n {2}brewctl ${name}\\b`));
    expect(stdout).toContain(`Usage: brewctl ${name} [options]`);
    expect(stderr).toBe("");
    expect(code).toBe(0);
    for (const flag of ["--help", "-h", "-help"]) {
      expect((await brewctl([name, flag])).stdout).toBe(stdout);
    }
  });

  test("the examples of the help are valid command lines", async () => {
    for (const name of ["subscribe", "upload", "chat"]) {
      const { stdout } = await brewctl(["help", name]);
      const examples = stdout
        .slice(0, stdout.indexOf("\n\n"))
        .split("\n")
        .filter((line) => line.startsWith(`  brewctl ${name}`) && !line.includes("orders.ndjson"))
        .map(
          (line) =>
            line
              .trim()
              .split(/ {2,}| \| /)[0]
              ?.split(" ")
              .slice(1) ?? [],
        );
      expect(examples.length).toBeGreaterThan(2);
      for (const args of examples) {
        const { stderr, code } = await brewctl(args, { env: nobody });
        expect(stderr).toContain("no server at 127.0.0.1:1\n");
        expect(code).toBe(78);
      }
    }
  });

  test.each([
    ["store-sync", ["record", "flush", "channel", "watch", "status", "events", "retry", "replay"]],
    ["head-office", ["command", "commands", "events", "stores"]],
  ])("%s is a group, and each verb has its help", async (group, verbs) => {
    const { stdout } = await brewctl(["help", group]);
    const alone = await brewctl([group]);
    expect(alone).toMatchObject({ stdout: "", stderr: stdout, code: 2 });
    for (const verb of verbs) {
      expect(stdout).toMatch(new RegExp(`^ {2}${verb} .*\\S`, "m"));
      const help = await brewctl(["help", group, verb]);
      expect(help.stdout).toMatch(new RegExp(`^Examples:\n {2}brewctl ${group} ${verb}\\b`));
      expect(help.stdout).toContain(`Usage: brewctl ${group} ${verb} [options]`);
      expect(help.code).toBe(0);
      expect((await brewctl([group, verb, "-help"])).stdout).toBe(help.stdout);
    }
  });

  test("help does not mind a bad environment", async () => {
    const env = { BREWCTL_ADDR: "nonsense", BREWCTL_OUTPUT: "xml", BREWCTL_LISTEN: "x" };
    expect((await brewctl(["help"], { env })).code).toBe(0);
    expect((await brewctl(["help", "subscribe"], { env })).code).toBe(0);
  });

  test("help for nothing that exists lists what there is", async () => {
    const { stdout, stderr, code } = await brewctl(["help", "nonsense"]);
    expect(stdout).toBe("");
    expect(stderr).toBe(
      `brewctl: no help for nonsense\n  there is help for: ${commands.join(", ")}, completion, exit-codes\n`,
    );
    expect(code).toBe(2);
  });

  test.each([
    ["store-sync help record", "help store-sync record"],
    ["head-office help", "help head-office"],
    ["chat help", "help chat"],
  ])("%s is the same as %s", async (words, usual) => {
    const [other, same] = await Promise.all([words, usual].map((line) => brewctl(line.split(" "))));
    expect(other).toEqual(same);
    expect(other?.code).toBe(0);
  });

  test.each(["--version", "-V", "-version", "-v", "version"])(
    "%s is that of the package",
    async (flag) => {
      const { stdout, stderr, code } = await brewctl([flag]);
      expect(stdout).toBe(`${version}\n`);
      expect(stderr).toBe("");
      expect(code).toBe(0);
    },
  );
});

describe("the environment", () => {
  test("control characters of a value are spelled out, in errors and in what is printed", async () => {
    const env = { BREWCTL_ADDR: "localhost:50052\r\n\x1b[2J" };
    const { stderr, code } = await brewctl(["subscribe"], { env });
    expect(stderr).toMatch(
      /^brewctl: .* 'localhost:50052\\u000d\\u000a\\u001b\[2J' from env 'BREWCTL_ADDR' is invalid\. .*\nsee: /,
    );
    expect(code).toBe(2);
    using folder = tempFolder();
    const named = { XDG_STATE_HOME: folder.file("\x1b[2Jstate"), BREWCTL_STORE: "s1" };
    await brewctl(["store-sync", "record", "--type", "Sale"], { env: named });
    const status = await brewctl(["store-sync", "status"], { env: named });
    expect(status.stdout).toContain("\\u001b[2Jstate/brewctl/stores/s1/buffer.db");
    expect(status.stdout).not.toContain("\x1b");
    const missing = await brewctl(["store-sync", "status", "--buffer", "\x1b[2J"], { env: named });
    expect(missing.stderr).toContain("brewctl: --buffer \\u001b[2J: no such file");
  });

  test("NO_COLOR and FORCE_COLOR together are no reason for a warning of Node", async () => {
    const env = { NO_COLOR: "1", FORCE_COLOR: "1", XDG_STATE_HOME: "/nonexistent" };
    for (const line of ["store-sync status --store none", "help", "subscribe --nonsense"]) {
      const { stderr } = await brewctl(line.split(" "), { env });
      expect(stderr).not.toContain("Warning");
    }
  });
});

describe("a mistyped", () => {
  test.each([
    ["subscrib", "subscribe"],
    ["uplaod", "upload"],
    ["sevre", "serve"],
    ["chta", "chat"],
    ["store-synk", "store-sync"],
  ])("command %s suggests %s", async (typed, meant) => {
    const { stdout, stderr, code } = await brewctl([typed]);
    expect(stdout).toBe("");
    expect(stderr).toBe(`brewctl: unknown command '${typed}'\n(Did you mean ${meant}?)\n`);
    expect(code).toBe(2);
  });

  test("verb suggests the right one", async () => {
    const { stderr, code } = await brewctl(["store-sync", "flsh"]);
    expect(stderr).toBe(
      "brewctl: unknown command 'flsh'\n(Did you mean flush?)\nsee: brewctl help store-sync\n",
    );
    expect(code).toBe(2);
  });

  test.each([
    ["subscribe", "--limt", "--limit"],
    ["subscribe", "--limt=3", "--limit"],
    ["subscribe", "-limt=3", "--limit"],
    ["upload", "--paus", "--pause"],
    ["chat", "--no-halfclose", "--no-half-close"],
    ["serve", "--tik", "--tick"],
    ["store-sync flush", "--deadlin", "--deadline"],
    ["store-sync channel", "-until-draind", "--until-drained"],
  ])("flag of %s %s suggests %s", async (command, typed, meant) => {
    const line = [...command.split(" "), typed, "3"];
    const { stdout, stderr, code } = await brewctl(line, { env: nobody });
    expect(stdout).toBe("");
    expect(stderr).toMatch(/^brewctl: unknown option '--?/);
    expect(stderr).toContain(`(Did you mean ${meant}?)\n`);
    expect(stderr).toContain(`see: brewctl help ${command}\n`);
    expect(code).toBe(2);
  });

  test("flag that is like none has no suggestion", async () => {
    const { stderr, code } = await brewctl(["subscribe", "--zzzzzz"]);
    expect(stderr).toBe("brewctl: unknown option '--zzzzzz'\nsee: brewctl help subscribe\n");
    expect(code).toBe(2);
  });
});

describe("a bad value is named with what was expected, before anything is sent", () => {
  const number = "expected a whole number from";
  const duration = "expected a duration such as 200ms, 1s or 1m30s";
  const address = "expected host:port, :port, [ipv6]:port or unix:/path";
  test.each<[string, string]>([
    ["subscribe --limit x", number],
    ["subscribe --limit 1.5", number],
    ["subscribe --limit 1e3", number],
    ["subscribe --limit 0x10", number],
    ["subscribe --limit=", number],
    ["subscribe --limit 2147483648", number],
    ["subscribe --limit -2147483648", number],
    ["subscribe -n 99999999999999999999", number],
    ["subscribe -limit=x", number],
    ["subscribe --expect 0 --within 1s", number],
    ["subscribe --reconnect=0", number],
    ["subscribe --reconnect=x", number],
    ["upload --count -1", number],
    ["upload --bad -1", number],
    ["chat --count 2147483648", number],
    ["chat --interval 50", duration],
    ["chat --interval -50ms", duration],
    ["chat --interval 1d", duration],
    ["chat --interval=", duration],
    ["chat --interval 5ms5", duration],
    ["upload --pause fast", duration],
    ["upload --interval x", duration],
    ["subscribe --for 10000h", "expected a duration of at most 596h"],
    ["subscribe --for 0", "expected a duration of more than 0"],
    ["subscribe --idle 0s", "expected a duration of more than 0"],
    ["subscribe --deadline 0", "expected a duration of more than 0"],
    ["subscribe --wait-ready 0", "expected a duration of more than 0"],
    ["subscribe --deadline -1s", duration],
    ["subscribe --addr localhost", address],
    ["subscribe --addr 50052", address],
    ["subscribe --addr http://localhost:50052", address],
    ["subscribe --addr localhost:http", address],
    ["subscribe --addr ::1:50052", address],
    ["subscribe --addr localhost:65536", "expected a port from 0 to 65535"],
    ["subscribe --addr localhost:0", "not 0"],
    ["subscribe --addr unix:", "expected the path of a socket after unix:"],
    [`subscribe --addr unix:/${"x".repeat(104)}`, "expected a socket path of at most 103 bytes"],
    ["subscribe --output xml", "Allowed choices are text, ndjson"],
    ["subscribe -o json", "Allowed choices are text, ndjson"],
    ["serve --tick 1", duration],
    ["serve --tick -1s", duration],
    ["serve --log-format xml", "Allowed choices are text, json"],
  ])("%s", async (line, expected) => {
    const [name = "", ...args] = line.split(" ");
    const { stdout, stderr, code } = await brewctl([name, ...args], { env: nobody });
    const flag = /^--?([a-z-]+)/.exec(args[0] ?? "")?.[1] ?? "";
    expect(stdout).toBe("");
    expect(stderr).toMatch(new RegExp(`^brewctl: option '[^']*-${flag}\\b[^']*' argument '`));
    expect(stderr).toContain(expected);
    expect(stderr).toContain(`see: brewctl help ${name}\n`);
    expect(code).toBe(2);
  });

  test.each([
    ["subscribe --limit", "--limit <n>' argument missing"],
    ["upload --input", "--input <file>' argument missing"],
    ["subscribe extra", "too many arguments"],
    ["upload 5", "too many arguments"],
    ["subscribe --quiet=yes", "--quiet"],
    ["subscribe --expect 3", "--expect and --within go together"],
    ["subscribe --within 3s", "--expect and --within go together"],
    ["subscribe --expect 3 --within 1s --limit 2", "can never be met with --limit 2"],
    ["upload --input - --count 2", "cannot be used with"],
    ["chat --input - -count=2", "cannot be used with"],
    ["upload --pause 1s --interval 1s", "cannot be used with"],
    ["help serve extra", "no help for serve extra"],
    ["help store-sync nonsense", "no help for store-sync nonsense"],
    ["help store-sync flush extra", "too many arguments"],
    ["store-sync flush extra", "too many arguments"],
    ["store-sync flush --store=", "expected something"],
    ["store-sync channel --for 0", "expected a duration of more than 0"],
    ["store-sync events --state lost", "Allowed choices are pending, acked, parked"],
    ["store-sync watch --expect 3", "--expect and --within go together"],
    ["store-sync retry", "which events?"],
    ["store-sync retry a --all", "which events?"],
    ["store-sync record --input - --type Sale", "cannot be used with"],
    [
      "store-sync record --type Sale --timestamp yesterday",
      "expected Unix milliseconds, or a time",
    ],
    ["store-sync record --type Sale --timestamp 2026-01-02T03:04:05", "a time with its zone"],
    ["head-office command --store s --type t --payload {", "--payload is not JSON"],
    ["head-office command --type t", "expected --store, once or several times, or --all-stores"],
    ["head-office command --type t --store a --all-stores", "expected --store, once or several"],
    ["head-office command --type t --store=", "expected something"],
    ["head-office stores --store=", "expected something"],
    ["head-office stores --watch --check", "--check looks once, and --watch never ends"],
    [
      "head-office commands --state lost",
      "Allowed choices are queued, received, applied, parked, cancelled",
    ],
    ["head-office events --reconnect=0", "expected a whole number from 1"],
    ["head-office events --expect 3", "--expect and --within go together"],
    ["serve --fault-nack 1.5", "expected a share from 0 to 1"],
    ["serve --fault-lose-ack x", "expected a share from 0 to 1"],
    ["serve --fault-drop-after -1", "expected a whole number"],
    ["serve --memory --data-dir x", "cannot be used with"],
    ["serve --log-level loud", "Allowed choices are info, debug"],
  ])("%s", async (line, expected) => {
    const { stdout, stderr, code } = await brewctl(line.split(" "), { env: nobody });
    expect(stdout).toBe("");
    expect(stderr).toContain(expected);
    expect(stderr).toMatch(/^brewctl: /);
    expect(code).toBe(2);
  });

  test("an expectation beside an endless limit is fine", async () => {
    const args = ["subscribe", "--limit", "0", "--expect", "3", "--within", "1s"];
    expect((await brewctl(args, { env: nobody })).code).toBe(78);
  });

  test("a short flag may be written with = as Go does", async () => {
    const { code } = await brewctl(["subscribe", "-n=3", "-o=ndjson"], { env: nobody });
    expect(code).toBe(78);
  });
});
