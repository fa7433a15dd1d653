/** What a protobuf-es service descriptor says, in the terms of grpc-js. */

import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type { MethodDefinition, ServiceDefinition } from "@grpc/grpc-js";
import { messageOf } from "../errors.ts";

/**
 * grpc-js carries bytes; we encode and decode at the edge of our own code. So a message that does
 * not decode, or an answer that does not encode, is an error in the loop that meant it, where it
 * gets a name and a log line, and not a bare INTERNAL from inside grpc-js.
 */
export type WireMethod = MethodDefinition<Buffer, Buffer>;

const identity = (bytes: Buffer) => bytes;

/** `typeName` replaces the service's own name in the path. */
export function wireMethod(method: DescMethod, typeName = method.parent.typeName): WireMethod {
  const { methodKind } = method;
  return {
    path: `/${typeName}/${method.name}`,
    requestStream: methodKind === "client_streaming" || methodKind === "bidi_streaming",
    responseStream: methodKind === "server_streaming" || methodKind === "bidi_streaming",
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };
}

/** The methods of a service, keyed by their names in our code (`uploadOrders`). */
export function wireService(service: DescService, typeName: string): ServiceDefinition {
  return Object.fromEntries(
    service.methods.map((method) => [method.localName, wireMethod(method, typeName)]),
  );
}

/**
 * A message, or a literal of its shape, as bytes. `Handlers` and `Client` have checked the shape.
 * grpc-js insists on a Buffer: a view of the bytes, no copy.
 */
export function encode(schema: DescMessage, message: object): Buffer {
  const bytes = toBinary(schema, create(schema, message as MessageInitShape<DescMessage>));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Throws an Error that names the type for bytes that are no such message. */
export function decode<M extends DescMessage>(schema: M, bytes: Buffer): MessageShape<M> {
  try {
    return fromBinary(schema, bytes);
  } catch (error) {
    const message = `malformed ${schema.typeName} of ${bytes.length} bytes: ${messageOf(error)}`;
    throw new Error(message, { cause: error });
  }
}
