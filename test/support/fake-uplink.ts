/** A cloud without a wire: the test sees each call of the bridge, and says what is answered. */

import { Bell } from "../../src/bell.ts";
import type { Command, Cursor } from "../../src/bridge/inbox.ts";
import type { Recorded } from "../../src/bridge/outbox.ts";
import type { Answer, Summary, Uplink, UplinkOptions } from "../../src/bridge/uplink.ts";

/** A call of `channel` as the cloud sees it. */
export interface ChannelCall {
  /** What has come, in order. */
  readonly sent: Recorded[];
  readonly options: UplinkOptions;
  readonly isHalfClosed: boolean;
  answer(...answers: Answer[]): void;
  /** Ends the call with this error. */
  fail(error: unknown): void;
}

export interface FakeCloud {
  /** Instead of connecting; throws if it must not succeed. */
  readonly connect?: () => void;
  readonly upload?: (events: Recorded[], options: UplinkOptions) => Promise<Summary> | Summary;
  /** Is told of each event that comes on a channel. */
  readonly onEvent?: (event: Recorded, call: ChannelCall) => void;
  readonly watch?: (cursor: Cursor | undefined, options: UplinkOptions) => AsyncIterable<Command>;
}

export function fakeUplink(cloud: FakeCloud) {
  const calls: ChannelCall[] = [];
  const uploads: Recorded[][] = [];
  let connects = 0;

  const uplink: Uplink = {
    async connect({ signal }) {
      signal.throwIfAborted();
      connects += 1;
      cloud.connect?.();
    },

    async upload(bundles, options) {
      const batch: Recorded[] = [];
      for await (const bundle of bundles) {
        batch.push(...bundle);
      }
      uploads.push(batch);
      if (cloud.upload === undefined) {
        throw new Error("no upload was expected");
      }
      return await cloud.upload(batch, options);
    },

    async *channel(bundles, options) {
      const bell = new Bell();
      const answers: Answer[] = [];
      const end: { error?: unknown; hasFailed: boolean; isHalfClosed: boolean } = {
        hasFailed: false,
        isHalfClosed: false,
      };
      const call: ChannelCall = {
        sent: [],
        options,
        get isHalfClosed() {
          return end.isHalfClosed;
        },
        answer(...more) {
          answers.push(...more);
          bell.ring();
        },
        fail(error) {
          end.hasFailed = true;
          end.error = error;
          bell.ring();
        },
      };
      calls.push(call);
      const reading = (async () => {
        for await (const bundle of bundles) {
          for (const event of bundle) {
            call.sent.push(event);
            cloud.onEvent?.(event, call);
          }
        }
        end.isHalfClosed = true;
        bell.ring();
      })();
      reading.catch((error) => call.fail(error));
      for (;;) {
        const rung = bell.next(options);
        for (let answer = answers.shift(); answer !== undefined; answer = answers.shift()) {
          yield [answer];
        }
        if (end.hasFailed) {
          throw end.error;
        }
        if (end.isHalfClosed) {
          return;
        }
        await rung;
      }
    },

    watch(cursor, options) {
      if (cloud.watch === undefined) {
        throw new Error("no watch was expected");
      }
      return cloud.watch(cursor, options);
    },

    async report() {
      return 0;
    },

    async answer() {},
  };
  return {
    uplink,
    calls,
    uploads,
    get connects() {
      return connects;
    },
  };
}

export const accepted = ({ eventId }: Recorded): Answer => ({ kind: "accepted", eventId });

export function refusal(
  { eventId }: Recorded,
  more: Partial<Extract<Answer, { kind: "refused" }>> = {},
): Extract<Answer, { kind: "refused" }> {
  return {
    kind: "refused",
    eventId,
    reason: "no such product",
    ...{ isSeqTaken: false, isRetryable: false, retryAfterMs: 0 },
    ...more,
  };
}
