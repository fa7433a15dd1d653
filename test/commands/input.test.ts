/** `--input`: lines of a file or of standard input, sent as they are read; and what is wrong with bad ones. */

import { writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { brewctl, type Served, serve, start } from "../support/brewctl.ts";
import { shell } from "../support/shell.ts";
import { tempFolder } from "../support/temp.ts";

let server: Served;
let addr: string;
beforeAll(async () => {
  server = await serve(["--echo-delay", "0", "--tick", "1ms"]);
  addr = server.addr;
});
afterAll(() => server[Symbol.asyncDispose]());

const echoes = (text: string) => (text.match(/^< .*$/gm) ?? []).map((line) => line.slice(26));
const chatWith = (input: string | Uint8Array, ...args: string[]) =>
  brewctl(["chat", "--addr", addr, "--input", "-", ...args], { input });
const uploadWith = (input: string | Uint8Array, ...args: string[]) =>
  brewctl(["upload", "--addr", addr, "--input", "-", ...args], { input });
const record = (customerId: string, amountCents = 100) =>
  JSON.stringify({ customerId, amountCents: String(amountCents), currency: "USD" });

describe("live", () => {
  test("a line is sent and echoed before the next is written", async () => {
    await using client = start(["chat", "--addr", addr, "--input", "-"], { openStdin: true });
    for (const line of ["a", "b", "c"]) {
      client.child.stdin?.write(`${line}\n`);
      await client.output(new RegExp(`^< echo from server: echo: ${line}$`, "m"));
    }
    client.child.stdin?.end();
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(
      /^stream closed by server, got 3 echoes · OK · after our half-close · /m,
    );
    expect(code).toBe(0);
  });

  test("a record is sent before the next is written", async () => {
    await using client = start(["upload", "--addr", addr, "--input", "-"], { openStdin: true });
    client.child.stdin?.write(`${record("a", 1)}\n`);
    await client.output(/^sent #0 customer=a amount=1$/m);
    client.child.stdin?.end(`${record("b", 2)}\n`);
    const { stdout, code } = await client.ended;
    expect(stdout).toBe(
      "sent #0 customer=a amount=1\nsent #1 customer=b amount=2\n---\n" +
        "summary: received=2 accepted=2 rejected=0 total_cents=3\n",
    );
    expect(code).toBe(0);
  });

  test("a line may come in pieces", async () => {
    await using client = start(["chat", "--addr", addr, "--input", "-"], { openStdin: true });
    const bytes = Buffer.from("straße 😀\n");
    client.child.stdin?.write("first\n");
    await client.output(/echo: first/);
    for (const byte of bytes) {
      client.child.stdin?.write(Buffer.of(byte));
    }
    await client.output(/^< echo from server: echo: straße 😀$/m);
  });

  test("the end of input half-closes and drains the replies", async () => {
    await using own = await serve(["--echo-delay", "100ms"]);
    const { stdout, code } = await brewctl(["chat", "--addr", own.addr, "--input", "-"], {
      input: "a\nb\nc\n",
    });
    expect(echoes(stdout)).toEqual(["a", "b", "c"]);
    expect(code).toBe(0);
    await own.output(/^chat ended: client closed send$/m);
  });

  test("no input at all is a short call", async () => {
    const { stdout, code } = await uploadWith("", "-o", "ndjson");
    expect(stdout).toBe('{"received":0,"accepted":0,"rejected":0,"totalCents":0}\n');
    expect(code).toBe(0);
  });

  test("more lines than are read ahead all come back in order", async () => {
    const lines = Array.from({ length: 500 }, (_, i) => `line ${i}`);
    const { stdout, code } = await chatWith(`${lines.join("\n")}\n`);
    expect(echoes(stdout)).toEqual(lines);
    expect(code).toBe(0);
  });
});

describe("lines", () => {
  test.each([
    ["CRLF", "a\r\nb\r\n", ["a", "b"]],
    ["a byte-order mark", "\ufeffa\nb\n", ["a", "b"]],
    ["blank lines", "\n\na\n  \n\t\r\nb\n\n", ["a", "b"]],
    ["a last line without its end", "a\nb", ["a", "b"]],
    ["spaces, which are kept", " a \nb\n", [" a ", "b"]],
    ["nothing but blank lines", "\n \n", []],
    ["flags that are none", "-q\n--\n--limit=1\n", ["-q", "--", "--limit=1"]],
  ])("%s", async (_, input, expected) => {
    const { stdout, code } = await chatWith(input);
    expect(echoes(stdout)).toEqual(expected);
    expect(code).toBe(0);
  });

  test("a byte-order mark before NDJSON, which has no end of line", async () => {
    const { stdout, code } = await uploadWith(`\ufeff${record("a")}\r\n${record("b")}`, "-q");
    expect(stdout).toContain("received=2 accepted=2");
    expect(code).toBe(0);
  });

  test("chat takes plain lines and NDJSON in turn", async () => {
    const { stdout, code } = await chatWith(
      'plain\n{"text":"json"}\n{"from":"me","text":"two","sentAt":"2026-01-02T03:04:05Z"}\n{"text":""}\n[plain]\n',
    );
    expect(echoes(stdout)).toEqual(["plain", "json", "two", "", "[plain]"]);
    expect(code).toBe(0);
  });

  test("chat reads what chat prints", async () => {
    const first = await chatWith("a\nb\n", "-o", "ndjson");
    const second = await chatWith(first.stdout);
    expect(echoes(second.stdout)).toEqual(["echo: a", "echo: b"]);
    expect(second.code).toBe(0);
  });

  test("upload takes both spellings of a field, and numbers for int64", async () => {
    const { stdout, code } = await uploadWith(
      '{"customer_id":"a","amount_cents":5}\n{"customerId":"b","amountCents":"9007199254740993"}\n' +
        '{"customerId":"c","amountCents":9007199254740993}\n{"customerId":"d","amountCents":2.5e1}\n',
    );
    expect(stdout).toContain("sent #1 customer=b amount=9007199254740993\n");
    expect(stdout).toContain("sent #2 customer=c amount=9007199254740993\n");
    expect(stdout).toContain("sent #3 customer=d amount=25\n");
    expect(code).toBe(0);
  });
});

describe("bad lines", () => {
  const good = record("cus-001");
  test.each<[string, string | Uint8Array, RegExp]>([
    ["not JSON", `${good}\n\nnonsense\n`, /stdin:3: not JSON: .*\n {2}expected \{"customerId"/],
    ["half of it", `${good}\n{"customerId":`, /stdin:2: not JSON: .*\n {2}expected \{/],
    ["an array", `${good}\n[${good}]\n`, /stdin:2: expected a JSON object\n {2}expected \{/],
    ["null", `${good}\nnull\n`, /stdin:2: expected a JSON object/],
    ["a string", `${good}\n"a"\n`, /stdin:2: expected a JSON object/],
    ["an unknown field", `${good}\n{"customer":"a"}\n`, /stdin:2: .*"customer" is unknown/],
    [
      "a wrong type",
      `${good}\n{"customerId":5}\n`,
      /stdin:2: .*customer_id.*expected string, got 5/,
    ],
    [
      "a name that is there twice",
      `${good}\n{"customerId":"a","customerId":"b"}\n`,
      /stdin:2: .*twice/,
    ],
    ["both spellings", `${good}\n{"customerId":"a","customer_id":"b"}\n`, /stdin:2: .*same field/],
    [
      "an amount that is no integer",
      `${good}\n{"amountCents":1.00000000000000000001}\n`,
      /stdin:2: .*1\.0/,
    ],
    ["an amount without end", `${good}\n{"amountCents":1e400}\n`, /stdin:2: .*1e400/],
    ["a broken number", `${good}\n{"amountCents":"1.5"}\n`, /stdin:2: .*amount_cents.*int64.*1\.5/],
    ["a number too large", `${good}\n{"amountCents":"9223372036854775808"}\n`, /stdin:2: .*int64/],
    [
      "invalid UTF-8",
      Buffer.concat([
        Buffer.from(`${good}\n{"customerId":"`),
        Buffer.of(0xff),
        Buffer.from('"}\n'),
      ]),
      /stdin:2: not valid UTF-8/,
    ],
    [
      "a line without end",
      `${good}\n${"x".repeat(4 * 1024 * 1024 + 1)}`,
      /stdin:2: a line of more than 4 MiB/,
    ],
  ])("%s: is named and costs no other line", async (_, input, complaint) => {
    const more = Buffer.concat([Buffer.from(input), Buffer.from(`\n${record("after", 7)}\n`)]);
    const { stdout, stderr, code } = await uploadWith(more);
    expect(stdout).toBe(
      "sent #0 customer=cus-001 amount=100\nsent #1 customer=after amount=7\n---\n" +
        "summary: received=2 accepted=2 rejected=0 total_cents=107\n",
    );
    expect(stderr).toMatch(
      /^stream closed by server, sent 2 records, 1 line refused · OK · summary received · /m,
    );
    expect(stderr).toMatch(complaint);
    expect(stderr).toMatch(/^brewctl: stdin:/m);
    expect(stderr).not.toContain("    at ");
    expect(code).toBe(2);
  });

  test("what was expected is said once for bad lines that follow each other", async () => {
    const { stderr } = await uploadWith("nonsense\nnonsense\n");
    expect(stderr.match(/^brewctl: stdin:[12]: not JSON/gm)).toHaveLength(2);
    expect(stderr.match(/^ {2}expected \{"customerId"/gm)).toHaveLength(1);
  });

  test("the line of a file is named", async () => {
    using folder = tempFolder();
    const file = folder.file("my orders.ndjson");
    writeFileSync(file, `\r\n${good}\r\n${good}\r\n{"customerId":null,"bogus":1}\r\n`);
    const { stderr, code } = await brewctl(["upload", "--addr", addr, "--input", file, "-q"]);
    expect(stderr).toContain(`brewctl: ${file}:4: `);
    expect(stderr).toContain('"bogus" is unknown');
    expect(code).toBe(2);
  });

  test("a bad line of a chat costs no other", async () => {
    const { stdout, stderr, code } = await chatWith('a\n{"txt":"b"}\nc\n');
    expect(echoes(stdout)).toEqual(["a", "c"]);
    expect(stderr).toMatch(/^stream closed by server, got 2 echoes, 1 line refused · OK · /m);
    expect(stderr).toMatch(/^brewctl: stdin:2: .*"txt" is unknown/m);
    expect(code).toBe(2);
  });

  test("a line of a chat that only looks like JSON says what was expected", async () => {
    const { stderr, code } = await chatWith("{hello\n");
    expect(stderr).toMatch(
      /^brewctl: stdin:1: not JSON: .*\n {2}expected a plain line, or \{"text"/m,
    );
    expect(code).toBe(2);
  });

  test("control characters of a bad line are spelled out", async () => {
    const { stderr, code } = await uploadWith('{"\\u001b[2J":1}\n');
    expect(stderr).toContain("stdin:1: ");
    expect(stderr).not.toContain("\x1b");
    expect(code).toBe(2);
  });
});

describe("files", () => {
  test("a file is read", async () => {
    using folder = tempFolder();
    const file = folder.file("orders.ndjson");
    writeFileSync(file, `${record("a")}\n${record("b")}\n`);
    const { stdout, code } = await brewctl(["upload", "--addr", addr, "-input", file]);
    expect(stdout).toContain("received=2 accepted=2");
    expect(code).toBe(0);
  });

  test.each(["upload", "chat"])(
    "%s: a missing file is said before anything is sent",
    async (name) => {
      using folder = tempFolder();
      const file = folder.file("missing");
      const { stderr, code } = await brewctl([name, "--addr", "127.0.0.1:1", "--input", file]);
      expect(stderr).toBe(
        `brewctl: --input ${file}: no such file\n  expected a file of lines, or - for standard input\n`,
      );
      expect(code).toBe(2);
    },
  );

  test.each(["upload", "chat"])("%s: a folder is no file", async (name) => {
    using folder = tempFolder();
    const { stderr, code } = await brewctl([name, "--addr", "127.0.0.1:1", "--input", folder.path]);
    expect(stderr).toContain(`--input ${folder.path}: expected a file, not a folder\n`);
    expect(code).toBe(2);
  });

  test("a named pipe is read as it is written", async () => {
    using folder = tempFolder();
    const { stdout, code } = await shell(
      `mkfifo '${folder.path}/fifo'
      echo '${record("a")}' > '${folder.path}/fifo' &
      brewctl upload --input '${folder.path}/fifo' -q`,
      { BREWCTL_ADDR: addr },
      AbortSignal.timeout(25_000),
    );
    expect(stdout).toContain("received=1 accepted=1");
    expect(code).toBe(0);
  });

  test("the output of a command is a file too", async () => {
    const script = `brewctl upload -q --input <(echo '${record("a")}')`;
    const { stdout, code } = await shell(
      script,
      { BREWCTL_ADDR: addr },
      AbortSignal.timeout(25_000),
    );
    expect(stdout).toContain("received=1 accepted=1");
    expect(code).toBe(0);
  });
});

describe("standard input", () => {
  test.each(["upload -n 1", "chat -n 1", "subscribe -n 1"])(
    "%s leaves it to the loop around it",
    async (command) => {
      const { stdout, code } = await shell(
        `printf '1\\n2\\n3\\n' | while read x; do brewctl ${command} >/dev/null 2>&1; echo "$x $?"; done`,
        { BREWCTL_ADDR: addr },
      );
      expect(stdout).toBe("1 0\n2 0\n3 0\n");
      expect(code).toBe(0);
    },
  );

  test.each(["SIGKILL", "SIGTERM"] as const)(
    "it is not waited for when the server is gone by %s",
    async (how) => {
      await using own = await serve(["--echo-delay", "0"]);
      await using client = start(["chat", "--addr", own.addr, "--input", "-"], { openStdin: true });
      client.child.stdin?.write("a\n");
      await client.output(/^< echo/m);
      own.child.kill(how);
      const { stderr, code } = await client.ended;
      expect(stderr).toContain(how === "SIGKILL" ? "network lost" : "server shutting down");
      expect(code).toBe(78);
    },
  );

  test("upload does not wait for it either when the server is gone", async () => {
    await using own = await serve();
    await using client = start(["upload", "--addr", own.addr, "--input", "-"], { openStdin: true });
    client.child.stdin?.write(`${record("a")}\n`);
    await client.output(/^sent #0/m);
    own.child.kill("SIGKILL");
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(/^stream lost, sent 1 record · UNAVAILABLE · network lost · /m);
    expect(code).toBe(78);
  });

  test.each([
    ["chat", "--limit", "1"],
    ["chat", "--for", "1s"],
    ["upload", "--limit", "1"],
    ["upload", "--for", "1s"],
  ])("%s %s %s does not wait for it", async (...args) => {
    await using client = start([...args, "--addr", addr, "--input", "-"], { openStdin: true });
    client.child.stdin?.write(`${args[0] === "chat" ? "a" : record("a")}\n`);
    expect((await client.ended).code).toBe(0);
  });

  test.each(["chat", "upload"])("a deadline ends the waiting of %s for it", async (name) => {
    const args = [name, "--addr", addr, "--input", "-", "--deadline", "1s"];
    await using client = start(args, { openStdin: true });
    expect((await client.ended).code).toBe(68);
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s ends the waiting for it", async (signal) => {
    await using client = start(["chat", "--addr", addr, "--input", "-"], { openStdin: true });
    client.child.stdin?.write("a\n");
    await client.output(/^< echo/m);
    client.child.kill(signal);
    expect((await client.ended).signal).toBe(signal);
  });

  test("the pace of --interval holds for lines too", async () => {
    await using client = start(["chat", "--addr", addr, "--input", "-", "--interval", "10m"], {
      openStdin: true,
    });
    client.child.stdin?.write("a\nb\n");
    await client.output(/^< echo from server: echo: a$/m);
    expect(client.stdout).not.toContain("> sent: b");
  });
});

test("a folder as standard input is refused, not taken for an empty one", async () => {
  const { stdout, stderr, code } = await shell(`brewctl upload --addr ${addr} --input - < /tmp`);
  expect(stdout).toBe("");
  expect(stderr).toBe(
    "brewctl: --input -: standard input is a folder\n  expected lines, from a file or a pipe\n",
  );
  expect(code).toBe(2);
});

test("a named pipe that nobody writes to does not hold up a stop rule", async () => {
  using folder = tempFolder();
  const pipe = folder.file("pipe");
  expect((await shell(`mkfifo "${pipe}"`)).code).toBe(0);
  const upload = ["upload", "--addr", addr, "--input", pipe, "-o", "ndjson"];
  const ruled = await brewctl([...upload, "--for", "200ms"]);
  expect(JSON.parse(ruled.stdout).received).toBe(0);
  expect(ruled.stderr).toContain("--for 200ms");
  expect(ruled.code).toBe(0);
  const late = await brewctl([...upload, "--deadline", "200ms"]);
  expect(late.code).toBe(68);
});
