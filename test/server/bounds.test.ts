/**
 * Every field of every request of every service, out of its bounds: the call is refused, nothing of it
 * is kept or logged at length, and the next call is answered. The services are those that the server
 * itself lists, so a new one is covered without a change here.
 */

import { once } from "node:events";
import { DatabaseSync } from "node:sqlite";
import {
  create,
  createFileRegistry,
  type DescField,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type Message,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { type Appended, type NewEvent, Outbox } from "../../src/bridge/outbox.ts";
import { systemClock } from "../../src/clock.ts";
import { statusCodes } from "../../src/errors.ts";
import { Health } from "../../src/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import { GroupCommit } from "../../src/group-commit.ts";
import { maxMessageLength } from "../../src/log.ts";
import { serveBridgeApi } from "../../src/server/bridge-api.ts";
import { frame, rawClient } from "../support/raw-call.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { each } from "../support/serve-handlers.ts";
import { loopback, never, type TestServer, testServer } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testLog } from "../support/test-log.ts";

/** What fits a message of 4 MiB. */
const many = 100_000;

/** One byte beyond the bound of a name, and beyond that of any other text but an event's payload. */
const lengths = [129, 2 ** 20 + 1];

const int64s = [-1n, 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n)];
const int32s = [-1, 2 ** 31 - 1, -(2 ** 31)];

/** The methods of all services that a server has, as it describes them itself. */
async function methodsOf(server: TestServer): Promise<DescMethod[]> {
  const client = server.dial().client(ServerReflection);
  const ask = async (messageRequest: Parameters<typeof create<typeof Request>>[1] & object) => {
    for await (const { messageResponse } of client.serverReflectionInfo(each([messageRequest]), {
      signal: never,
    })) {
      return messageResponse;
    }
    throw new Error("no answer");
  };
  const listed = await ask({ messageRequest: { case: "listServices", value: "" } });
  const methods: DescMethod[] = [];
  for (const { name } of listed.case === "listServicesResponse" ? listed.value.service : []) {
    const answer = await ask({ messageRequest: { case: "fileContainingSymbol", value: name } });
    const files = answer.case === "fileDescriptorResponse" ? answer.value.fileDescriptorProto : [];
    const file = files.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
    const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: file.reverse() }));
    methods.push(...(registry.getService(name)?.methods ?? []));
  }
  return methods;
}
const Request = ServerReflection.method.serverReflectionInfo.input;

interface Attack {
  readonly what: string;
  readonly message: Message;
}

/** Requests that are empty but for one field, which has values that no bound allows. */
function* attacksOn(schema: DescMessage, depth = 0): Generator<Attack> {
  for (const field of schema.fields) {
    for (const [value, note] of valuesOf(field, depth)) {
      const message = create(schema);
      const mirror = reflect(schema, message);
      if (field.fieldKind === "list") {
        const list = mirror.get(field);
        for (const item of value as unknown[]) {
          list.add(item as never);
        }
      } else {
        mirror.set(field, value as never);
      }
      yield { what: `${field.name}: ${note}`, message };
    }
  }
}

function* valuesOf(field: DescField, depth: number): Generator<[unknown, string]> {
  if (field.fieldKind === "list") {
    if (field.listKind === "message") {
      yield [Array.from({ length: 25_000 }, () => reflect(field.message)), "25000 items"];
    } else if (field.listKind === "scalar") {
      const item = field.scalar === ScalarType.STRING ? "s" : 1;
      yield [Array.from({ length: many }, () => item), `${many} items`];
    }
  }
  if (field.message !== undefined && depth < 2) {
    for (const { what, message } of attacksOn(field.message, depth + 1)) {
      const value = reflect(field.message, message);
      yield [field.fieldKind === "list" ? [value] : value, what];
    }
    return;
  }
  const scalar = field.fieldKind === "enum" ? ScalarType.INT32 : field.scalar;
  for (const [value, note] of scalarsOf(scalar)) {
    yield [field.fieldKind === "list" ? [value] : value, note];
  }
}

function* scalarsOf(scalar: ScalarType | undefined): Generator<[unknown, string]> {
  switch (scalar) {
    case ScalarType.STRING:
      yield* lengths.map((length): [string, string] => ["s".repeat(length), `${length} bytes`]);
      return;
    case ScalarType.BYTES:
      yield* lengths.map((length): [Buffer, string] => [Buffer.alloc(length), `${length} bytes`]);
      return;
    case ScalarType.INT64:
      yield* int64s.map((number): [bigint, string] => [number, String(number)]);
      return;
    case ScalarType.INT32:
      yield* int32s.map((number): [number, string] => [number, String(number)]);
  }
}

const { INTERNAL, UNKNOWN, UNIMPLEMENTED } = statusCodes;

/** So many attacks are under way together. */
const maxTogether = 16;

/** Sends each attack as a call of its own, and good calls among them. */
async function attack(server: TestServer, methods: readonly DescMethod[]): Promise<number> {
  await using raw = rawClient(server.port);
  const health = server.dial().client(Health);
  const one = async (method: DescMethod, { what, message }: Attack) => {
    const path = `/${method.parent.typeName}/${method.name}`;
    const { code, body } = await callOf(raw, path, toBinary(method.input, message));
    expect([INTERNAL, UNKNOWN, UNIMPLEMENTED], `${path} ${what}`).not.toContain(code);
    expect(body.length, `${path} ${what}`).toBeLessThan(64 * 1024);
  };
  let calls = 0;
  let together: Promise<void>[] = [];
  for (const method of methods) {
    for (const next of attacksOn(method.input)) {
      together.push(one(method, next));
      calls += 1;
      if (together.length === maxTogether) {
        await Promise.all([...together, health.check({}, { signal: never })]);
        together = [];
      }
    }
  }
  await Promise.all([...together, health.check({}, { signal: never })]);
  return calls;
}

/** A stream that goes on without end, such as a subscription, is left after its first bytes. */
async function callOf(raw: ReturnType<typeof rawClient>, path: string, request: Uint8Array) {
  const stream = raw.open(path);
  let code: number | undefined;
  const note = (headers: Record<string, unknown>) => {
    code = headers["grpc-status"] === undefined ? code : Number(headers["grpc-status"]);
  };
  stream.on("response", note);
  stream.on("trailers", note);
  const chunks: Buffer[] = [];
  const settled = Promise.race([
    once(stream, "close"),
    new Promise<void>((resolve) => {
      stream.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        if (Buffer.concat(chunks).length > 5) {
          setImmediate(resolve);
        }
      });
    }),
  ]);
  stream.end(frame(request));
  await settled;
  stream.destroy();
  return { code, body: Buffer.concat(chunks) };
}

/** The longest text, and the integers beyond what JavaScript holds, of all tables of a file. */
function contentOf(path: string): { longest: number; unsafe: number; rows: number } {
  using sqlite = new DatabaseSync(path, { readOnly: true });
  const found = { longest: 0, unsafe: 0, rows: 0 };
  const tables = sqlite.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all();
  for (const { name: table } of tables) {
    const columns = sqlite.prepare(`SELECT name FROM pragma_table_info('${table}')`).all();
    for (const { name } of columns) {
      const row = sqlite
        .prepare(
          `SELECT coalesce(max(iif(typeof("${name}") IN ('text', 'blob'), octet_length("${name}"), 0)), 0) AS longest,
             count(iif(typeof("${name}") = 'integer' AND
               "${name}" NOT BETWEEN -9007199254740991 AND 9007199254740991, 1, NULL)) AS unsafe,
             count(*) AS rows FROM "${table}"`,
        )
        .get();
      found.longest = Math.max(found.longest, Number(row?.["longest"]));
      found.unsafe += Number(row?.["unsafe"]);
      found.rows += String(table).startsWith("sqlite_") ? 0 : Number(row?.["rows"]);
    }
  }
  return found;
}

/** A message, and a few fields of at most 512 characters, quoted. */
const maxLineLength = maxMessageLength + 4 * 6 * 512;

/** A store's bridge, as its tills see it. */
async function serveTills(path: string): Promise<TestServer> {
  const outbox = new Outbox({ path, storeId: "store-01", now: Date.now });
  const log = testLog();
  const server = await serveBridgeApi({
    ...{ addresses: [loopback(0)], storeId: "store-01", clock: systemClock, log },
    commits: new GroupCommit<NewEvent, Appended>({
      clock: systemClock,
      commit: (events) => outbox.append(events),
    }),
    status: () => ({
      ...{ storeId: "store-01", pending: 0n, parked: 0n, oldestUnacked: 0n },
      ...{ link: "offline", why: "", receivedSequence: 0n, appliedSequence: 0n },
      ...{ commandsParked: 0n, epoch: "a", bytes: 0n, version: "1", alarms: [] },
    }),
  });
  const [at] = server.addresses;
  const stop = async (options: Parameters<typeof server.stop>[0]) => {
    await server.stop(options);
    outbox.close();
  };
  return testServer({ port: at?.kind === "tcp" ? at.port : undefined, stop }, log);
}

describe("every field of every request out of its bounds", () => {
  test("harms neither the cloud nor its ledger nor its log", async () => {
    using folder = tempFolder();
    let log: readonly string[] = [];
    {
      await using cloud = await serveCloud({ dataDir: folder.path });
      const methods = await methodsOf(cloud);
      expect(methods.map(({ parent }) => parent.typeName)).toContain("sync.v1.HeadOffice");
      expect(await attack(cloud, methods)).toBeGreaterThan(200);
      log = cloud.log.lines;
    }
    const { longest, unsafe } = contentOf(folder.file("ledger.db"));
    expect(longest).toBeLessThanOrEqual(1024);
    expect(unsafe).toBe(0);
    expect(log.filter((line) => line.startsWith("ERROR"))).toEqual([]);
    expect(Math.max(...log.map((line) => line.length))).toBeLessThan(maxLineLength);
  });

  test("harms neither a store's bridge nor its log", async () => {
    using folder = tempFolder();
    await using tills = await serveTills(folder.file("buffer.db"));
    const methods = await methodsOf(tills);
    expect(methods.map(({ parent }) => parent.typeName)).toContain("sync.v1.BridgeApi");
    expect(await attack(tills, methods)).toBeGreaterThan(30);
    expect(tills.log.lines.filter((line) => line.startsWith("ERROR"))).toEqual([]);
    expect(Math.max(...tills.log.lines.map((line) => line.length))).toBeLessThan(maxLineLength);
  });

  test("in the metadata ends the call with INVALID_ARGUMENT", async () => {
    using folder = tempFolder();
    {
      await using cloud = await serveCloud({ dataDir: folder.path, opensLedger: true });
      await using raw = rawClient(cloud.port);
      for (const method of ["WatchCommands", "UploadBufferedEvents", "OperationalChannel"]) {
        for (const headers of [
          { "brewctl-store": "s".repeat(8_000) },
          { "brewctl-store": "s".repeat(129) },
          { "brewctl-store": "a%00b" },
          { "brewctl-store": "a", "brewctl-epoch": "e".repeat(129) },
        ]) {
          // A store's handshake: field 1 is its id.
          const body = method === "WatchCommands" ? Buffer.from([0x0a, 1, 0x61]) : Buffer.alloc(0);
          const path = `/sync.v1.SyncEngine/${method}`;
          const { code, message } = await raw.call(path, frame(body), headers);
          expect({ code, message }).toEqual({
            code: statusCodes.INVALID_ARGUMENT,
            message: expect.stringMatching(/^brewctl-(store|epoch) in the metadata has /),
          });
        }
      }
      expect(Math.max(...cloud.log.lines.map((line) => line.length))).toBeLessThan(500);
    }
    expect(contentOf(folder.file("ledger.db")).longest).toBeLessThan(129);
  });
});
