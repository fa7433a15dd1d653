/** HeadOffice/Digest: what one side of the bridge says of a store's events. */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Clock } from "../clock.ts";
import type { Ledger } from "../engine/ledger.ts";
import { StatusError } from "../errors.ts";
import { DigestCells, digestOf, eventsIn, faultOfDay } from "../event-digest.ts";
import type { DigestRange } from "../gen/sync/v1/digest_pb.ts";
import { type DigestResponseSchema, DigestSide } from "../gen/sync/v1/head_office_pb.ts";
import type { Cloud } from "./cloud.ts";
import type { Questions } from "./questions.ts";

export interface DigestOptions {
  readonly cloud: Cloud;
  readonly questions: Questions;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

type Part = MessageInitShape<typeof DigestResponseSchema>;

/** The most Digest calls at once: each reads all events of a store. */
export const maxDigests = 4;

/** The most cells of one answer: a type and a day of events each. */
export const maxDigestCells = 20_000;

/** From a question to the beginning of the store's answer, in milliseconds. */
const answerTimeoutMs = 60_000;

export async function* digest(
  {
    storeId,
    side,
    range,
  }: { readonly storeId: string; readonly side: DigestSide; readonly range: DigestRange },
  { cloud, questions, clock, signal }: DigestOptions,
): AsyncGenerator<Part, void> {
  const fault = faultOfRange(range);
  if (fault !== undefined) {
    throw new StatusError("INVALID_ARGUMENT", fault);
  }
  if (side !== DigestSide.LEDGER && side !== DigestSide.STORE) {
    throw new StatusError("INVALID_ARGUMENT", `side is ${side}; expected LEDGER or STORE`);
  }
  const { ledger } = cloud.forCall();
  if (!ledger.isKnown(storeId)) {
    const message = `the cloud has never heard of a store ${JSON.stringify(storeId)}`;
    throw new StatusError("NOT_FOUND", message);
  }
  if (side === DigestSide.STORE) {
    yield* asked(storeId, range, { questions, clock, signal });
  } else {
    yield* read(ledger, storeId, range, { signal });
  }
}

/** The ledger's side. */
async function* read(
  ledger: Ledger,
  storeId: string,
  range: DigestRange,
  { signal }: { readonly signal: AbortSignal },
): AsyncGenerator<Part, void> {
  const events = eventsIn(range, {
    read: (after, limit) => ledger.eventsById(storeId, after, limit),
    async pause() {
      await nextTurn();
      signal.throwIfAborted();
    },
  });
  const cells = new DigestCells();
  for await (const event of events) {
    if (cells.size > maxDigestCells) {
      throw new StatusError(
        "RESOURCE_EXHAUSTED",
        `the answer has more than ${maxDigestCells} sums; ask for fewer days or for one type`,
      );
    }
    if (range.withEvents) {
      const { eventId, type, timestamp } = event;
      const value = { eventId, type, timestamp: BigInt(timestamp), digest: digestOf(event) };
      yield { part: { case: "event", value } };
    } else {
      cells.add(event);
    }
  }
  for (const { count, ...cell } of cells.inOrder()) {
    yield { part: { case: "cell", value: { ...cell, count: BigInt(count) } } };
  }
}

/** The store's side, as it answers. */
async function* asked(
  storeId: string,
  range: DigestRange,
  { questions, clock, signal }: Omit<DigestOptions, "cloud">,
): AsyncGenerator<Part, void> {
  const silent = new AbortController();
  const over = new AbortController();
  const seconds = answerTimeoutMs / 1000;
  const late = new StatusError(
    "DEADLINE_EXCEEDED",
    `store ${storeId} gave no answer in ${seconds} s`,
  );
  clock.sleep(answerTimeoutMs, { signal: AbortSignal.any([signal, over.signal]) }).then(
    () => silent.abort(late),
    () => {},
  );
  const call = { signal: AbortSignal.any([signal, silent.signal]) };
  try {
    for await (const { part } of questions.ask(storeId, range, call)) {
      over.abort();
      if (part.case === "fault") {
        throw new StatusError("ABORTED", `store ${storeId} says: ${part.value}`);
      }
      if (part.case !== undefined) {
        yield { part };
      }
    }
  } finally {
    over.abort();
  }
}

/** A question without a range has passed the bounds of its fields, so they are looked at here too. */
function faultOfRange({ fromDay, toDay }: DigestRange): string | undefined {
  return (
    faultOfDay("from_day", fromDay) ??
    faultOfDay("to_day", toDay) ??
    (fromDay > toDay ? "from_day is after to_day" : undefined)
  );
}
