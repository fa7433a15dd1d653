/**
 * Servers that send what no server of the contract sends: every field of every answer out of bounds,
 * one at a time. Nothing of it is stored, printed or logged, and nothing of it is a fault of ours.
 */

import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  toJsonString,
} from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  bridgeApiAnswers,
  headOfficeAnswers,
  streamingAnswers,
  syncEngineAnswers,
} from "../../src/commands/answer-bounds.ts";
import { StatusError } from "../../src/errors.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { BridgeApi } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import type { AnswerBounds } from "../../src/grpc/bounds.ts";
import type { UntypedHandler } from "../../src/grpc/handlers.ts";
import { implement } from "../../src/grpc/serve.ts";
import { brewctl } from "../support/brewctl.ts";
import { eventOf } from "../support/oracle.ts";
import { type Poison, poisonsOf } from "../support/poison.ts";
import { collect, unboundedOf } from "../support/serve-handlers.ts";
import { lineOf, shop } from "../support/shop.ts";
import { never, serveImplementations, type TestServer } from "../support/start-server.ts";
import { type Box, openBox } from "../support/store-box.ts";
import { tempFolder } from "../support/temp.ts";

/** What the server sends next. */
const next: { poison: Poison | undefined; headers: Record<string, string> } = {
  poison: undefined,
  headers: {},
};

/** What a good answer has, so that one field alone is bad. */
const good: Readonly<Record<string, object>> = {
  CloudCommand: {
    ...{ commandId: "cmd-1", type: "PriceUpdate", payloadJson: "{}" },
    ...{ sequence: 1n, issuedAt: 1n },
  },
  UploadSummary: { accepted: 1, received: 1 },
  ListEventsResponse: { position: 1n, eventId: "a", storeId: "store-01", type: "Sale" },
};

function answer(schema: DescMessage, more: object): object {
  const message = create(schema, { ...good[schema.name], ...more });
  next.poison?.put(message);
  return message;
}

/** Answers each call of a method with the next poison; a stream stays open after it. */
function handlerOf(method: DescMethod): UntypedHandler {
  const { output, methodKind } = method;
  if (methodKind === "unary" || methodKind === "client_streaming") {
    return async (requests, context) => {
      context.sendHeaders(next.headers);
      if (methodKind === "client_streaming") {
        for await (const _ of requests as AsyncIterable<object>) {
          // Read to its end.
        }
      }
      return answer(output, {});
    };
  }
  return async function* (requests, context) {
    context.sendHeaders(next.headers);
    if (methodKind === "server_streaming") {
      yield answer(output, {});
      return;
    }
    for await (const request of requests as AsyncIterable<{ eventId?: string }>) {
      const { eventId = "" } = request;
      yield answer(output, output.name === "EventAck" ? { eventId, ok: true } : {});
    }
  };
}

const hostile = (service: DescService) =>
  implement(
    service,
    Object.fromEntries(service.methods.map((one) => [one.localName, handlerOf(one)])) as never,
    { bounds: unboundedOf(service) },
  );

const services: readonly (readonly [DescService, AnswerBounds<DescService>])[] = [
  [StreamingService, streamingAnswers],
  [SyncEngine, syncEngineAnswers],
  [HeadOffice, headOfficeAnswers],
  [BridgeApi, bridgeApiAnswers],
];

let server: TestServer;
beforeAll(async () => {
  server = await serveImplementations(...services.map(([service]) => hostile(service)));
});
afterAll(() => server[Symbol.asyncDispose]());

const methods = services.flatMap(([service, bounds]) =>
  service.methods
    // Its reader bounds it; see below.
    .filter(({ name }) => name !== "WatchCommands")
    .map((method) => ({ name: `${service.name}.${method.name}`, service, bounds, method })),
);

describe("a client", () => {
  test.each(methods)("of $name gets no answer that is out of bounds", async (of) => {
    next.headers = {};
    const connection = server.dial();
    const client = connection.client(of.service, { bounds: of.bounds });
    const call = client[of.method.localName] as unknown as (
      request: unknown,
      options: object,
    ) => AsyncIterable<object> | Promise<object>;
    async function* one() {
      yield {};
    }
    const poisons = poisonsOf(of.method.output);
    let refused = 0;
    for (const poison of poisons) {
      next.poison = poison;
      const request = of.method.methodKind.match(/client|bidi/) ? one() : {};
      const made = call(request, { signal: never });
      const { messages, error } = await collect(made instanceof Promise ? asStream(made) : made);
      if (error !== undefined) {
        refused += 1;
        expect(error, poison.name).toBeInstanceOf(StatusError);
        expect(error, poison.name).toMatchObject({ code: "DATA_LOSS" });
        expect(String(error).length, poison.name).toBeLessThan(500);
      }
      for (const message of messages) {
        const json = toJsonString(of.method.output, message as never);
        // A payload may be as large as a payload can be.
        expect(json.replace(/"payload(Json)?":"x*"/, "").length, poison.name).toBeLessThan(70_000);
      }
    }
    expect(refused > 0).toBe(poisons.length > 0);
  });
});

async function* asStream(one: Promise<object>) {
  yield await one;
}

/** What the buffer's file holds that no cloud may bring it to hold. */
function outOfBounds({ outbox }: Box): unknown[] {
  return [
    ...outbox.database
      .prepare(
        `SELECT * FROM commands WHERE sequence NOT BETWEEN 0 AND 1099511627776
           OR issued_at NOT BETWEEN 0 AND 253402300799999
           OR length(CAST(command_id AS BLOB)) NOT BETWEEN 1 AND 128
           OR length(CAST(type AS BLOB)) NOT BETWEEN 1 AND 128
           OR length(payload) > 2097152 OR length(reason) > 1100`,
      )
      .all(),
    ...outbox.database
      .prepare("SELECT * FROM events WHERE length(reason) > 1100 OR not_before > 9007199254740991")
      .all(),
    ...outbox.database
      .prepare("SELECT * FROM cursors WHERE sequence NOT BETWEEN 0 AND 1099511627776")
      .all(),
    ...outbox.database
      .prepare("SELECT * FROM outbox WHERE length(ledger_id) > 128 OR length(alarm) > 1100")
      .all(),
  ];
}

const method = (name: string) => {
  const found = SyncEngine.methods.find((one) => one.name === name);
  if (found === undefined) {
    throw new Error(`no method ${name}`);
  }
  return found;
};

describe("a store's buffer", () => {
  test("keeps nothing out of bounds of any command", async () => {
    using folder = tempFolder();
    next.headers = { "brewctl-ledger": "ledger-1" };
    const poisons = poisonsOf(method("WatchCommands").output);
    for (const [i, poison] of poisons.entries()) {
      next.poison = poison;
      using box = openBox({ path: folder.file(`watch-${i}.db`) });
      const came = Promise.withResolvers<void>();
      await using drain = box.watch(server.address, async () => came.resolve());
      await Promise.race([
        came.promise,
        drain.told.until(({ states }) => states.some(({ kind }) => kind === "offline")),
        drain.done,
      ]);
      expect(outOfBounds(box), poison.name).toEqual([]);
    }
  }, 30_000);

  test.each(["channel", "flush"] as const)(
    "keeps nothing out of bounds of any answer of a %s",
    async (how) => {
      using folder = tempFolder();
      next.headers = { "brewctl-ledger": "ledger-1", "brewctl-seen": "0" };
      const rpc = how === "channel" ? "OperationalChannel" : "UploadBufferedEvents";
      const poisons = poisonsOf(method(rpc).output);
      // An answer for an event that was not sent changes nothing, so there is nothing to wait for.
      const answered = poisons.filter(({ name }) => !/^event_id: (129|control)/.test(name));
      for (const [i, poison] of answered.entries()) {
        next.poison = poison;
        using box = openBox({ path: folder.file(`${how}-${i}.db`) });
        box.outbox.append([eventOf("sale-1")]);
        await using drain = box[how](server.address);
        await Promise.race([
          drain.told.until(
            ({ states, answers, summaries }) =>
              answers.length + summaries.length > 0 ||
              states.some(({ kind }) => kind === "offline"),
          ),
          drain.done,
        ]);
        expect(outOfBounds(box), poison.name).toEqual([]);
      }
    },
    30_000,
  );

  test.each([
    { "brewctl-ledger": "x".repeat(129) },
    { "brewctl-ledger": "ledger-1", "brewctl-seen": "-1" },
    { "brewctl-ledger": "ledger-1", "brewctl-seen": "9007199254740993" },
    { "brewctl-ledger": "ledger-1", "brewctl-seen": "many" },
  ])("keeps nothing of the headers %j, and the link waits", async (headers) => {
    using folder = tempFolder();
    next.headers = headers;
    next.poison = undefined;
    using box = openBox({ path: folder.file("buffer.db") });
    box.outbox.append([eventOf("sale-1")]);
    await using drain = box.flush(server.address);
    await drain.told.until(({ states }) => states.some(({ kind }) => kind === "offline"));
    expect(drain.told.states).toContainEqual(
      expect.objectContaining({ why: expect.stringContaining("a header that is out of bounds") }),
    );
    expect(box.outbox.counts().acked).toBe(0);
    expect(outOfBounds(box)).toEqual([]);
  });
});

/** Of each kind one poison, in a field that every one of these answers has. */
const commands: readonly (readonly [string, DescMessage])[] = [
  ["subscribe --limit 1", StreamingService.method.subscribe.output],
  ["upload --count 1 --pause 0", StreamingService.method.uploadOrders.output],
  ["chat --count 1 --interval 0", StreamingService.method.chat.output],
  ["store-sync watch --store store-01 --for 300ms", SyncEngine.method.watchCommands.output],
  ["store-sync channel --for 300ms", SyncEngine.method.operationalChannel.output],
  ["store-sync flush --deadline 300ms", SyncEngine.method.uploadBufferedEvents.output],
  ["head-office stores", HeadOffice.method.listStores.output],
  ["head-office events", HeadOffice.method.listEvents.output],
  ["head-office commands", HeadOffice.method.listCommands.output],
  [
    "head-office command --store store-01 --type PriceUpdate",
    HeadOffice.method.issueCommand.output,
  ],
];

describe("brewctl", () => {
  test.each(commands)(
    "%s neither fails by a fault of ours nor prints without end",
    async (line, output) => {
      using store = shop();
      await store.sync("record --store store-01 --input - -q", `${lineOf("sale-1")}\n`);
      next.headers = { "brewctl-ledger": "ledger-1" };
      const all = poisonsOf(output);
      const worst = ["1 MB", "2^63 - 1", "2^31 - 1"].flatMap(
        (what) => all.find(({ name }) => name.endsWith(what)) ?? [],
      );
      // All of a kind at once.
      for (const { name } of worst) {
        const what = name.slice(name.indexOf(": "));
        const kind = all.filter((one) => one.name.endsWith(what) && !/payload|\./.test(one.name));
        const put = (message: object) => {
          for (const one of kind) {
            one.put(message);
          }
        };
        next.poison = { name: what, put };
        const { stdout, stderr, code } = await brewctl(
          [...line.split(" "), "--addr", `127.0.0.1:${server.port}`],
          { env: store.env },
        );
        expect(code, `${what}: ${stderr.slice(0, 2_000)}`).not.toBe(1);
        expect(stdout.length + stderr.length, what).toBeLessThan(20_000);
      }
    },
    30_000,
  );
});
