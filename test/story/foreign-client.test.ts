/**
 * A client that has never heard of brewctl: `buf curl`, which is grpc-go with JSON, learns the
 * contract by reflection and calls each rpc.
 */

import { execFile } from "node:child_process";
import { expect, test } from "vitest";
import { cleanEnv, root, serve } from "../support/brewctl.ts";

/** Runs `buf curl` against the server, with `data` as JSON messages on its standard input. */
function bufCurl(addr: string, path: string, ...data: object[]) {
  return new Promise<{ messages: unknown[]; stderr: string; code: unknown }>((resolve) => {
    const url = `http://${addr}/${path}`;
    const args = ["curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", "@-", url];
    const child = execFile(
      `${root}node_modules/.bin/buf`,
      args,
      { env: cleanEnv({ HOME: process.env["HOME"] ?? "/" }) },
      (error, stdout, stderr) => {
        // Several messages come as several JSON documents, each indented.
        const documents = stdout.split(/(?<=^\})\n/m).filter((text) => text.trim() !== "");
        const messages = documents.map((text) => JSON.parse(text));
        resolve({ messages, stderr, code: error?.code ?? 0 });
      },
    );
    child.stdin?.end(data.map((message) => JSON.stringify(message)).join("\n"));
  });
}

const service = "orders.v1.StreamingService";

test("subscribes", async () => {
  await using server = await serve(["--tick", "1ms"]);
  const { messages, stderr } = await bufCurl(server.addr, `${service}/Subscribe`, {
    customerId: "cus-042",
    limit: 3,
  });
  expect(stderr).toBe("");
  expect(messages).toHaveLength(3);
  expect(messages[0]).toMatchObject({
    customerId: "cus-042",
    orderId: expect.stringMatching(/^ord-/),
    emittedAt: expect.stringMatching(/Z$/),
  });
});

test("uploads", async () => {
  await using server = await serve();
  const { messages } = await bufCurl(
    server.addr,
    `${service}/UploadOrders`,
    { customerId: "cus-001", amountCents: 250, currency: "EUR" },
    { customerId: "", amountCents: 1 },
    { customerId: "cus-002", amountCents: 0 },
  );
  expect(messages).toEqual([{ received: 3, accepted: 1, rejected: 2, totalCents: "250" }]);
});

test("chats", async () => {
  await using server = await serve(["--echo-delay", "1ms"]);
  const { messages } = await bufCurl(
    server.addr,
    `${service}/Chat`,
    { from: "buf", text: "hello" },
    { from: "buf", text: "bye" },
  );
  expect(messages).toMatchObject([
    { from: "server", text: "echo: hello" },
    { from: "server", text: "echo: bye" },
  ]);
});

test("asks for the health of the server and of the service", async () => {
  await using server = await serve();
  const check = "grpc.health.v1.Health/Check";
  expect((await bufCurl(server.addr, check, {})).messages).toEqual([{ status: "SERVING" }]);
  expect((await bufCurl(server.addr, check, { service })).messages).toEqual([
    { status: "SERVING" },
  ]);
  const unknown = await bufCurl(server.addr, check, { service: "no.such.Service" });
  expect(unknown.stderr).toContain("not_found");
});

test("gets UNIMPLEMENTED for a method that is in its own schema only", async () => {
  await using server = await serve();
  const { stderr, code } = await bufCurl(server.addr, `${service}/Unsubscribe`, {});
  expect(stderr).not.toBe("");
  expect(code).not.toBe(0);
});
