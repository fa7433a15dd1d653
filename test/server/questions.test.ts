/** HeadOffice/Digest and SyncEngine/AnswerDigest: a question down one stream, its answer up another. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { type DigestRequestSchema, DigestSide } from "../../src/gen/sync/v1/head_office_pb.ts";
import type {
  AnswerDigestRequestSchema,
  CloudCommand,
} from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { Questions } from "../../src/server/questions.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { atRest, collect, counted, each, failure, thenWait } from "../support/serve-handlers.ts";
import { isLinked, shopBridge } from "../support/shop-bridge.ts";
import { never } from "../support/start-server.ts";
import { testClock } from "../support/test-clock.ts";

const storeId = "store-01";
const range = { fromDay: "1970-01-01", toDay: "9999-12-31", type: "", withEvents: false };
const { LEDGER, STORE } = DigestSide;

type Asked = Exclude<MessageInitShape<typeof DigestRequestSchema>, { $typeName: string }>;
type Part = MessageInitShape<typeof AnswerDigestRequestSchema>;

const ask = ({ office }: TestCloud, asked: Asked = {}, signal = never) =>
  collect(office.digest({ storeId, side: STORE, range, ...asked }, { signal }));

/** A store that is played by the test: it watches, and sees what it is asked. */
function watching(cloud: TestCloud, { answersQuestions = true, of = storeId } = {}) {
  const over = new AbortController();
  const handshake = { storeId: of, lastAppliedSequence: 0n, answersQuestions };
  const connected = Promise.withResolvers<void>();
  const options = { signal: over.signal, onHeaders: () => connected.resolve() };
  const commands = cloud.client.watchCommands(handshake, options)[Symbol.asyncIterator]();
  return {
    // Asked for from the start, since only then does the call begin.
    first: commands.next(),
    commands,
    connected: connected.promise,
    leave: () => over.abort(new Error("the store goes")),
    [Symbol.dispose]: () => over.abort(new Error("the test is over")),
  };
}

const questionOf = (result: IteratorResult<CloudCommand>) =>
  (result.value as CloudCommand | undefined)?.question;

/** A store that was asked, the question, and what becomes of the asker. */
async function askedStore(cloud: TestCloud, asked: Asked = {}, signal = never) {
  const store = watching(cloud);
  store.first.catch(() => {});
  await store.connected;
  const answer = ask(cloud, asked, signal);
  const question = questionOf(await store.first);
  return { store, answer, questionId: question?.questionId ?? "", question };
}

const answer = ({ client }: TestCloud, parts: AsyncIterable<Part> | Part[]) =>
  client.answerDigest(Array.isArray(parts) ? each(parts) : parts, { signal: never });

const cell = (type: string): NonNullable<Part["part"]> => ({
  case: "cell",
  value: { type, day: "2026-01-02", count: 1n, digest: Buffer.alloc(32, 1) },
});

const silence = () => new Promise<void>(() => {});

describe("both sides", () => {
  test("say the same of the same events, by sums and one by one", async () => {
    await using cloud = await serveCloud();
    await using shop = shopBridge(cloud.address);
    shop.outbox.append(idsOf("event", 450).map(eventOf));
    await shop.told(isLinked);
    for (const withEvents of [false, true]) {
      const asked = { range: { ...range, withEvents } };
      const store = await ask(cloud, asked);
      const ledger = await ask(cloud, { ...asked, side: LEDGER });
      expect(store.error).toBeUndefined();
      expect(ledger.error).toBeUndefined();
      const told = ({ part }: (typeof ledger.messages)[number]) =>
        part.case === "event" ? { ...part.value, state: "" } : part.value;
      expect(store.messages.map(told)).toEqual(ledger.messages.map(told));
      expect(store.messages.length).toBeGreaterThan(withEvents ? 449 : 2);
    }
    const { messages } = await ask(cloud, { range: { ...range, withEvents: true } });
    const ids = messages.map(({ part }) => (part.case === "event" ? part.value.eventId : ""));
    expect(ids).toEqual(idsOf("event", 450).sort());
    expect(messages[0]?.part.value).toMatchObject({ state: "acked" });
  });

  test("differ where the events do", async () => {
    await using cloud = await serveCloud();
    await using shop = shopBridge(cloud.address);
    shop.outbox.append([eventOf("event-1")]);
    await shop.told(isLinked);
    const { timestamp, ...event } = eventOf("event-1");
    await cloud.client.uploadBufferedEvents(
      each([{ ...event, eventId: "event-2", storeId, timestamp: BigInt(timestamp) }]),
      { signal: never },
    );
    const [store] = (await ask(cloud)).messages;
    const [ledger] = (await ask(cloud, { side: LEDGER })).messages;
    expect(store?.part.value).toMatchObject({ count: 1n });
    expect(ledger?.part.value).toMatchObject({ count: 2n });
  });

  test.each<[string, Asked, RegExp]>([
    ["no store", { storeId: "" }, /^store_id is empty$/],
    ["a store id of 129 bytes", { storeId: "s".repeat(129) }, /^store_id has 129 bytes/],
    ["no side", { side: DigestSide.UNSPECIFIED }, /^side is 0; expected LEDGER or STORE$/],
    ["an unknown side", { side: 7 as DigestSide }, /^side is 7; /],
    ["no range", { range: undefined } as unknown as Asked, /^from_day is ""; expected a day such/],
    [
      "no day",
      { range: { ...range, fromDay: "yesterday" } },
      /^range\.from_day is "yesterday"; expected/,
    ],
    [
      "half a day",
      { range: { ...range, toDay: "2026-1-2" } },
      /^range\.to_day is "2026-1-2"; expected/,
    ],
    [
      "a day that never was",
      { range: { ...range, toDay: "2026-02-30" } },
      /^range\.to_day is "2026-02-/,
    ],
    [
      "a long one",
      { range: { ...range, toDay: "9".repeat(99) } },
      /^range\.to_day is "9{32}"; expected/,
    ],
    [
      "the wrong way round",
      { range: { ...range, fromDay: "2026-01-03", toDay: "2026-01-02" } },
      /^from_day is after to_day$/,
    ],
    [
      "a type over 128 bytes",
      { range: { ...range, type: "t".repeat(129) } },
      /^range\.type has 129 byt/,
    ],
  ])("%s is refused", async (_, asked, why) => {
    await using cloud = await serveCloud();
    for (const side of [LEDGER, STORE]) {
      const { messages, error } = await ask(cloud, { side, ...asked });
      expect(messages).toEqual([]);
      expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
      expect((error as Error).message).toMatch(why);
    }
  });
});

describe("a store that cannot be asked", () => {
  test("was never heard of", async () => {
    await using cloud = await serveCloud();
    for (const side of [LEDGER, STORE]) {
      const message = 'the cloud has never heard of a store "store-01"';
      expect((await ask(cloud, { side })).error).toMatchObject({ code: "NOT_FOUND", message });
    }
  });

  test("is not connected", async () => {
    await using cloud = await serveCloud();
    await cloud.client.reportStatus({ storeId }, { signal: never });
    const { error } = await ask(cloud);
    expect(error).toMatchObject({ code: "FAILED_PRECONDITION" });
    expect((error as Error).message).toMatch(
      /^store store-01 is not there to be asked: its bridge/,
    );
  });

  test("watches with a client that does not answer, which never gets a question", async () => {
    await using cloud = await serveCloud();
    using store = watching(cloud, { answersQuestions: false });
    await store.connected;
    expect((await ask(cloud)).error).toMatchObject({ code: "FAILED_PRECONDITION" });
    const { storeIds, ...command } = {
      storeIds: [storeId],
      type: "PriceUpdate",
      payloadJson: "{}",
    };
    await cloud.office.issueCommand({ storeIds, ...command }, { signal: never });
    const { value } = await store.first;
    expect(value).toMatchObject({ type: "PriceUpdate", sequence: 1n });
    expect(value?.question).toBeUndefined();
  });

  test("has gone", async () => {
    await using cloud = await serveCloud();
    using store = watching(cloud);
    await store.connected;
    store.leave();
    await failure(store.first);
    await cloud.log.line("Store store-01 disconnected: client gone");
    expect((await ask(cloud)).error).toMatchObject({ code: "FAILED_PRECONDITION" });
  });
});

describe("a question", () => {
  test("reaches the store as it was asked, beside its commands, and the answer the asker", async () => {
    await using cloud = await serveCloud();
    const asked = { fromDay: "2026-01-02", toDay: "2026-01-03", type: "Sale", withEvents: true };
    const { store, answer: answered, question } = await askedStore(cloud, { range: asked });
    using _ = store;
    expect(question?.range).toMatchObject(asked);
    const questionId = question?.questionId ?? "";
    const event = { eventId: "a", type: "Sale", timestamp: 1n, digest: Buffer.alloc(32) };
    const part = { case: "event" as const, value: { ...event, state: "acked" } };
    await answer(cloud, [{ questionId }, { questionId, part }]);
    const { messages, error } = await answered;
    expect(error).toBeUndefined();
    expect(messages[0]?.part.value).toMatchObject({ eventId: "a", state: "acked", timestamp: 1n });
  });

  test("with an empty answer is answered with nothing", async () => {
    await using cloud = await serveCloud();
    const { store, answer: answered, questionId } = await askedStore(cloud);
    using _ = store;
    await answer(cloud, [{ questionId }]);
    expect(await answered).toEqual({ messages: [], error: undefined });
  });

  test("goes to the newest stream of a store, since an older one may have died", async () => {
    await using cloud = await serveCloud();
    using old = watching(cloud);
    old.first.catch(() => {});
    await old.connected;
    using newer = watching(cloud);
    await newer.connected;
    const answered = ask(cloud);
    const questionId = questionOf(await newer.first)?.questionId ?? "";
    await answer(cloud, [{ questionId }]);
    expect((await answered).error).toBeUndefined();
  });

  test("beside another one: each asker gets its own answer", async () => {
    await using cloud = await serveCloud();
    using store = watching(cloud);
    await store.connected;
    const types = ["Sale", "TillClose"];
    const asked = types.map((type) => ask(cloud, { range: { ...range, type } }));
    const questions = [questionOf(await store.first), questionOf(await store.commands.next())];
    // The one that was asked last is answered first.
    for (const question of questions.reverse()) {
      const { questionId = "", range } = question ?? {};
      await answer(cloud, [{ questionId, part: cell(range?.type ?? "") }]);
    }
    const answers = await Promise.all(asked);
    expect(answers.map(({ messages }) => messages[0]?.part.value)).toMatchObject(
      types.map((type) => ({ type })),
    );
  });

  test("that a store cannot answer is ABORTED, with its reason", async () => {
    await using cloud = await serveCloud();
    const { store, answer: answered, questionId } = await askedStore(cloud);
    using _ = store;
    const fault = { case: "fault" as const, value: `too busy${"!".repeat(3_000)}` };
    await failure(answer(cloud, [{ questionId }, { questionId, part: fault }]));
    const { error } = await answered;
    expect(error).toMatchObject({ code: "ABORTED" });
    expect((error as Error).message).toMatch(/^store store-01 says: too busy!+…$/);
  });

  test("is ABORTED when the store goes away before it answers", async () => {
    await using cloud = await serveCloud();
    const { store, answer: answered } = await askedStore(cloud);
    store.leave();
    const { error } = await answered;
    expect(error).toMatchObject({ code: "ABORTED" });
    expect((error as Error).message).toBe("store store-01 went away before it answered");
  });

  test("is ABORTED when the store goes away in the middle of its answer", async () => {
    await using cloud = await serveCloud();
    const { store, answer: answered, questionId } = await askedStore(cloud);
    using _ = store;
    const gone = new AbortController();
    const parts = thenWait([{ questionId, part: cell("Sale") }], silence());
    const call = cloud.client.answerDigest(parts, { signal: gone.signal });
    call.catch(() => {});
    await atRest(cloud, () => 0);
    gone.abort(new Error("pulled out"));
    const { messages, error } = await answered;
    expect(messages).toHaveLength(1);
    expect(error).toMatchObject({ code: "ABORTED" });
    expect((error as Error).message).toBe("the answer of store store-01 broke off: client gone");
  });

  test("that a store takes no notice of is DEADLINE_EXCEEDED after a minute", async () => {
    const clock = testClock();
    await using cloud = await serveCloud({ clock });
    const { store, answer: answered } = await askedStore(cloud);
    using _ = store;
    await clock.advance(59_999);
    expect(await Promise.race([answered, Promise.resolve("waits")])).toBe("waits");
    await clock.advance(1);
    const { error } = await answered;
    expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    expect((error as Error).message).toBe("store store-01 gave no answer in 60 s");
  });

  test("that is being answered has no such end", async () => {
    const clock = testClock();
    await using cloud = await serveCloud({ clock });
    const { store, answer: answered, questionId } = await askedStore(cloud);
    using _ = store;
    const mayGoOn = Promise.withResolvers<void>();
    const answering = answer(cloud, thenWait([{ questionId }], mayGoOn.promise));
    await atRest(cloud, () => 0);
    await clock.advance(120_000);
    mayGoOn.resolve();
    await answering;
    expect(await answered).toEqual({ messages: [], error: undefined });
  });
});

describe("an asker that leaves", () => {
  test("before the answer: the store hears that nobody waits for it", async () => {
    await using cloud = await serveCloud();
    const gone = new AbortController();
    const { store, answer: answered, questionId } = await askedStore(cloud, {}, gone.signal);
    using _ = store;
    gone.abort(new Error("lunch"));
    await answered;
    await atRest(cloud, () => 0);
    const error = await failure(answer(cloud, [{ questionId }]));
    expect(error).toMatchObject({ code: "NOT_FOUND" });
    expect((error as Error).message).toBe(`nobody waits for an answer to ${questionId}`);
  });

  test("in the middle of the answer: the store hears so at once, also while it has nothing to say", async () => {
    await using cloud = await serveCloud();
    const gone = new AbortController();
    const { store, answer: answered, questionId } = await askedStore(cloud, {}, gone.signal);
    using _ = store;
    const answering = failure(answer(cloud, thenWait([{ questionId }], silence())));
    await atRest(cloud, () => 0);
    gone.abort(new Error("lunch"));
    await answered;
    expect(await answering).toMatchObject({ code: "ABORTED", message: "whoever asked has gone" });
  });

  test("in the middle of a long answer: the store is held up before, and then told", async () => {
    await using cloud = await serveCloud();
    using store = watching(cloud);
    await store.connected;
    const asked = { storeId, side: STORE, range };
    const parts = cloud.office.digest(asked, { signal: never })[Symbol.asyncIterator]();
    const first = parts.next();
    const questionId = questionOf(await store.first)?.questionId ?? "";
    const source = counted(() => ({ questionId, part: cell("x".repeat(128)) }), 100_000);
    const call = failure(answer(cloud, source.messages));
    await first;
    expect(await atRest(cloud, () => source.taken)).toBeLessThan(20_000);
    await parts.return?.();
    expect(await call).toMatchObject({ code: "ABORTED", message: "whoever asked has gone" });
    await source.closed;
  });

  test("who has gone before the question was put does not wait for ever", async () => {
    const questions = new Questions();
    const stream = questions.to(storeId, { signal: never });
    stream.next();
    const gone = AbortSignal.abort(new Error("lunch"));
    const wanted = { ...range, $typeName: "sync.v1.DigestRange" as const };
    await expect(questions.ask(storeId, wanted, { signal: gone }).next()).rejects.toThrow("lunch");
  });

  test("leaves nothing behind on a stream that is not read", async () => {
    const questions = new Questions();
    const stream = questions.to(storeId, { signal: never });
    // The store has the first one, and reads no further.
    const first = stream.next();
    const wanted = { ...range, $typeName: "sync.v1.DigestRange" as const };
    const askOne = (signal: AbortSignal) => questions.ask(storeId, wanted, { signal }).next();
    const stays = askOne(never);
    stays.catch(() => {});
    const questionId = (await first).value.questionId;
    for (let i = 0; i < 3; i++) {
      const gone = new AbortController();
      const asked = askOne(gone.signal);
      gone.abort(new Error("lunch"));
      await expect(asked).rejects.toThrow("lunch");
    }
    const last = askOne(never);
    last.catch(() => {});
    const next = (await stream.next()).value;
    expect(next.questionId).not.toBe(questionId);
    // It is the last one that was asked, and those in between are gone.
    const answering = questions.answer(
      each([
        {
          $typeName: "sync.v1.AnswerDigestRequest",
          questionId: next.questionId,
          part: { case: undefined },
        },
      ]),
    );
    expect((await last).value).toMatchObject({ questionId: next.questionId });
    answering.catch(() => {});
  });
});

describe("an answer", () => {
  test.each<[string, Part[], string]>([
    [
      "to a question that nobody has asked",
      [{ questionId: "42" }],
      "nobody waits for an answer to 42",
    ],
    ["without a question", [{}], "nobody waits for an answer to nothing"],
    ["of nothing at all", [], "nobody waits for an answer to nothing"],
  ])("%s is NOT_FOUND", async (_, parts, message) => {
    await using cloud = await serveCloud();
    expect(await failure(answer(cloud, parts))).toMatchObject({ code: "NOT_FOUND", message });
  });

  test("given twice is NOT_FOUND the second time", async () => {
    await using cloud = await serveCloud();
    const { store, answer: answered, questionId } = await askedStore(cloud);
    using _ = store;
    const mayEnd = Promise.withResolvers<void>();
    const first = answer(cloud, thenWait([{ questionId }], mayEnd.promise));
    await atRest(cloud, () => 0);
    expect(await failure(answer(cloud, [{ questionId }]))).toMatchObject({ code: "NOT_FOUND" });
    mayEnd.resolve();
    await first;
    expect(await answered).toEqual({ messages: [], error: undefined });
    expect(await failure(answer(cloud, [{ questionId }]))).toMatchObject({ code: "NOT_FOUND" });
  });

  test("that changes its question on the way is INVALID_ARGUMENT, and the asker's is ABORTED", async () => {
    await using cloud = await serveCloud();
    const { store, answer: answered, questionId } = await askedStore(cloud);
    using _ = store;
    const parts = [
      { questionId, part: cell("Sale") },
      { questionId: "42", part: cell("Sale") },
    ];
    const message = "question_id changes within the answer";
    expect(await failure(answer(cloud, parts))).toMatchObject({
      code: "INVALID_ARGUMENT",
      message,
    });
    const { error } = await answered;
    expect(error).toMatchObject({ code: "ABORTED" });
  });

  test("a stop of the cloud ends both, with UNAVAILABLE", async () => {
    await using cloud = await serveCloud();
    const { store, answer: answered, questionId } = await askedStore(cloud);
    store.commands.return?.();
    const answering = failure(answer(cloud, thenWait([{ questionId }], silence())));
    await atRest(cloud, () => 0);
    await cloud.server.stop({ graceMs: 0, force: never });
    expect((await answered).error).toMatchObject({ code: "UNAVAILABLE" });
    expect(await answering).toMatchObject({ code: expect.stringMatching(/UNAVAILABLE|ABORTED/) });
  });
});
