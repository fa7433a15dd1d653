/** `store-sync run --exec`: a shop's own program applies the commands, whatever kind of program it is. */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { ReceivedCommand } from "../../src/bridge/inbox.ts";
import { systemClock } from "../../src/clock.ts";
import { exec } from "../../src/commands/store-sync/exec.ts";
import { CommandState } from "../../src/gen/sync/v1/head_office_pb.ts";
import { brewctl, cleanEnv, root } from "../support/brewctl.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { failure } from "../support/serve-handlers.ts";
import { type RunningBridge, shop } from "../support/shop.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

const command: ReceivedCommand = {
  ...{ commandId: "cmd-1", type: "PriceUpdate", payloadJson: '{"sku":"☕","newPrice":299}' },
  ...{ sequence: 7, issuedAt: 1_700_000_000_000, number: 1, state: "received" },
  ...{ attempts: 2, notBefore: 0, reason: "", ledgerId: "", receivedAt: 0 },
};

/** Runs a program on the command, and tells how it ended and what it said. */
async function apply(
  program: string,
  {
    timeoutMs = 20_000,
    signal = never,
    clock = systemClock,
    changes = {},
    env = cleanEnv(),
    passes = [] as string[],
  } = {},
) {
  const said: string[] = [];
  const onOutput = (_: ReceivedCommand, text: string) => said.push(text);
  const outcome = await exec({ program, timeoutMs, clock, env, passes, onOutput })(
    { ...command, ...changes },
    { signal },
  ).then(
    () => "applied",
    (error) => (error as Error).message,
  );
  return { outcome, said };
}

/** Whether a process is there; a zombie is not. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function until(is: () => boolean): Promise<void> {
  while (!is()) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** What a program has written to a file, when it has. */
async function written(file: string): Promise<string> {
  await until(() => existsSync(file) && readFileSync(file, "utf8").endsWith("\n"));
  return readFileSync(file, "utf8").trimEnd();
}

describe("the program", () => {
  test("gets the command as a line of ProtoJSON, and what it is in the environment", async () => {
    using folder = tempFolder();
    const file = folder.file("seen");
    const { outcome } = await apply(`{ cat; env | grep ^BREWCTL_COMMAND | sort; } > ${file}`);
    expect(outcome).toBe("applied");
    const [json = "", ...env] = readFileSync(file, "utf8").trimEnd().split("\n");
    expect(JSON.parse(json)).toEqual({
      ...{ commandId: "cmd-1", type: "PriceUpdate", payloadJson: '{"sku":"☕","newPrice":299}' },
      ...{ sequence: 7, issuedAt: 1_700_000_000_000 },
    });
    expect(env).toEqual([
      "BREWCTL_COMMAND_ATTEMPT=3",
      "BREWCTL_COMMAND_ID=cmd-1",
      "BREWCTL_COMMAND_SEQUENCE=7",
      "BREWCTL_COMMAND_TYPE=PriceUpdate",
    ]);
  });

  test("gets what every program needs of the daemon's environment, and what it is given by name", async () => {
    using folder = tempFolder();
    const file = folder.file("env");
    const needed = {
      ...{ PATH: process.env["PATH"] ?? "", HOME: "/home/shop", USER: "shop", LOGNAME: "shop" },
      ...{ SHELL: "/bin/sh", LANG: "C.UTF-8", LC_TIME: "C", TZ: "UTC", TMPDIR: "/tmp" },
    };
    const secrets = { CLOUD_TOKEN: "secret", BREWCTL_ADDR: "cloud:1", NODE_OPTIONS: "", LC_: "x" };
    const env = { ...needed, ...secrets, SHOP_URL: "http://shop", PATH_TO_KEY: "/key" };
    // Not by env(1) in a shell, which has variables of its own.
    const program = `tr '\\0' '\\n' < /proc/self/environ > ${file}`;
    expect((await apply(program, { env, passes: ["SHOP_URL", "NOT_SET"] })).outcome).toBe(
      "applied",
    );
    const lines = readFileSync(file, "utf8").trimEnd().split("\n");
    const own = /^(BREWCTL_COMMAND_|PWD=|_=|OLDPWD=|SHLVL=)/;
    expect(lines.filter((line) => !own.test(line)).sort()).toEqual(
      Object.entries({ ...needed, SHOP_URL: "http://shop" })
        .map(([name, value]) => `${name}=${value}`)
        .sort(),
    );
  });

  test.each<[string, string, string]>([
    ["an exit code", "exit 3", "exit code 3"],
    [
      "what it says",
      "echo out; echo 'no such product' >&2; exit 1",
      "exit code 1: out\\u000ano such product",
    ],
    ["a signal", "kill -KILL $$", "ended by SIGKILL"],
    ["not being there", "/no/such/program", "exit code 127: "],
    ["not being a program", "/etc/passwd", "exit code 126: "],
    ["a syntax error", "if", "exit code 2: "],
  ])("has failed by %s", async (_, program, message) => {
    const { outcome } = await apply(program);
    expect(outcome.slice(0, message.length)).toBe(message);
  });

  test("sees words that a shell would obey as they are, and no shell obeys them", async () => {
    using folder = tempFolder();
    const planted = folder.file("planted");
    const words = [`$(touch ${planted})`, `\`touch ${planted}\``, `"; touch ${planted}; "`, "'\n'"];
    for (const word of words) {
      const changes = { commandId: word, type: word, payloadJson: JSON.stringify(word) };
      const seen = folder.file("seen");
      const program = `{ printf '%s|' "$BREWCTL_COMMAND_ID" "$BREWCTL_COMMAND_TYPE"; } > ${seen}`;
      expect((await apply(program, { changes })).outcome).toBe("applied");
      expect(readFileSync(seen, "utf8")).toBe(`${word}|${word}|`);
    }
    expect(existsSync(planted)).toBe(false);
  });

  test("need not read its input, however large", async () => {
    const payloadJson = JSON.stringify("x".repeat(1024 * 1024));
    expect((await apply("exit 0", { changes: { payloadJson } })).outcome).toBe("applied");
    expect((await apply("exec <&-; exit 1", { changes: { payloadJson } })).outcome).toBe(
      "exit code 1",
    );
  });

  test("may print megabytes of anything: the end of it is kept, and made plain", async () => {
    const { outcome, said } = await apply(
      "head -c 5000000 /dev/urandom; printf '\\033[2Jthe end\\r\\n'; exit 1",
    );
    expect(outcome).toMatch(/^exit code 1: .*\\u001b\[2Jthe end$/s);
    expect(outcome.length).toBeLessThan(350);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    expect(outcome).not.toMatch(/[\u0000-\u001f]/);
    expect(said.join("").length).toBeLessThan(15_000);
  });

  test("that succeeds may say something too", async () => {
    expect(await apply("echo price is 299")).toEqual({
      outcome: "applied",
      said: ["price is 299"],
    });
    expect(await apply("true")).toEqual({ outcome: "applied", said: [] });
  });

  test("that hangs is ended after its time, with all that it has started and that holds its pipes", async () => {
    using folder = tempFolder();
    const file = folder.file("pids");
    const program = `sleep 600 & echo $$ $! > ${file}; wait`;
    const { outcome } = await apply(program, { timeoutMs: 300 });
    expect(outcome).toBe("it was ended after 300ms");
    const pids = (await written(file)).split(" ").map(Number);
    expect(pids).toHaveLength(2);
    await until(() => !pids.some(isAlive));
  });

  test("that takes no notice of SIGTERM is ended by SIGKILL, two seconds later", async () => {
    using folder = tempFolder();
    const file = folder.file("pids");
    const clock = testClock();
    const program = `trap '' TERM; sleep 600 & echo $$ $! > ${file}; while :; do sleep 1; done`;
    const applied = apply(program, { timeoutMs: 60_000, clock });
    const pids = (await written(file)).split(" ").map(Number);
    await clock.advance(59_999);
    expect(pids.every(isAlive)).toBe(true);
    await clock.advance(1);
    await clock.advance(1_999);
    expect(isAlive(pids[0] ?? 0)).toBe(true);
    await clock.advance(1);
    await until(() => !pids.some(isAlive));
    await clock.advance(1_000);
    expect((await applied).outcome).toBe("it was ended after 1m0s");
  });

  test("that leaves somebody behind who holds its pipes does not hold up the next command", async () => {
    using folder = tempFolder();
    const file = folder.file("pid");
    const { outcome } = await apply(`setsid sleep 600 & echo $! > ${file}; echo done`);
    expect(outcome).toBe("applied");
    const pid = Number(readFileSync(file, "utf8"));
    expect(isAlive(pid)).toBe(true);
    process.kill(pid, "SIGKILL");
  });

  test("that is running when the bridge stops is ended, and counts as nothing", async () => {
    using folder = tempFolder();
    const file = folder.file("pid");
    const stop = new AbortController();
    const applied = failure(
      exec({
        program: `echo $$ > ${file}; exec sleep 600`,
        timeoutMs: 60_000,
        ...{ clock: systemClock, env: cleanEnv() },
        onOutput: () => {},
      })(command, { signal: stop.signal }),
    );
    const pid = Number(await written(file));
    const reason = new Error("the bridge is over");
    stop.abort(reason);
    expect(await applied).toBe(reason);
    expect(isAlive(pid)).toBe(false);
    // And one that has not begun does not begin.
    const never = await failure(
      exec({
        program: "true",
        timeoutMs: 1,
        ...{ clock: systemClock, env: cleanEnv() },
        onOutput: () => {},
      })(command, { signal: stop.signal }),
    );
    expect(never).toBe(reason);
  });

  test("of a command that no environment can hold has failed, and nothing else", async () => {
    expect((await apply("true", { changes: { type: "a\0b" } })).outcome).toMatch(/null bytes/);
    expect((await apply("true", { changes: { type: "x".repeat(3_000_000) } })).outcome).toMatch(
      /E2BIG/,
    );
  });

  test("that cannot be started has failed, and takes no bridge with it", () => {
    const script = "test/support/without-processes.ts";
    const { stdout, stderr, status } = spawnSync(
      "sh",
      ["-c", `ulimit -n 64; exec '${process.execPath}' ${script}`],
      { cwd: root, encoding: "utf8" },
    );
    expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
    expect(stdout).toMatch(/^cannot start it: .*EMFILE\n$/);
  });
});

describe("a bridge with a program", () => {
  const issue = (cloud: TestCloud, commandId: string, type = "PriceUpdate") =>
    cloud.office.issueCommand(
      { storeIds: ["store-01"], commandId, type, payloadJson: '{"newPrice":299}' },
      { signal: never },
    );

  /** A program that notes each command that it was given. */
  const noting = (file: string, more = "") => `echo "$BREWCTL_COMMAND_ID" >> ${file}; ${more}`;
  const notes = (file: string) =>
    existsSync(file) ? readFileSync(file, "utf8").trimEnd().split("\n") : [];

  const run = (
    box: ReturnType<typeof shop>,
    cloud: TestCloud,
    args: string[] = [],
  ): Promise<RunningBridge> => box.run(["--addr", `127.0.0.1:${cloud.port}`, ...args]);

  test("applies commands in their order, those of unknown types too, and parks what fails", async () => {
    using box = shop();
    await using cloud = await serveCloud();
    const file = box.folder.file("seen");
    const program = noting(
      file,
      '[ "$BREWCTL_COMMAND_ID" != bad ] || { echo no such shelf; exit 1; }',
    );
    await using bridge = await run(box, cloud, ["--exec", program, "--exec-attempts", "2"]);
    for (const id of ["a", "bad", "c"]) {
      await issue(cloud, id);
    }
    await issue(cloud, "d", "OpenTheTill");
    await bridge.output(/^\[OpenTheTill\] applied command_id=d$/m);
    expect(notes(file)).toEqual(["a", "bad", "bad", "c", "d"]);
    expect(bridge.stderr).toMatch(
      /WARN \[PriceUpdate\] failed, will be tried again command_id=bad attempt=1 reason="exit code 1: no such shelf"/,
    );
    expect(bridge.stderr).toMatch(
      /ERROR \[PriceUpdate\] parked command_id=bad reason="failed 2 times: exit code 1: no such shelf"/,
    );
    expect((await bridge.stop()).code).toBe(0);
  });

  test("does not learn the daemon's secrets, and gets what --exec-env names", async () => {
    using box = shop();
    await using cloud = await serveCloud();
    const file = box.folder.file("env");
    const program = `env > ${file}`;
    const args = ["--exec", program, "--exec-env", "SHOP_URL", "--exec-env", "MISSPELT"];
    const env = { ...box.env, CLOUD_TOKEN: "secret", SHOP_URL: "http://shop" };
    await using bridge = await box.run(["--addr", `127.0.0.1:${cloud.port}`, ...args], { env });
    await bridge.output(/WARN --exec-env names a variable that is not set.* name=MISSPELT/);
    await issue(cloud, "a");
    await bridge.output(/applied command_id=a/);
    const seen = readFileSync(file, "utf8");
    expect(seen).toMatch(/^SHOP_URL=http:\/\/shop$/m);
    expect(seen).toMatch(/^BREWCTL_COMMAND_ID=a$/m);
    expect(seen).not.toMatch(/secret|XDG_STATE_HOME|BREWCTL_STORE/);
  });

  test.each([["SHOP_URL=http://shop"], [""], ["a b"]])(
    "is not started with --exec-env '%s', which is no name",
    async (name) => {
      using box = shop();
      const { code, stderr } = await brewctl(
        ["store-sync", "run", "--exec", "true", "--exec-env", name],
        { env: box.env },
      );
      expect(stderr).toContain("expected the name of a variable, such as SHOP_URL");
      expect(code).toBe(2);
    },
  );

  test("that is stopped while it runs applies the command again, under the same id", async () => {
    using box = shop();
    await using cloud = await serveCloud();
    const file = box.folder.file("seen");
    {
      const hangs = ["--exec", noting(file, "exec sleep 600"), "--grace", "100ms"];
      await using bridge = await run(box, cloud, hangs);
      await issue(cloud, "a");
      await until(() => notes(file).length === 1);
      expect((await bridge.stop()).code).toBe(0);
    }
    await using bridge = await run(box, cloud, ["--exec", noting(file)]);
    await bridge.output(/^\[PriceUpdate\] applied command_id=a$/m);
    expect(notes(file)).toEqual(["a", "a"]);
  });

  test("that is killed while it runs applies the command again, under the same id", async () => {
    using box = shop();
    await using cloud = await serveCloud();
    const file = box.folder.file("seen");
    const pid = box.folder.file("pid");
    {
      const hangs = ["--exec", noting(file, `echo $$ > ${pid}; exec sleep 600`)];
      await using bridge = await run(box, cloud, hangs);
      await issue(cloud, "a");
      await issue(cloud, "b");
      const orphan = Number(await written(pid));
      await bridge.output(/\] received command_id=b/);
      await bridge.stop("SIGKILL");
      process.kill(orphan, "SIGKILL");
    }
    // The cloud is not needed for it.
    await using bridge = await box.run(["--addr", "127.0.0.1:9", "--exec", noting(file)]);
    await bridge.output(/^\[PriceUpdate\] applied command_id=b$/m);
    expect(notes(file)).toEqual(["a", "a", "b"]);
  });

  const states = async (cloud: TestCloud) => {
    const listed: string[] = [];
    const commands = cloud.office.listCommands({ storeId: "store-01" }, { signal: never });
    for await (const { commandId, state } of commands) {
      listed.push(
        `${commandId} ${state === CommandState.RECEIVED ? "received" : state === CommandState.APPLIED ? "applied" : state}`,
      );
    }
    return listed;
  };

  test("that runs without it receives commands, applies none, warns once, and a program finds them all", async () => {
    using box = shop();
    await using cloud = await serveCloud();
    const waits =
      /^WARN commands wait for a program that applies them; start with --exec waiting=(\d)$/m;
    {
      await using bridge = await run(box, cloud);
      await issue(cloud, "a");
      expect((await bridge.output(waits))[1]).toBe("1");
      await issue(cloud, "b", "OpenTheTill");
      await bridge.output(/^\[OpenTheTill\] received command_id=b sequence=2$/m);
      await bridge.stop();
      expect(bridge.stderr.match(new RegExp(waits, "gm"))).toHaveLength(1);
      expect(bridge.stderr).not.toMatch(/applying|applied|parked command/);
      expect(await states(cloud)).toEqual(["a received", "b received"]);
    }
    {
      await using bridge = await run(box, cloud);
      expect((await bridge.output(waits))[1]).toBe("2");
      await bridge.stop();
    }
    const file = box.folder.file("seen");
    await using again = await run(box, cloud, ["--exec", noting(file)]);
    await again.output(/^\[PriceUpdate\] → applying locally command_id=a attempt=1$/m);
    await again.output(/applied command_id=b/);
    await again.stop();
    expect(again.stderr).not.toContain("wait for a program");
    expect(notes(file)).toEqual(["a", "b"]);
    expect(await states(cloud)).toEqual(["a applied", "b applied"]);
  });

  test.each([
    ["/no/such/program --fast", "--exec: there is no program /no/such/program"],
    ["no-such-program-of-ours", "--exec: there is no program no-such-program-of-ours in PATH"],
    ["/tmp", "--exec: /tmp is not a file"],
    ["/etc/passwd", "--exec: /etc/passwd cannot be run\n  make it so: chmod +x /etc/passwd"],
    ["if true", "the shell cannot read --exec: "],
  ])("is not started with --exec '%s', and a sentence says why", async (program, message) => {
    using box = shop();
    const { code, stderr } = await brewctl(["store-sync", "run", "--exec", program], {
      env: box.env,
    });
    expect(stderr).toContain(message);
    expect(code).toBe(2);
    expect(existsSync(box.buffer)).toBe(false);
  });

  test("is not ended by what a program writes, and shows it to who looks", async () => {
    using box = shop();
    await using cloud = await serveCloud();
    const script = box.folder.file("apply.sh");
    writeFileSync(script, "printf 'a\\033[31m\\nb\\n'; yes | head -c 3000000 >&2\n", {
      mode: 0o755,
    });
    await using bridge = await run(box, cloud, ["--exec", `sh ${script}`, "--log-level", "debug"]);
    await issue(cloud, "a");
    await bridge.output(/applied command_id=a/);
    const [said = ""] = bridge.stderr.split("\n").filter((line) => line.includes("program says"));
    expect(said).toMatch(/^\[a\] the program says: (y\\u000a)+[^ ]{0,6}…?$/);
    expect((await bridge.stop()).code).toBe(0);
  });
});
