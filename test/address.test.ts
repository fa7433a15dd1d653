/** Addresses, as the command line writes them. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { formatAddress, isLocal, parseAddress } from "../src/address.ts";

const tcp = (host: string, port: number) => ({ kind: "tcp", host, port }) as const;

test.each([
  ["localhost:50052", tcp("localhost", 50052)],
  [":50052", tcp("", 50052)],
  ["127.0.0.1:0", tcp("127.0.0.1", 0)],
  ["[::1]:50052", tcp("::1", 50052)],
  ["[fe80::1%eth0]:65535", tcp("fe80::1%eth0", 65535)],
  ["brew.example.com:443", tcp("brew.example.com", 443)],
  ["unix:/run/brew.sock", { kind: "unix", path: "/run/brew.sock" }],
  ["unix:///run/brew.sock", { kind: "unix", path: "/run/brew.sock" }],
  ["unix:brew.sock", { kind: "unix", path: "brew.sock" }],
])("%s", (text, address) => {
  expect(parseAddress(text)).toEqual(address);
  expect(parseAddress(formatAddress(parseAddress(text)))).toEqual(address);
});

test.each([
  ["", "host:port"],
  ["localhost", "host:port"],
  ["localhost:", "host:port"],
  ["localhost:http", "host:port"],
  ["localhost:-1", "host:port"],
  ["::1:50052", "host:port"],
  ["http://localhost:50052", "host:port"],
  ["localhost:50052/", "host:port"],
  [" localhost:1", "host:port"],
  ["a b:1", "host:port"],
  ["localhost:1\n", "host:port"],
  ["localhost:65536", "from 0 to 65535"],
  ["localhost:99999", "from 0 to 65535"],
  ["unix:", "path of a socket"],
  ["unix:/run/", "path of a socket"],
  [`unix:/${"x".repeat(103)}`, "at most 103 bytes"],
  [`unix:/${"é".repeat(52)}`, "at most 103 bytes"],
])("%j is no address", (text, expected) => {
  expect(() => parseAddress(text)).toThrow(RangeError);
  expect(() => parseAddress(text)).toThrow(expected);
});

test("what is written is read back", () => {
  const host = fc.oneof(fc.constant(""), fc.domain(), fc.ipV4(), fc.ipV6());
  const port = fc.integer({ min: 0, max: 65535 });
  fc.assert(
    fc.property(host, port, (host, port) => {
      expect(parseAddress(formatAddress(tcp(host, port)))).toEqual(tcp(host, port));
    }),
  );
});

test("this machine is local, others are not", () => {
  for (const host of ["", "localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1"]) {
    expect([host, isLocal(tcp(host, 1))]).toEqual([host, true]);
  }
  for (const host of ["128.0.0.1", "127.0.0.1.example.com", "localhost.example.com", "::2"]) {
    expect([host, isLocal(tcp(host, 1))]).toEqual([host, false]);
  }
  expect(isLocal({ kind: "unix", path: "/run/brew.sock" })).toBe(true);
});
