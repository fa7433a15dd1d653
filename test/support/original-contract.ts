/**
 * The contract of the store bridge as it was at first: no numbers, no epochs, no cursor, no codes. Its
 * descriptor is made by hand, so that no change of ours can reach it.
 */

import { create, createFileRegistry, type DescService } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { StatusError } from "../../src/errors.ts";
import type { UntypedHandler } from "../../src/grpc/handlers.ts";
import { type Implementation, implement } from "../../src/grpc/serve.ts";
import { unboundedOf } from "./serve-handlers.ts";

const { STRING, INT32, INT64, BOOL } = Type;

/** The fields are numbered from 1, as they come. */
const message = (name: string, fields: Record<string, Type>) => ({
  name,
  field: Object.entries(fields).map(([name, type], i) => ({
    ...{ name, type, number: i + 1, label: Label.OPTIONAL },
  })),
});

const file = create(FileDescriptorProtoSchema, {
  name: "sync/v1/original.proto",
  package: "sync.v1",
  syntax: "proto3",
  messageType: [
    message("StoreHandshake", { store_id: STRING }),
    message("CloudCommand", { command_id: STRING, type: STRING, payload_json: STRING }),
    message("StoreEvent", {
      ...{ event_id: STRING, store_id: STRING, type: STRING, payload: STRING, timestamp: INT64 },
    }),
    message("UploadSummary", { accepted: INT32, rejected: INT32 }),
    message("EventAck", { event_id: STRING, ok: BOOL, reason: STRING }),
  ],
  service: [
    {
      name: "SyncEngine",
      method: [
        {
          name: "WatchCommands",
          ...{ inputType: ".sync.v1.StoreHandshake", outputType: ".sync.v1.CloudCommand" },
          serverStreaming: true,
        },
        {
          name: "UploadBufferedEvents",
          ...{ inputType: ".sync.v1.StoreEvent", outputType: ".sync.v1.UploadSummary" },
          clientStreaming: true,
        },
        {
          name: "OperationalChannel",
          ...{ inputType: ".sync.v1.StoreEvent", outputType: ".sync.v1.EventAck" },
          ...{ clientStreaming: true, serverStreaming: true },
        },
      ],
    },
  ],
});

const found = createFileRegistry(file, () => undefined).getService("sync.v1.SyncEngine");
if (found === undefined) {
  throw new Error("the descriptor has no sync.v1.SyncEngine");
}

export const originalSyncEngine: DescService = found;

/** An event as a cloud of the original contract sees it. */
export interface OriginalEvent {
  readonly eventId: string;
}

/** A cloud of the original contract that remembers ids, and whose rpcs can be left out. */
export function originalCloud({ hasChannel = true }: { readonly hasChannel?: boolean } = {}) {
  const known = new Set<string>();
  const calls = { upload: 0, channel: 0, watch: 0 };
  const take = ({ eventId }: OriginalEvent) => {
    const isNew = !known.has(eventId);
    known.add(eventId);
    return isNew;
  };
  const handlers: Record<string, UntypedHandler> = {
    async uploadBufferedEvents(events) {
      calls.upload += 1;
      const summary = { accepted: 0, rejected: 0 };
      for await (const event of events as AsyncIterable<OriginalEvent>) {
        summary[take(event) ? "accepted" : "rejected"] += 1;
      }
      return summary;
    },
    async *operationalChannel(events) {
      calls.channel += 1;
      if (!hasChannel) {
        throw new StatusError("UNIMPLEMENTED", "unknown method OperationalChannel");
      }
      for await (const event of events as AsyncIterable<OriginalEvent>) {
        take(event);
        yield { eventId: event.eventId, ok: true };
      }
    },
    async *watchCommands(_, { signal }) {
      calls.watch += 1;
      yield { commandId: "cmd-1", type: "PriceUpdate", payloadJson: "{}" };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  };
  const implementation: Implementation = implement(originalSyncEngine, handlers as never, {
    bounds: unboundedOf(originalSyncEngine),
  });
  return { implementation, known, calls };
}
