/** The proxy of the environment: who goes through it, and what is said when it fails. */

import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { dial } from "../../src/grpc/dial.ts";
import { proxyFor } from "../../src/grpc/proxy.ts";
import { failure } from "../support/serve-handlers.ts";
import { never, serveLesson } from "../support/start-server.ts";
import { closedPort } from "../support/temp.ts";

/** A host of RFC 5737 that nobody has: only a proxy can connect to it. */
const host = "192.0.2.77";
const elsewhere = { kind: "tcp", host, port: 50052 } as const;

beforeEach(() => {
  for (const name of [
    ...["grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"],
  ]) {
    vi.stubEnv(name, "");
  }
});
afterEach(() => {
  vi.unstubAllEnvs();
});

describe("no_proxy", () => {
  const env = { http_proxy: "http://proxy.example:3128" };
  test.each([
    ["192.0.2.77", true],
    ["localhost, 192.0.2.77", true],
    [" 192.0.2.77 ,", true],
    ["192.0.2.0/24", true],
    ["192.0.2.0/28", false],
    ["*", true],
    ["localhost,", false],
    [",", false],
    ["192.0.2.7", false],
  ])("%j exempts the host: %s", (no_proxy, isExempt) => {
    expect(proxyFor(host, { ...env, no_proxy }) === undefined).toBe(isExempt);
  });

  test("exempts the hosts of a domain, whatever the case", () => {
    const withDomain = { ...env, no_proxy: "localhost, .Shop.example" };
    expect(proxyFor("cloud.shop.example", withDomain)).toBeUndefined();
    expect(proxyFor("cloud.other.example", withDomain)).toBeDefined();
  });

  test("is not read where no_grpc_proxy is set", () => {
    expect(proxyFor(host, { ...env, no_grpc_proxy: "localhost", no_proxy: host })).toBeDefined();
  });
});

test("the variable, the port and the credentials are those that grpc-js documents", () => {
  const env = { http_proxy: "http://a.example", https_proxy: "http://us%20er:p%40ss@b.example:81" };
  expect(proxyFor(host, env)).toEqual({
    ...{ address: "b.example:81", variable: "https_proxy", credentials: "us er:p@ss" },
  });
  expect(proxyFor(host, { ...env, grpc_proxy: "http://c.example" })).toEqual({
    ...{ address: "c.example:80", variable: "grpc_proxy", credentials: undefined },
  });
  expect(proxyFor(host, { http_proxy: "socks5://a.example" })).toBeUndefined();
});

test("calls go through the proxy to the server", async () => {
  await using server = await serveLesson();
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const proxy = createServer().on("connect", ({ url, headers }, socket: Socket) => {
    asked.push(`${url} ${headers["proxy-authorization"]}`);
    const onward = connect(server.port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      socket.pipe(onward).pipe(socket);
    });
    for (const end of [socket, onward]) {
      sockets.add(end.on("error", () => {}));
    }
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const { port } = proxy.address() as AddressInfo;
  vi.stubEnv("http_proxy", `http://user:secret@127.0.0.1:${port}`);
  const connection = dial(elsewhere);
  await connection.ready({ signal: never });
  expect(asked).toEqual([`192.0.2.77:50052 Basic ${btoa("user:secret")}`]);
  connection.close();
  for (const socket of sockets) {
    socket.destroy();
  }
  proxy.close();
});

test.each([
  ["refuses", async () => `127.0.0.1:${await closedPort()}`, "no connection"],
  ["is no host", async () => "no-such-proxy.invalid:3128", "no such host"],
])(
  "a proxy that %s is named with its variable, and the server is not blamed",
  async (_, at, why) => {
    const address = await at();
    vi.stubEnv("http_proxy", `http://user:secret@${address}`);
    const connection = dial(elsewhere);
    expect(await failure(connection.ready({ signal: never }))).toMatchObject({
      code: "UNAVAILABLE",
      message: `cannot reach 192.0.2.77:50052 through the proxy ${address} of http_proxy: ${why}`,
      hint: "check http_proxy, or name the server in no_proxy if it can be reached without",
    });
    connection.close();
  },
);
