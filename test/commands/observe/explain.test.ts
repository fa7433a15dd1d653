/** `--explain`: a sentence for each event, and no two events in one. */

import { describe, expect, test } from "vitest";
import { Explainer } from "../../../src/commands/observe/explain.ts";
import type { CallEvent } from "../../../src/grpc/call-events.ts";

const sent: CallEvent = { kind: "sent", bytes: 30, waiting: 1 };
const received: CallEvent = { kind: "received", bytes: 31, waiting: 1 };

function explain(shape: ConstructorParameters<typeof Explainer>[0], events: CallEvent[]): string[] {
  const explainer = new Explainer(shape);
  return events.map((event, i) => explainer.explain(event, i * 10));
}

test("a chat from its headers to its trailers", () => {
  const lines = explain("bidi_streaming", [
    { kind: "requested", path: "/orders.v1.StreamingService/Chat", deadline: undefined },
    sent,
    sent,
    { kind: "accepted" },
    received,
    { kind: "half-closed" },
    received,
    { kind: "ended", code: "OK", message: "OK" },
  ]);
  expect(lines).toEqual([
    "  0.0 ms → HEADERS: POST /orders.v1.StreamingService/Chat opens a stream of its own on the HTTP/2 connection.",
    " 10.0 ms → DATA: message 1, 30 bytes of protobuf behind 5 bytes of gRPC's: whether it is compressed, and its length.",
    " 20.0 ms → DATA: message 2, 30 bytes.",
    " 30.0 ms ← HEADERS: the server answers. That promises nothing yet: gRPC's own status comes last.",
    " 40.0 ms ← DATA: message 1, 31 bytes, while our own direction is still open.",
    " 50.0 ms → END_STREAM: half-close. That was our last message; our direction is closed, the server's is open.",
    " 60.0 ms ← DATA: message 2, 31 bytes.",
    " 70.0 ms ← HEADERS, the trailers: grpc-status 0 OK. Now both directions are closed.",
  ]);
});

test("backpressure: why, and for how long", () => {
  const lines = explain("client_streaming", [
    sent,
    { kind: "blocked" },
    { kind: "unblocked" },
    sent,
    { kind: "blocked" },
    { kind: "unblocked" },
  ]);
  expect(lines[1]).toMatch(/write\(\) answered false: .*flow-control window is full.*backpressure/);
  expect(lines[2]).toMatch(/drain, after 10 ms: /);
  expect(lines[4]).toMatch(/write\(\) answered false: we wait\.$/);
});

test("the deadline travels with the request", () => {
  const [line] = explain("server_streaming", [{ kind: "requested", path: "/x", deadline: 12345 }]);
  expect(line).toContain("grpc-timeout");
});

describe("the end", () => {
  const ending = (...events: CallEvent[]) => explain("server_streaming", events).at(-1);

  test("any other status is told as it is: where it comes from cannot be seen", () => {
    expect(ending({ kind: "ended", code: "UNAVAILABLE", message: "Connection dropped" })).toMatch(
      / {3}The call ends with 14 UNAVAILABLE: Connection dropped \(A status comes in the trailers; /,
    );
  });

  test("a second call begins anew: it is not cancelled because the first was", () => {
    const failed: CallEvent = { kind: "ended", code: "INTERNAL", message: "oh" };
    const again: CallEvent = { kind: "requested", path: "/x", deadline: undefined };
    expect(ending({ kind: "cancelled" }, again, failed)).toContain("13 INTERNAL: oh");
  });

  test("cancelled by us: our own word", () => {
    const lines = explain("server_streaming", [
      { kind: "cancelled" },
      { kind: "ended", code: "CANCELLED", message: "Cancelled on client" },
    ]);
    expect(lines[0]).toContain("→ RST_STREAM: we cancel.");
    expect(lines[1]).toContain("which is our own word for it");
  });
});
