/** The lines of `-o ndjson`: one form for each kind of value, whatever message it is in. */

import { create, fromJson } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ndjson } from "../../src/commands/output.ts";
import { OrderEventSchema } from "../../src/gen/orders/v1/streaming_pb.ts";
import {
  CancelCommandResponseSchema,
  CommandState,
  ListCommandsResponseSchema,
} from "../../src/gen/sync/v1/head_office_pb.ts";
import { RefusalCode, UploadSummarySchema } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { noon } from "../support/open-ledger.ts";

test("64-bit integers are numbers while they are exact, also within lists of messages", () => {
  const stores = [1n, 2n ** 53n - 1n, 2n ** 53n, -(2n ** 63n)].map((sequence) => ({ sequence }));
  const { stores: printed } = JSON.parse(
    ndjson(CancelCommandResponseSchema, create(CancelCommandResponseSchema, { stores })),
  );
  expect(printed.map(({ sequence }: { sequence: unknown }) => sequence)).toEqual([
    ...[1, Number.MAX_SAFE_INTEGER, "9007199254740992", "-9223372036854775808"],
  ]);
});

test("a text that looks like a number stays a text", () => {
  const message = create(ListCommandsResponseSchema, { commandId: "7", payloadJson: "7" });
  expect(JSON.parse(ndjson(ListCommandsResponseSchema, message))).toMatchObject({
    ...{ commandId: "7", payloadJson: "7" },
  });
});

test("states and codes have the names that the flags have, and an unknown one is a number", () => {
  const stateOf = (state: number) =>
    JSON.parse(ndjson(ListCommandsResponseSchema, fromJson(ListCommandsResponseSchema, { state })))
      .state;
  expect([CommandState.APPLIED, CommandState.CANCELLED, 0, 99].map(stateOf)).toEqual([
    ...["applied", "cancelled", "unspecified", 99],
  ]);
  const refusals = [{ code: RefusalCode.SEQ_TAKEN }];
  const summary = ndjson(UploadSummarySchema, create(UploadSummarySchema, { refusals }));
  expect(JSON.parse(summary).refusals).toMatchObject([{ code: "seq-taken" }]);
});

test("a time has milliseconds, whatever it is", () => {
  const emittedAt = [0, 7, 120].map((ms) =>
    ndjson(
      OrderEventSchema,
      create(OrderEventSchema, { emittedAt: timestampFromMs(noon + ms) }),
    ).replace(/.*emittedAt":"([^"]+).*/, "$1"),
  );
  expect(emittedAt).toEqual([
    "2026-01-02T12:00:00.000Z",
    "2026-01-02T12:00:00.007Z",
    "2026-01-02T12:00:00.120Z",
  ]);
});
