/**
 * The bridge's two streams of events on bare grpc-js, storing nothing on either side: what the
 * durable ones are measured against. Events go one a message, as in the original contract, or in
 * bundles, as our store sends them (docs/decisions/bundles.md).
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
  type ClientWritableStream,
  credentials,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerReadableStream,
  type sendUnaryData,
} from "@grpc/grpc-js";
import {
  type EventAck,
  EventAckSchema,
  type StoreEvent,
  StoreEventSchema,
  type UploadSummary,
  UploadSummarySchema,
} from "../src/gen/sync/v1/sync_engine_pb.ts";
import { clientOptions, serverOptions } from "../src/grpc/options.ts";
import { directOptions } from "../src/grpc/proxy.ts";

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

const service = {
  channel: {
    path: "/bare/Channel",
    requestStream: true,
    responseStream: true,
    requestSerialize: serialize(StoreEventSchema),
    requestDeserialize: deserialize(StoreEventSchema),
    responseSerialize: serialize(EventAckSchema),
    responseDeserialize: deserialize(EventAckSchema),
  },
  upload: {
    path: "/bare/Upload",
    requestStream: true,
    responseStream: false,
    requestSerialize: serialize(StoreEventSchema),
    requestDeserialize: deserialize(StoreEventSchema),
    responseSerialize: serialize(UploadSummarySchema),
    responseDeserialize: deserialize(UploadSummarySchema),
  },
};

/** Returns the port. */
export function serveBridgeByHand(): Promise<number> {
  const server = new Server(serverOptions);
  server.addService(service, {
    channel(call: ServerDuplexStream<StoreEvent, EventAck>) {
      call.on("data", ({ eventId, more }: StoreEvent) => {
        const also = more.map((event) => event.eventId);
        if (!call.write(create(EventAckSchema, { eventId, ok: true, also }))) {
          call.pause();
          call.once("drain", () => call.resume());
        }
      });
      call.on("end", () => call.end());
    },
    upload(
      call: ServerReadableStream<StoreEvent, UploadSummary>,
      callback: sendUnaryData<UploadSummary>,
    ) {
      let accepted = 0;
      call.on("data", ({ more }: StoreEvent) => {
        accepted += 1 + more.length;
      });
      call.on("end", () => callback(null, create(UploadSummarySchema, { accepted })));
    },
  });
  return new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
      error === null ? resolve(port) : reject(error),
    );
  });
}

/** Makes the message with the events from `first` on, so many of them. */
export type MessageOf = (first: number, length: number) => StoreEvent;

export interface ByHandOptions {
  /** How many events go in a message; 1 unless it is given. */
  readonly perMessage?: number;
}

/** Each method sends so many events and returns how many were answered. */
export function bridgeByHand(port: number) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    ...clientOptions,
    ...directOptions,
  });
  const sendAll = async (
    call: Writable,
    count: number,
    { message, perMessage }: { message: MessageOf; perMessage: number },
  ) => {
    for (let i = 0; i < count; i += perMessage) {
      if (!call.write(message(i, Math.min(perMessage, count - i)))) {
        await drained(call);
      }
    }
    call.end();
  };
  return {
    async channel(
      count: number,
      message: MessageOf,
      { perMessage = 1 }: ByHandOptions = {},
    ): Promise<number> {
      const { path, requestSerialize, responseDeserialize } = service.channel;
      const call: ClientDuplexStream<StoreEvent, EventAck> = client.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
      );
      let answered = 0;
      const ended = new Promise<void>((resolve, reject) => {
        call.on("data", ({ also }: EventAck) => {
          answered += 1 + also.length;
        });
        call.on("error", reject);
        call.on("end", resolve);
      });
      await sendAll(call, count, { message, perMessage });
      await ended;
      return answered;
    },
    async upload(
      count: number,
      message: MessageOf,
      { perMessage = 1 }: ByHandOptions = {},
    ): Promise<number> {
      const { path, requestSerialize, responseDeserialize } = service.upload;
      let call: ClientWritableStream<StoreEvent> | undefined;
      const summary = new Promise<UploadSummary>((resolve, reject) => {
        call = client.makeClientStreamRequest(
          path,
          requestSerialize,
          responseDeserialize,
          (error, value) => (value === undefined ? reject(error) : resolve(value)),
        );
      });
      await sendAll(call as ClientWritableStream<StoreEvent>, count, { message, perMessage });
      return (await summary).accepted;
    },
    close: () => client.close(),
  };
}
