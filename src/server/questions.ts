/**
 * Questions that head office has for a store: they go down on the stream on which the store watches for
 * commands, since only the store can dial, and the answer comes up in a call of its own. Nothing of it
 * is kept: whoever asks waits, or asks again.
 */

import { randomBytes } from "node:crypto";
import { Bell } from "../bell.ts";
import { messageOf, StatusError } from "../errors.ts";
import type { DigestRange } from "../gen/sync/v1/digest_pb.ts";
import type { AnswerDigestRequest, DigestQuestion } from "../gen/sync/v1/sync_engine_pb.ts";
import { nextOf } from "../interruptible.ts";
import { beginning } from "../plain.ts";

type Answer = AsyncIterable<AnswerDigestRequest>;

/** Gives the asker the answer; resolves when it has read it, and rejects with what the store did wrong. */
type Give = (answer: Answer) => Promise<void>;

/** A stream of a store that answers. */
interface Stream {
  /** What it is still to carry. */
  readonly waiting: DigestQuestion[];
  readonly news: Bell;
  /** Aborts when it has ended. */
  readonly gone: AbortController;
}

export class Questions {
  /** By store, the newest last. */
  readonly #streams = new Map<string, Stream[]>();
  readonly #asked = new Map<string, Give>();

  /** The questions for a store, for as long as its stream is there. Throws the signal's reason. */
  async *to(
    storeId: string,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<DigestQuestion, never> {
    const stream: Stream = { waiting: [], news: new Bell(), gone: new AbortController() };
    const streams = this.#streams.get(storeId) ?? [];
    streams.push(stream);
    this.#streams.set(storeId, streams);
    try {
      for (;;) {
        const news = stream.news.next({ signal });
        for (const question of stream.waiting.splice(0)) {
          yield question;
        }
        await news;
      }
    } finally {
      streams.splice(streams.indexOf(stream), 1);
      if (streams.length === 0) {
        this.#streams.delete(storeId);
      }
      stream.gone.abort();
    }
  }

  /**
   * Asks a store, and yields its answer as it comes. Throws `StatusError`: FAILED_PRECONDITION when no
   * stream of the store takes questions, ABORTED when it goes away before its answer or in the middle
   * of it; and the signal's reason, which also ends the wait for a store that stays silent.
   */
  async *ask(
    storeId: string,
    range: DigestRange,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<AnswerDigestRequest, void> {
    signal.throwIfAborted();
    // The newest: an older one may be of a connection that has died without a word.
    const stream = this.#streams.get(storeId)?.at(-1);
    if (stream === undefined) {
      throw new StatusError(
        "FAILED_PRECONDITION",
        `store ${storeId} is not there to be asked: its bridge (store-sync run) is not connected`,
      );
    }
    const questionId = randomBytes(8).toString("hex");
    const question: DigestQuestion = { $typeName: "sync.v1.DigestQuestion", questionId, range };
    const came = Promise.withResolvers<Answer>();
    const read = Promise.withResolvers<void>();
    read.promise.catch(() => {});
    this.#asked.set(questionId, (answer) => {
      came.resolve(answer);
      return read.promise;
    });
    const onAbort = () => came.reject(signal.reason);
    const onGone = () =>
      came.reject(new StatusError("ABORTED", `store ${storeId} went away before it answered`));
    signal.addEventListener("abort", onAbort, { once: true });
    stream.gone.signal.addEventListener("abort", onGone, { once: true });
    let fault: unknown = new StatusError("ABORTED", "whoever asked has gone");
    try {
      stream.waiting.push(question);
      stream.news.ring();
      const parts = (await came.promise)[Symbol.asyncIterator]();
      for (;;) {
        signal.throwIfAborted();
        const next = await nextOf(parts, { signal }).catch((error) => {
          signal.throwIfAborted();
          fault = error;
          const why = messageOf(error);
          throw new StatusError("ABORTED", `the answer of store ${storeId} broke off: ${why}`);
        });
        if (next.done) {
          break;
        }
        yield next.value;
      }
      read.resolve();
    } finally {
      signal.removeEventListener("abort", onAbort);
      stream.gone.signal.removeEventListener("abort", onGone);
      this.#asked.delete(questionId);
      // A store that reads nothing shall not collect what nobody wants to know any more.
      stream.waiting.splice(0, Infinity, ...stream.waiting.filter((other) => other !== question));
      read.reject(fault);
    }
  }

  /**
   * Hands a store's answer to whoever asked, and resolves when it was read. Throws `StatusError` as the
   * contract has it.
   */
  async answer(parts: Answer): Promise<void> {
    const iterator = parts[Symbol.asyncIterator]();
    const first = await iterator.next();
    const questionId = first.done ? "" : first.value.questionId;
    const give = this.#asked.get(questionId);
    if (give === undefined) {
      throw new StatusError(
        "NOT_FOUND",
        `nobody waits for an answer to ${beginning(questionId, 64) || "nothing"}`,
      );
    }
    this.#asked.delete(questionId);
    async function* all() {
      for (let next = first; !next.done; next = await iterator.next()) {
        if (next.value.questionId !== questionId) {
          throw new StatusError("INVALID_ARGUMENT", "question_id changes within the answer");
        }
        yield next.value;
      }
    }
    await give(all());
  }
}
