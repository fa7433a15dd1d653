/**
 * The lesson's three streams on grpc-js as its own documentation shows it: events, callbacks, and a
 * look at what `write()` answers. What our glue is measured against.
 */

import type { Writable } from "node:stream";
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  credentials,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type ServerWritableStream,
  type sendUnaryData,
} from "@grpc/grpc-js";
import {
  type ChatMessage,
  ChatMessageSchema,
  type OrderEvent,
  OrderEventSchema,
  type OrderInput,
  OrderInputSchema,
  type SubscribeRequest,
  SubscribeRequestSchema,
  type UploadSummary,
  UploadSummarySchema,
} from "../src/gen/orders/v1/streaming_pb.ts";
import { clientOptions, serverOptions } from "../src/grpc/options.ts";
import { directOptions } from "../src/grpc/proxy.ts";
import { chatMessage, orderEvent, orderInput } from "./messages.ts";
import type { Streams } from "./streams.ts";

const serialize =
  <M extends DescMessage>(schema: M) =>
  (message: MessageShape<M>) => {
    const bytes = toBinary(schema, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
const deserialize =
  <M extends DescMessage>(schema: M) =>
  (bytes: Buffer) =>
    fromBinary(schema, bytes);

const drained = (call: Writable) => new Promise<void>((resolve) => call.once("drain", resolve));

const path = (method: string) => `/orders.v1.StreamingService/${method}`;

const service = {
  subscribe: {
    path: path("Subscribe"),
    requestStream: false,
    responseStream: true,
    requestSerialize: serialize(SubscribeRequestSchema),
    requestDeserialize: deserialize(SubscribeRequestSchema),
    responseSerialize: serialize(OrderEventSchema),
    responseDeserialize: deserialize(OrderEventSchema),
  },
  uploadOrders: {
    path: path("UploadOrders"),
    requestStream: true,
    responseStream: false,
    requestSerialize: serialize(OrderInputSchema),
    requestDeserialize: deserialize(OrderInputSchema),
    responseSerialize: serialize(UploadSummarySchema),
    responseDeserialize: deserialize(UploadSummarySchema),
  },
  chat: {
    path: path("Chat"),
    requestStream: true,
    responseStream: true,
    requestSerialize: serialize(ChatMessageSchema),
    requestDeserialize: deserialize(ChatMessageSchema),
    responseSerialize: serialize(ChatMessageSchema),
    responseDeserialize: deserialize(ChatMessageSchema),
  },
};

/** Returns the port. `prepare` is called with each stream that a handler writes to, before it does. */
export async function serveByHand(prepare = (_: Writable) => {}): Promise<number> {
  const server = new Server(serverOptions);
  server.addService(service, {
    async subscribe(call: ServerWritableStream<SubscribeRequest, OrderEvent>) {
      prepare(call);
      for (let i = 0; i < call.request.limit; i += 1) {
        if (!call.write(orderEvent(i))) {
          await drained(call);
        }
      }
      call.end();
    },
    uploadOrders(
      call: ServerReadableStream<OrderInput, UploadSummary>,
      callback: sendUnaryData<UploadSummary>,
    ) {
      let received = 0;
      call.on("data", () => {
        received += 1;
      });
      call.on("end", () => callback(null, create(UploadSummarySchema, { received })));
    },
    chat(call: ServerDuplexStream<ChatMessage, ChatMessage>) {
      prepare(call);
      call.on("data", ({ text }: ChatMessage) => {
        if (!call.write(chatMessage(text))) {
          call.pause();
          call.once("drain", () => call.resume());
        }
      });
      call.on("end", () => call.end());
    },
  });
  return new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

export function streamsByHand(port: number): Streams {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    ...clientOptions,
    ...directOptions,
  });
  return {
    subscribe(count) {
      const { path, requestSerialize, responseDeserialize } = service.subscribe;
      const request = create(SubscribeRequestSchema, { limit: count });
      const call: ClientReadableStream<OrderEvent> = client.makeServerStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
      );
      return new Promise((resolve, reject) => {
        let received = 0;
        call.on("data", () => {
          received += 1;
        });
        call.on("error", reject);
        call.on("end", () => resolve(received));
      });
    },
    async upload(count) {
      const { path, requestSerialize, responseDeserialize } = service.uploadOrders;
      let call: ClientWritableStream<OrderInput> | undefined;
      const summary = new Promise<UploadSummary>((resolve, reject) => {
        call = client.makeClientStreamRequest(
          path,
          requestSerialize,
          responseDeserialize,
          (error, value) => (value === undefined ? reject(error) : resolve(value)),
        );
      });
      for (let i = 0; i < count; i += 1) {
        if (!call?.write(orderInput(i))) {
          await drained(call as ClientWritableStream<OrderInput>);
        }
      }
      call?.end();
      return (await summary).received;
    },
    async chat(count) {
      const { path, requestSerialize, responseDeserialize } = service.chat;
      const call: ClientDuplexStream<ChatMessage, ChatMessage> = client.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
      );
      let received = 0;
      const ended = new Promise<void>((resolve, reject) => {
        call.on("data", () => {
          received += 1;
        });
        call.on("error", reject);
        call.on("end", resolve);
      });
      for (let i = 0; i < count; i += 1) {
        if (!call.write(chatMessage(`ping ${i}`))) {
          await drained(call);
        }
      }
      call.end();
      await ended;
      return received;
    },
    close: () => client.close(),
  };
}
