/**
 * The bridge of a store, as it runs for weeks: events go up and are acknowledged, commands come down
 * and are applied, head office hears how the store is and gets its questions answered, and what is kept
 * too long is removed. Tills are let in by server/bridge-api.ts.
 *
 * Each of these parts goes on by itself. One that fails says so and begins anew after a while: a cloud
 * that refuses us must not cost a till its port. Only a buffer that is damaged, removed or replaced ends
 * the bridge: the next start salvages it, or opens the file that is there then.
 */

import { Bell } from "../bell.ts";
import type { Clock, Random } from "../clock.ts";
import { messageOf, StatusError } from "../errors.ts";
import { needsReopening } from "../sqlite.ts";
import { keepApplying } from "./applying.ts";
import { channel } from "./channel.ts";
import { type DigestPart, digestsOf } from "./digesting.ts";
import type { Command, CommandOutcome, Inbox, Received, ReceivedCommand } from "./inbox.ts";
import type { LinkState } from "./link.ts";
import type { Outbox, Settlement } from "./outbox.ts";
import { keepReporting, reportOnce } from "./reporting.ts";
import type { Answer, Question, Uplink } from "./uplink.ts";
import { watch } from "./watch.ts";

/** What goes on, for whoever logs it. */
export type BridgeNews =
  | { readonly kind: "link"; readonly state: LinkState }
  | { readonly kind: "answer"; readonly answer: Answer; readonly settlement: Settlement }
  | { readonly kind: "command"; readonly command: Command; readonly received: Received }
  /** The program of a command is about to start. */
  | { readonly kind: "applying"; readonly command: ReceivedCommand }
  | {
      readonly kind: "outcome";
      readonly command: ReceivedCommand;
      readonly outcome: CommandOutcome;
    }
  /** The cloud takes events, and yet does not say what it wants of us. */
  | { readonly kind: "not watching"; readonly why: string; readonly attempt: number }
  /** The cloud has forgotten what it had acknowledged. */
  | { readonly kind: "alarm"; readonly why: string }
  | { readonly kind: "pruned"; readonly events: number }
  | { readonly kind: "answered"; readonly question: Question; readonly fault: string }
  | { readonly kind: "not reported"; readonly why: string }
  | {
      readonly kind: "failed";
      readonly part: string;
      readonly error: unknown;
      readonly waitMs: number;
    };

export interface BridgeOptions {
  readonly outbox: Outbox;
  readonly inbox: Inbox;
  /** For the events: a connection that nothing else waits for. */
  readonly events: Uplink;
  /** For commands, reports and questions. */
  readonly control: Uplink;
  /** Applies a command. Without it commands are kept on the disk and wait for a bridge that has it. */
  readonly apply?: Parameters<typeof keepApplying>[0]["apply"] | undefined;
  readonly maxAttempts: number;
  /** How long acknowledged events are kept, in milliseconds. */
  readonly keepMs: number;
  /** What is wrong beyond the buffer's own alarms. */
  readonly alarms: () => readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly tell: (news: BridgeNews) => void;
}

export interface StopOptions {
  /** How long events may still go up, in milliseconds, if the cloud takes them. */
  readonly graceMs: number;
  /** Ends the grace early. */
  readonly force: AbortSignal;
}

/** After a failure that time alone does not heal, in milliseconds. */
const restartMs = 30_000;

/** Between two looks for what is to be removed, in milliseconds, and between two steps of it. */
const maxPruneEveryMs = 600_000;
const pruneStepMs = 20;

/** How often a stop looks whether all has gone up, in milliseconds. */
const lookMs = 10;

/** For the last report of a stop, in milliseconds. */
const lastReportMs = 1_000;

/** Questions that wait while another one is answered. */
const maxQuestions = 4;

/** Refusals of further questions that may be under way; beyond them a question gets no answer. */
const maxRefusals = 4;

export class Bridge {
  /** Rejects when the bridge cannot go on. */
  readonly failed: Promise<never>;
  readonly #fail: (error: unknown) => void;
  readonly #options: BridgeOptions;
  readonly #over = new AbortController();
  readonly #stop = new AbortController();
  /** Rings when head office should hear something. */
  readonly #changed = new Bell();
  /** Rings when a link or a report has found the cloud: no link need wait any longer. */
  readonly #found = new Bell();
  /** Rings when a command has come. */
  readonly #commands = new Bell();
  readonly #channel: Promise<void>;
  readonly #others: Promise<void>[];
  #questions: Promise<void> = Promise.resolve();
  #waitingQuestions = 0;
  #refusals = 0;
  #link: LinkState = { kind: "connecting" };

  /** Begins at once. */
  constructor(options: BridgeOptions) {
    const { promise, reject } = Promise.withResolvers<never>();
    this.failed = promise;
    // Whoever does not wait for it hears of it in other ways.
    promise.catch(() => {});
    this.#fail = reject;
    this.#options = options;
    const { inbox, apply, clock, random, tell } = options;
    const { signal } = this.#over;
    this.#channel = this.#keep("events", () => this.#drain());
    this.#others = [
      this.#keep("commands", () => this.#watch()),
      this.#keep("reports", () => keepReporting({ ...this.#reporting(), changed: this.#changed })),
      this.#keep("pruning", () => this.#keepPruning()),
    ];
    if (apply !== undefined) {
      const applying = { ...options, inbox, apply, clock, random, signal, news: this.#commands };
      const onOutcome = (command: ReceivedCommand, outcome: CommandOutcome) => {
        tell({ kind: "outcome", command, outcome });
        this.#changed.ring();
      };
      const onStart = (command: ReceivedCommand) => tell({ kind: "applying", command });
      this.#others.push(
        this.#keep("applying", () => keepApplying({ ...applying, onStart, onOutcome })),
      );
    }
  }

  /** Of the events. */
  get link(): LinkState {
    return this.#link;
  }

  /**
   * Stops: what is pending still goes up within the grace if the cloud takes it, answers that are due
   * are waited for, head office hears the last state. Resolves when nothing runs any more.
   */
  async stop({ graceMs, force }: StopOptions): Promise<void> {
    const { outbox, clock } = this.#options;
    const until = clock.monotonic() + graceMs;
    const ended = new AbortController();
    this.#channel.finally(() => ended.abort());
    const grace = AbortSignal.any([force, ended.signal]);
    const isHopeful = () =>
      clock.monotonic() < until && !["offline", "connecting"].includes(this.#link.kind);
    try {
      while (isHopeful() && !outbox.isDrained()) {
        await clock.sleep(lookMs, { signal: grace });
      }
      this.#stop.abort(new StatusError("CANCELLED", "the bridge stops"));
      while (isHopeful()) {
        await clock.sleep(lookMs, { signal: grace });
      }
    } catch {
      // Forced, or the channel has ended: in either case the waiting is over.
    }
    if (this.#link.kind !== "offline" && !force.aborted) {
      const signal = AbortSignal.any([force, this.#timeout(lastReportMs)]);
      await reportOnce({ ...this.#reporting(), signal }).catch((error) =>
        this.#options.tell({ kind: "not reported", why: messageOf(error) }),
      );
    }
    this.#over.abort(new StatusError("CANCELLED", "the bridge is over"));
    await Promise.all([this.#channel, ...this.#others, this.#questions]);
  }

  #timeout(ms: number): AbortSignal {
    const over = new AbortController();
    const end = () => over.abort(new StatusError("DEADLINE_EXCEEDED", `not within ${ms / 1000} s`));
    this.#options.clock.sleep(ms, { signal: this.#over.signal }).then(end, end);
    return over.signal;
  }

  /** Runs a part for as long as the bridge is there. */
  async #keep(part: string, run: () => Promise<unknown>): Promise<void> {
    const { clock, tell } = this.#options;
    const { signal } = this.#over;
    while (!signal.aborted) {
      try {
        await run();
        return;
      } catch (error) {
        if (signal.aborted) {
          return;
        }
        if (needsReopening(error)) {
          this.#fail(error);
          return;
        }
        if (part === "events") {
          const why = messageOf(error);
          this.#link = { kind: "offline", why, attempt: 1, waitMs: restartMs };
        }
        tell({ kind: "failed", part, error, waitMs: restartMs });
        await clock.sleep(restartMs, { signal }).catch(() => {});
      }
    }
  }

  #drain(): Promise<void> {
    const { outbox, events, clock, random, tell } = this.#options;
    return channel({
      ...{ outbox, uplink: events, clock, random, untilDrained: false },
      signal: this.#over.signal,
      stop: this.#stop.signal,
      hurry: this.#found,
      onState: (state) => {
        // Not when it has merely been let in: two links that are cut again and again would hurry
        // each other, and never wait.
        if (state.kind === "recovered") {
          this.#found.ring();
        }
        // That the cloud has answered says nothing of how far it is.
        if (state.kind !== "recovered") {
          this.#link = state;
        }
        tell({ kind: "link", state });
        if (state.kind === "live" || state.kind === "recovered") {
          this.#changed.ring();
        }
      },
      onAnswer: (answer, settlement) => {
        if (settlement.kind === "parked") {
          this.#changed.ring();
        }
        tell({ kind: "answer", answer, settlement });
      },
      onAlarm: (why) => {
        this.#changed.ring();
        tell({ kind: "alarm", why });
      },
      onUnmarked: (error, waitMs) => tell({ kind: "failed", part: "marks", error, waitMs }),
    });
  }

  #watch(): Promise<never> {
    const { inbox, control, clock, random, tell } = this.#options;
    return watch({
      ...{ inbox, uplink: control, clock, random, signal: this.#over.signal },
      appliesLater: true,
      hurry: this.#found,
      onState: (state) => {
        if (state.kind === "live") {
          this.#found.ring();
        }
        // That the cloud is not there, the other link says.
        if (state.kind === "offline" && !["offline", "connecting"].includes(this.#link.kind)) {
          tell({ kind: "not watching", why: state.why, attempt: state.attempt });
        }
      },
      onQuestion: (question) => this.#answer(question),
      onCommand: async (command, received) => {
        tell({ kind: "command", command, received });
        this.#commands.ring();
        this.#changed.ring();
      },
    });
  }

  #reporting() {
    const { outbox, inbox, control, clock, alarms, tell } = this.#options;
    return {
      ...{ outbox, inbox, clock, alarms, uplink: control, signal: this.#over.signal },
      onReported: () => this.#found.ring(),
      onFailure: (why: string) => tell({ kind: "not reported", why }),
    };
  }

  async #keepPruning(): Promise<never> {
    const { outbox, clock, keepMs, tell } = this.#options;
    const { signal } = this.#over;
    for (;;) {
      let events = 0;
      for (let step = outbox.prune({ keepMs }); step !== undefined; ) {
        events += step.removed;
        await clock.sleep(pruneStepMs, { signal });
        step = outbox.prune({ after: step.next, keepMs });
      }
      if (events > 0) {
        tell({ kind: "pruned", events });
      }
      await clock.sleep(Math.min(maxPruneEveryMs, keepMs), { signal });
    }
  }

  /** One after the other: each reads much. */
  #answer(question: Question): void {
    const { outbox, control, clock, tell } = this.#options;
    const { signal } = this.#over;
    const isBusy = this.#waitingQuestions >= maxQuestions;
    if (isBusy && this.#refusals >= maxRefusals) {
      // A cloud that asks without end would have us call it as fast as it asks.
      return;
    }
    this.#waitingQuestions += isBusy ? 0 : 1;
    this.#refusals += isBusy ? 1 : 0;
    const parts = isBusy ? refusing() : digestsOf(question.range, { outbox, clock, signal });
    const answer = async () => {
      let fault = "";
      try {
        await control.answer(question.questionId, parts, { signal });
      } catch (error) {
        fault = messageOf(error);
      }
      this.#waitingQuestions -= isBusy ? 0 : 1;
      this.#refusals -= isBusy ? 1 : 0;
      if (!signal.aborted) {
        tell({ kind: "answered", question, fault });
      }
    };
    const answered = isBusy ? answer() : this.#questions.then(answer);
    this.#questions = isBusy ? Promise.all([this.#questions, answered]).then(() => {}) : answered;
  }
}

// biome-ignore lint/correctness/useYield: it only refuses
async function* refusing(): AsyncGenerator<DigestPart, void> {
  throw new StatusError("RESOURCE_EXHAUSTED", "the store answers too many questions already");
}
