/** `brewctl upload`: its flags, what it prints, and every way in which it ends. Input: see input.test.ts. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StatusError } from "../../src/errors.ts";
import { brewctl, type Served, serve, start } from "../support/brewctl.ts";
import { serveHandlers } from "../support/serve-handlers.ts";
import { closedPort } from "../support/temp.ts";

let server: Served;
let addr: string;
beforeAll(async () => {
  server = await serve();
  addr = server.addr;
});
afterAll(() => server[Symbol.asyncDispose]());

/** Another call's answer: by then the server has read what was sent to it before. */
const caughtUp = async (own: Served) => {
  expect((await brewctl(["chat", "--addr", own.addr, "-n", "0"])).code).toBe(0);
};
const upload = (...args: string[]) => brewctl(["upload", "--addr", addr, ...args]);

describe("output", () => {
  test("text is a line a record, then the summary", async () => {
    const { stdout, stderr, code } = await upload("--pause", "1ms");
    const records = Array.from({ length: 20 }, (_, i) => {
      const amount = i < 3 ? 0 : 100 + 10 * i;
      return `sent #${i} customer=cus-00${i % 5} amount=${amount}\n`;
    });
    expect(stdout).toBe(
      `${records.join("")}---\nsummary: received=20 accepted=17 rejected=3 total_cents=3570\n`,
    );
    expect(stderr).toMatch(
      /^stream closed by server, sent 20 records · OK · summary received · \d+\.\d\d s\n$/,
    );
    expect(code).toBe(0);
  });

  test("ndjson is the summary alone, int64 as a string", async () => {
    const { stdout, code } = await upload("--pause", "0", "-o", "ndjson");
    expect(stdout).toBe('{"received":20,"accepted":17,"rejected":3,"totalCents":3570}\n');
    expect(code).toBe(0);
  });

  test("ndjson has the fields that are at their defaults", async () => {
    const { stdout } = await upload("--count", "0", "-o", "ndjson");
    expect(stdout).toBe('{"received":0,"accepted":0,"rejected":0,"totalCents":0}\n');
  });

  test("BREWCTL_OUTPUT and BREWCTL_ADDR are read", async () => {
    const env = { BREWCTL_OUTPUT: "ndjson", BREWCTL_ADDR: addr };
    const { stdout } = await brewctl(["upload", "-n", "1", "--bad", "0"], { env });
    expect(stdout).toBe('{"received":1,"accepted":1,"rejected":0,"totalCents":100}\n');
  });

  test("quiet leaves the data", async () => {
    const { stdout, stderr } = await upload("-q", "-n", "1");
    expect(stdout).toBe(
      "sent #0 customer=cus-000 amount=0\n---\nsummary: received=1 accepted=0 rejected=1 total_cents=0\n",
    );
    expect(stderr).toBe("");
  });
});

describe("flags", () => {
  test.each([
    [["-bad=5"], "received=20 accepted=15 rejected=5 total_cents=3300"],
    [["-bad", "5"], "received=20 accepted=15 rejected=5 total_cents=3300"],
    [["--bad=0"], "received=20 accepted=20 rejected=0 total_cents=3900"],
    [["-count=1", "-bad=0"], "received=1 accepted=1 rejected=0 total_cents=100"],
    [["-n", "2", "--bad", "9"], "received=2 accepted=0 rejected=2 total_cents=0"],
    [["--count", "0"], "received=0 accepted=0 rejected=0 total_cents=0"],
    [["-n", "30", "--limit", "2", "-bad=1"], "received=2 accepted=1 rejected=1 total_cents=110"],
  ])("%j", async (args, summary) => {
    const { stdout, code } = await upload("-pause=0", ...args);
    expect(stdout.split("---\n")[1]).toBe(`summary: ${summary}\n`);
    expect(code).toBe(0);
  });

  test.each(["-interval=1ms", "--interval=1ms", "-pause=1ms"])("%s sets the pace", async (flag) => {
    expect((await upload(flag, "-n", "3")).code).toBe(0);
  });

  test("a pace is kept", async () => {
    await using client = start(["upload", "--addr", addr, "--pause", "10m", "-n", "3"]);
    await client.output(/^sent #0 /m);
    client.child.kill("SIGINT");
    const { stdout, stderr } = await client.ended;
    expect(stdout).not.toContain("sent #1");
    expect(stderr).toMatch(/^stream cancelled by client, sent 1 record · Ctrl\+C · /m);
  });

  test.each([
    [["--pause", "1ms", "--interval", "1ms"], "--pause"],
    [["--input", "-", "--count", "3"], "--count"],
    [["--input", "-", "--bad", "3"], "--bad"],
    [["--expect", "3"], "--within"],
    [["--within", "3s"], "--expect"],
    [["--limit", "0"], "--limit"],
    [["--count", "-1"], "--count"],
    [["--bad", "-1"], "--bad"],
  ])("%j is refused", async (args, named) => {
    const { stdout, stderr, code } = await brewctl(["upload", "--addr", "127.0.0.1:1", ...args]);
    expect(stdout).toBe("");
    expect(stderr).toContain(named);
    expect(code).toBe(2);
  });
});

describe("verdicts", () => {
  test("records that were rejected exit 3, if asked", async () => {
    const { stdout, stderr, code } = await upload("--pause", "0", "--fail-on-rejected");
    expect(stdout).toContain("rejected=3");
    expect(stderr).toMatch(/^stream closed by server, sent 20 records · OK · 3 rejected · /);
    expect(code).toBe(3);
  });

  test("--fail-on-rejected without any rejected is success", async () => {
    const { stderr, code } = await upload("--pause", "0", "--bad", "0", "--fail-on-rejected");
    expect(stderr).toContain("· OK · summary received ·");
    expect(code).toBe(0);
  });

  test("--for ends the sending, and the summary comes", async () => {
    const { stdout, stderr, code } = await upload("--pause", "10m", "-n", "5", "--for", "2s");
    expect(stdout).toContain("summary: received=1 accepted=0 rejected=1 total_cents=0\n");
    expect(stderr).toMatch(/^stream closed by server, sent 1 record · OK · .*--for 2s/);
    expect(code).toBe(0);
  });

  test("--limit ends the sending, and the summary comes", async () => {
    const { stdout, stderr, code } = await upload("--pause", "0", "--limit", "4");
    expect(stdout).toContain("summary: received=4 accepted=1 rejected=3 total_cents=130\n");
    expect(stderr).toMatch(/^stream closed by server, sent 4 records · OK · .*limit reached/);
    expect(code).toBe(0);
  });

  test("--idle ends the sending, and the summary comes", async () => {
    await using client = start(["upload", "--addr", addr, "--input", "-", "--idle", "500ms"], {
      openStdin: true,
    });
    const { stdout, stderr, code } = await client.ended;
    expect(stdout).toContain("summary: received=0");
    expect(stderr).toMatch(/^stream closed by server, sent 0 records · OK · .*idle for 500ms/);
    expect(code).toBe(0);
  });

  test("an expectation met is success", async () => {
    const { code } = await upload("--pause", "0", "--expect", "17", "--within", "20s");
    expect(code).toBe(0);
  });

  test("an expectation that the summary leaves unmet exits 4", async () => {
    const { stderr, code } = await upload("--pause", "0", "--expect", "18", "--within", "20s");
    expect(stderr).toMatch(
      /^stream closed by server, sent 20 records · OK · summary received, expected 18 · /,
    );
    expect(code).toBe(4);
  });

  test("an expectation not met in time exits 4", async () => {
    const { stderr, code } = await upload("--pause", "10m", "--expect", "1", "--within", "1s");
    expect(stderr).toMatch(/^stream cancelled by client, sent 1 record · expected 1 within 1s · /);
    expect(code).toBe(4);
  });

  test.each([
    ["SIGINT", "Ctrl\\+C"],
    ["SIGTERM", "SIGTERM"],
  ] as const)("%s cancels, and is what it dies of", async (signal, why) => {
    await using own = await serve();
    await using client = start(["upload", "--addr", own.addr, "--pause", "10m"]);
    await client.output(/^sent #0/m);
    await caughtUp(own);
    client.child.kill(signal);
    const ended = await client.ended;
    expect(ended.stderr).toMatch(
      new RegExp(`^stream cancelled by client, sent 1 record · ${why} · `),
    );
    expect(ended.stdout).not.toContain("summary");
    expect(ended.signal).toBe(signal);
    await own.output(/^upload ended: client gone received=1 accepted=0 rejected=1$/m);
  });

  test("a deadline ends the call with 68", async () => {
    const { stdout, stderr, code } = await upload("--pause", "10m", "--deadline", "1s");
    expect(stdout).not.toContain("summary");
    expect(stderr).toMatch(
      /^stream ended by deadline, sent 1 record · DEADLINE_EXCEEDED · deadline 1s · /,
    );
    expect(code).toBe(68);
  });

  test("what was sent and has no summary is said, also when no talk is wanted", async () => {
    await using own = await serve();
    await using client = start(["upload", "--addr", own.addr, "-n", "3", "--pause", "10m", "-q"]);
    await client.output(/^sent #0/m);
    own.child.kill("SIGKILL");
    const { stderr } = await client.ended;
    expect(stderr).toMatch(
      /^no summary came: the server may or may not have taken the record; look there before sending again\nbrewctl: UNAVAILABLE/,
    );
  });

  test("a server that is killed is a lost network", async () => {
    await using own = await serve();
    await using client = start(["upload", "--addr", own.addr, "--pause", "10m"]);
    await client.output(/^sent #0/m);
    own.child.kill("SIGKILL");
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(/^stream lost, sent 1 record · UNAVAILABLE · network lost · /);
    expect(code).toBe(78);
  });

  test("a server that shuts down lets it finish", async () => {
    await using own = await serve();
    await using client = start(["upload", "--addr", own.addr, "--input", "-"], { openStdin: true });
    client.child.stdin?.write('{"customerId":"a","amountCents":"1"}\n');
    await client.output(/^sent #0/m);
    await caughtUp(own);
    own.child.kill("SIGTERM");
    await own.output(/^graceful stop$/m);
    client.child.stdin?.end('{"customerId":"b","amountCents":"2"}\n');
    const { stdout, code } = await client.ended;
    expect(stdout).toContain("summary: received=2 accepted=2 rejected=0 total_cents=3\n");
    expect(code).toBe(0);
    expect((await own.ended).code).toBe(0);
  });

  test("a server whose grace is over says so", async () => {
    await using own = await serve(["--grace", "50ms"]);
    await using client = start(["upload", "--addr", own.addr, "--pause", "10m"]);
    await client.output(/^sent #0/m);
    await caughtUp(own);
    own.child.kill("SIGTERM");
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(
      /^stream closed by server, sent 1 record · UNAVAILABLE · server shutting down · /,
    );
    expect(code).toBe(78);
    expect((await own.ended).code).toBe(0);
  });

  test("a refusal in the middle is told in the server's words", async () => {
    await using own = await serveHandlers({
      async uploadOrders() {
        throw new StatusError("RESOURCE_EXHAUSTED", "no more today");
      },
    });
    const { stderr, code } = await brewctl([
      ...["upload", "--addr", `127.0.0.1:${own.port}`, "--pause", "10m"],
    ]);
    expect(stderr).toMatch(
      /^stream closed by server, sent [01] records? · RESOURCE_EXHAUSTED · no more today · /,
    );
    expect(stderr).toContain("brewctl: RESOURCE_EXHAUSTED: no more today\n");
    expect(code).toBe(72);
  });

  const wrongSummary = /does not agree|before our half-close|says (received|accepted)=/;

  test.each<[string, object, string]>([
    ["fewer than were sent", { received: 1, accepted: 1 }, "received=1, and 3 were sent"],
    ["int32's end", { received: 2 ** 31 - 1, accepted: 3 }, "received=2147483647, and 3 were sent"],
    ["a wrong sum", { received: 3, accepted: 1, rejected: 1 }, "which are not received=3"],
    ["nothing", {}, "received=0, and 3 were sent"],
  ])("a summary that claims %s is said, and exits 79", async (_, summary, words) => {
    await using own = await serveHandlers({
      async uploadOrders(records) {
        for await (const _ of records) {
          // Read to its end.
        }
        return summary;
      },
    });
    const args = ["upload", "--addr", `127.0.0.1:${own.port}`, "-n", "3", "--pause", "0"];
    for (const more of [[], ["-o", "ndjson"], ["-q"]]) {
      const { stdout, stderr, code } = await brewctl([...args, ...more]);
      expect(stdout).toMatch(/received/);
      expect(stderr).toContain(words);
      expect(stderr).toMatch(wrongSummary);
      expect(code).toBe(79);
    }
  });

  test("an OK before our half-close is said, and exits 79", async () => {
    await using own = await serveHandlers({
      async uploadOrders(records) {
        for await (const _ of records) {
          return { received: 1, rejected: 1 };
        }
        return {};
      },
    });
    const { stderr, code } = await brewctl([
      ...["upload", "--addr", `127.0.0.1:${own.port}`, "--pause", "10m"],
    ]);
    expect(stderr).toMatch(/^stream closed by server, sent [01] records? · DATA_LOSS · /);
    expect(stderr).toContain("ended the call with OK before our half-close");
    expect(code).toBe(79);
  });

  test("no server is exit 78", async () => {
    const port = await closedPort();
    const { stdout, stderr, code } = await brewctl(["upload", "--addr", `127.0.0.1:${port}`]);
    expect(stdout).toBe("");
    expect(stderr).toContain(`no server at 127.0.0.1:${port}\n`);
    expect(code).toBe(78);
  });
});
