/** Errors to statuses and back. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { isTransient, StatusError, statusCodes, UsageError } from "../../src/errors.ts";
import { fromWireStatus, internalDetails, toWireStatus } from "../../src/grpc/status.ts";
import { collect, serveHandlers } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";

const failing = Object.keys(statusCodes).filter((name) => name !== "OK");

test.each(failing)("%s survives the way to the wire and back", (name) => {
  const code = name as StatusError["code"];
  const back = fromWireStatus(toWireStatus(new StatusError(code, "out of beans")));
  expect(back).toMatchObject({ name: "StatusError", code, message: "out of beans" });
});

test.each([
  ["an error", new TypeError("secret")],
  ["a string", "secret"],
  ["nothing", undefined],
  ["what looks like an error of grpc-js", { code: 5, details: "secret" }],
])("%s that is no StatusError becomes INTERNAL and tells nothing", (_, thrown) => {
  expect(toWireStatus(thrown)).toMatchObject({
    code: statusCodes.INTERNAL,
    details: internalDetails,
  });
});

test("a usage error is INVALID_ARGUMENT, and its hint stays at home", () => {
  const status = toWireStatus(new UsageError("bad flag", { hint: "secret" }));
  expect(status).toMatchObject({ code: statusCodes.INVALID_ARGUMENT, details: "bad flag" });
  expect(JSON.stringify(status)).not.toContain("secret");
});

test("a code that gRPC does not know is UNKNOWN; OK as a failure is INTERNAL", () => {
  const unknown = (code: number, details: string) => fromWireStatus({ code, details });
  expect(unknown(99, "")).toMatchObject({ code: "UNKNOWN", message: "status 99" });
  expect(unknown(-1, "odd")).toMatchObject({ code: "UNKNOWN", message: "status -1: odd" });
  expect(fromWireStatus({ code: 0, details: "" }).code).toBe("INTERNAL");
});

test("any message fits a header: cut to length and percent-encodable", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary", maxLength: 3000, size: "max" }), (text) => {
      const { details } = toWireStatus(new StatusError("ABORTED", text));
      expect(details.length).toBeLessThanOrEqual(1024);
      expect(() => encodeURI(details)).not.toThrow();
      if (text.length <= 1024 && text.isWellFormed()) {
        expect(details).toBe(text);
      }
    }),
    // To find a shorter text of thousands of units would take minutes.
    { endOnFailure: true },
  );
});

test.each([
  ["long", "x".repeat(100_000)],
  ["of half a surrogate pair", "a\ud800b"],
  ["cut within a surrogate pair", `${"x".repeat(1022)}${"\u{1f680}".repeat(10)}`],
  ["of several lines", "one\r\ntwo\0three"],
  ["in other scripts, with percent signs", "100 % café, コーヒー, 50%25"],
])("a message that is %s reaches the client", async (_, message) => {
  await using server = await serveHandlers({
    async *subscribe() {
      yield {};
      throw new StatusError("ABORTED", message);
    },
  });
  const { messages, error } = await collect(server.client.subscribe({}, { signal: never }));
  expect(messages).toHaveLength(1);
  expect(error).toMatchObject({ code: "ABORTED" });
  const { message: got } = error as StatusError;
  expect(got.slice(0, 1000)).toBe(message.toWellFormed().slice(0, 1000));
});

test("what another attempt may cure is UNAVAILABLE and CANCELLED", () => {
  const transient = failing.filter((name) =>
    isTransient(new StatusError(name as StatusError["code"], "")),
  );
  expect(transient.sort()).toEqual(["CANCELLED", "UNAVAILABLE"]);
  expect(isTransient(new Error("UNAVAILABLE"))).toBe(false);
});

test("what a peer says at great length is cut", () => {
  const { message } = fromWireStatus({ code: statusCodes.ABORTED, details: "x".repeat(100_000) });
  expect(message).toHaveLength(1024);
  expect(message).toMatch(/x…$/);
});
