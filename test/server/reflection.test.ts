/** Reflection, as clients without .proto files ask it. */

import { fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { statusCodes } from "../../src/errors.ts";
import {
  ServerReflection,
  type ServerReflectionRequestSchema,
  type ServerReflectionResponse,
  ServerReflectionResponseSchema,
} from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import { frame, rawClient } from "../support/raw-call.ts";
import { collect, each } from "../support/serve-handlers.ts";
import { never, serveLesson } from "../support/start-server.ts";

type Question = MessageInitShape<typeof ServerReflectionRequestSchema>["messageRequest"] & object;

async function ask(...questions: Question[]): Promise<ServerReflectionResponse[]> {
  await using server = await serveLesson();
  const client = server.dial().client(ServerReflection);
  const requests = questions.map((messageRequest) => ({ host: "here", messageRequest }));
  const { messages, error } = await collect(
    client.serverReflectionInfo(each(requests), { signal: never }),
  );
  expect(error).toBeUndefined();
  return messages;
}

/** The names of the files in an answer, or the code of its error. */
function filesOf(answer: ServerReflectionResponse | undefined): unknown {
  const response = answer?.messageResponse;
  if (response?.case === "errorResponse") {
    return response.value.errorCode;
  }
  if (response?.case !== "fileDescriptorResponse") {
    return response?.case;
  }
  return response.value.fileDescriptorProto.map(
    (bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name,
  );
}

const lessonFiles = ["orders/v1/streaming.proto", "google/protobuf/timestamp.proto"];

test("all services are listed", async () => {
  const [answer] = await ask({ case: "listServices", value: "" });
  expect(answer?.messageResponse).toMatchObject({
    case: "listServicesResponse",
    value: {
      service: [
        { name: "orders.v1.StreamingService" },
        { name: "sync.v1.SyncEngine" },
        { name: "sync.v1.HeadOffice" },
        { name: "grpc.health.v1.Health" },
        { name: "grpc.reflection.v1.ServerReflection" },
      ],
    },
  });
});

test("a file is found by its name, and comes with all that it imports", async () => {
  const [answer] = await ask({ case: "fileByFilename", value: "orders/v1/streaming.proto" });
  expect(filesOf(answer)).toEqual(lessonFiles);
  expect(answer).toMatchObject({ validHost: "here", originalRequest: { host: "here" } });
});

test.each([
  ["a service", "orders.v1.StreamingService", "orders/v1/streaming.proto"],
  ["a method", "orders.v1.StreamingService.Chat", "orders/v1/streaming.proto"],
  ["a message", "orders.v1.OrderEvent", "orders/v1/streaming.proto"],
  ["a field", "orders.v1.OrderEvent.order_id", "orders/v1/streaming.proto"],
  ["an imported message", "google.protobuf.Timestamp", "google/protobuf/timestamp.proto"],
  [
    "a nested enum",
    "grpc.health.v1.HealthCheckResponse.ServingStatus",
    "grpc/health/v1/health.proto",
  ],
  [
    "a value of a nested enum, a name beside it",
    "grpc.health.v1.HealthCheckResponse.SERVING",
    "grpc/health/v1/health.proto",
  ],
  [
    "a oneof",
    "grpc.reflection.v1.ServerReflectionRequest.message_request",
    "grpc/reflection/v1/reflection.proto",
  ],
])("the file of %s is found", async (_, symbol, file) => {
  const [answer] = await ask({ case: "fileContainingSymbol", value: symbol });
  expect(filesOf(answer)).toContain(file);
});

test("what is not there is NOT_FOUND, and the stream goes on", async () => {
  const answers = await ask(
    { case: "fileByFilename", value: "tea.proto" },
    { case: "fileContainingSymbol", value: "brew.Tea" },
    { case: "fileContainingSymbol", value: "" },
    {
      case: "fileContainingExtension",
      value: { containingType: "orders.v1.OrderEvent", extensionNumber: 100 },
    },
    { case: "allExtensionNumbersOfType", value: "brew.Tea" },
    { case: "fileByFilename", value: "orders/v1/streaming.proto" },
  );
  const { NOT_FOUND } = statusCodes;
  expect(answers.map(filesOf)).toEqual([...Array(5).fill(NOT_FOUND), lessonFiles]);
});

test("a type without extensions has none", async () => {
  const [answer] = await ask({ case: "allExtensionNumbersOfType", value: "orders.v1.OrderEvent" });
  expect(answer?.messageResponse).toMatchObject({
    case: "allExtensionNumbersResponse",
    value: { baseTypeName: "orders.v1.OrderEvent", extensionNumber: [] },
  });
});

test("a question that asks nothing is INVALID_ARGUMENT", async () => {
  const [answer] = await ask({ case: undefined });
  expect(filesOf(answer)).toBe(statusCodes.INVALID_ARGUMENT);
});

test("older clients ask v1alpha and are answered", async () => {
  await using server = await serveLesson();
  await using client = rawClient(server.port);
  // Field 7 is list_services, an empty string.
  const { code, body } = await client.call(
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    frame(Buffer.from([0x3a, 0])),
  );
  expect(code).toBe(0);
  const answer = fromBinary(ServerReflectionResponseSchema, body.subarray(5));
  expect(answer.messageResponse.case).toBe("listServicesResponse");
});
