/**
 * HeadOffice (proto/sync/v1/head_office.proto): what an operator asks of the cloud. The clients are
 * commands/head-office/{command,events}.ts.
 */

import { create } from "@bufbuild/protobuf";
import type { Clock } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { DigestRangeSchema } from "../gen/sync/v1/digest_pb.ts";
import { HeadOffice } from "../gen/sync/v1/head_office_pb.ts";
import { type Handlers, type Implementation, implement } from "../grpc/serve.ts";
import type { Logger } from "../log.ts";
import { faultOfName } from "../store-event.ts";
import type { Cloud } from "./cloud.ts";
import { digest } from "./digest.ts";
import type { Questions } from "./questions.ts";

export interface HeadOfficeOptions {
  readonly cloud: Cloud;
  readonly questions: Questions;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Read from the ledger at a time. */
const pageSize = 200;

export function headOffice({ cloud, questions, clock, log }: HeadOfficeOptions): Implementation {
  const handlers: Handlers<typeof HeadOffice> = {
    async issueCommand({ storeIds, commandId, type, payloadJson }) {
      const { dispatch } = cloud.forCall();
      const queued = dispatch.issue(storeIds, { commandId, type, payloadJson });
      for (const { storeId, commandId, sequence } of queued) {
        const watching = dispatch.isWatching(storeId);
        log.info("command queued", {
          store: storeId,
          command_id: commandId,
          type,
          sequence,
          watching,
        });
      }
      return {
        commandId: queued[0]?.commandId ?? commandId,
        queued: queued.map(({ storeId, sequence }) => ({
          storeId,
          sequence: BigInt(sequence),
          isWatching: dispatch.isWatching(storeId),
        })),
      };
    },

    // biome-ignore lint/correctness/useYield: to come
    async *listStores() {
      throw new StatusError("UNIMPLEMENTED", "not yet");
    },

    // biome-ignore lint/correctness/useYield: to come
    async *listCommands() {
      throw new StatusError("UNIMPLEMENTED", "not yet");
    },

    digest({ storeId, side, range = create(DigestRangeSchema) }, { signal }) {
      return digest({ storeId, side, range }, { cloud, questions, clock, signal });
    },

    async *listEvents({ storeId, after, follow }, { signal }) {
      const fault = storeId === "" ? undefined : faultOfName("store_id", storeId);
      if (fault !== undefined) {
        throw new StatusError("INVALID_ARGUMENT", fault);
      }
      const { ledger, taken } = cloud.forCall();
      let position = Number(after);
      for (;;) {
        const news = taken.next({ signal });
        const page = ledger.events({ storeId, after: position, limit: pageSize });
        for (const event of page) {
          const { timestamp, seq, receivedAt, ...rest } = event;
          yield {
            ...rest,
            position: BigInt(event.position),
            timestamp: BigInt(timestamp),
            seq: BigInt(seq),
            receivedAt: BigInt(receivedAt),
          };
          position = event.position;
        }
        if (page.length < pageSize) {
          if (!follow) {
            return;
          }
          await news;
        }
      }
    },
  };
  return implement(HeadOffice, handlers);
}
