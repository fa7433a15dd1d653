/**
 * `brewctl store-sync run`: the bridge of a store as a daemon, in the foreground until Ctrl+C or
 * SIGTERM. Tills record their events here; it brings them to the cloud, receives the cloud's commands
 * and tells head office how the store is. The log goes to standard error; there is no data.
 *
 * rpcs: sync.v1.BridgeApi for tills (server/bridge-api.ts); as a client of sync.v1.SyncEngine
 *   OperationalChannel, WatchCommands, ReportStatus, AnswerDigest (server/sync-engine.ts)
 * room: bridge/bridge.ts
 * story: test/story/shop.test.ts
 */

import { randomBytes } from "node:crypto";
import { Command, InvalidArgumentError, Option } from "commander";
import { type Address, formatAddress, parseAddress } from "../../address.ts";
import { Bridge, type BridgeNews } from "../../bridge/bridge.ts";
import { Inbox } from "../../bridge/inbox.ts";
import { LinkNotes, removeLinkNote } from "../../bridge/link-note.ts";
import { type Appended, corruptHere, type NewEvent, retentionMs } from "../../bridge/outbox.ts";
import { reportOf } from "../../bridge/reporting.ts";
import { formatDuration, formatElapsed } from "../../duration.ts";
import { messageOf, StatusError, UsageError } from "../../errors.ts";
import { GroupCommit } from "../../group-commit.ts";
import { createLogger, type Logger } from "../../log.ts";
import { plain } from "../../plain.ts";
import { type BridgeServer, serveBridgeApi } from "../../server/bridge-api.ts";
import type { Exit } from "../../shutdown.ts";
import { needsReopening } from "../../sqlite.ts";
import { version } from "../../version.ts";
import type { CommandContext } from "../client-call.ts";
import {
  addrOption,
  duration,
  integer,
  type LogFlags,
  listenAddress,
  nonEmpty,
  positiveDuration,
  socketModeOption,
  withLogFlags,
} from "../flags.ts";
import {
  alarmsOf,
  type BufferFlags,
  becomeApplier,
  becomeDrainer,
  openBuffer,
  withBufferFlags,
} from "./buffer.ts";
import { exec, insistOnProgram, programEnv } from "./exec.ts";
import { uplinkTo } from "./uplink.ts";

export interface RunFlags extends BufferFlags, LogFlags {
  readonly addr: Address;
  readonly listen: readonly Address[];
  readonly socketMode: number;
  readonly grace: number;
  readonly keep: number;
  readonly exec?: string;
  readonly execTimeout: number;
  readonly execEnv: readonly string[];
  readonly execAttempts: number;
}

const defaultListen = "localhost:50053";

export const command = withLogFlags(
  withBufferFlags(
    new Command("run").description("the store's bridge: tills in, events up, commands down"),
  )
    .addOption(addrOption())
    .addOption(
      new Option(
        "--listen <address>",
        "where tills connect: host:port, :port (all interfaces) or unix:/path; may be repeated",
      )
        .default([parseAddress(defaultListen)], defaultListen)
        .argParser(listenAddresses),
    )
    .addOption(socketModeOption())
    .addOption(
      new Option("--grace <duration>", "how long a stop lets events go up that are still pending")
        .default(5000, "5s")
        .argParser(duration),
    )
    .addOption(
      new Option(
        "--keep <duration>",
        "how long acknowledged events are kept, for replay (flush and channel keep a week)",
      )
        .default(retentionMs, "168h")
        .argParser(positiveDuration),
    )
    .addOption(
      new Option(
        "--exec <command>",
        "a shell command that applies each of the cloud's commands, which it gets as JSON",
      ).argParser(nonEmpty),
    )
    .addOption(
      new Option(
        "--exec-timeout <duration>",
        "a program that takes longer is ended, and has failed",
      )
        .default(60_000, "1m")
        .argParser(positiveDuration),
    )
    .addOption(
      new Option(
        "--exec-env <name>",
        "a variable of brewctl's environment that the program gets too; may be repeated",
      )
        .default([], "PATH, HOME and the like: see below")
        .argParser(variableNames),
    )
    .addOption(
      new Option("--exec-attempts <n>", "after so many failures a command is parked")
        .default(5)
        .argParser(integer(1)),
    ),
  "each event and answer",
);

export const examples = `\
  brewctl store-sync run --store store-01 --addr cloud.example:50052
  brewctl store-sync run --listen 192.168.7.2:50053 --listen unix:/run/brewctl/tills.sock
  brewctl store-sync run --exec './apply-command.sh'
  brewctl store-sync record --bridge localhost:50053 --type Sale --payload '{"total":299}'`;

export const notes = `\
A till hears "recorded" when its event is on this disk, whether the cloud is there or not. Whoever
can reach an address of --listen can record; there is no authentication yet.

Without --exec commands are received and wait on this disk: head office shows them as received, and
none counts as applied until a bridge with --exec has applied it.

The program of --exec gets each command as a line of JSON on standard input, and its id in
BREWCTL_COMMAND_ID, beside BREWCTL_COMMAND_TYPE, _SEQUENCE and _ATTEMPT. Of brewctl's own environment
it gets PATH, HOME, USER, LOGNAME, SHELL, LANG, LANGUAGE, LC_*, TZ and TMPDIR, and what --exec-env
names; nothing else, so that it learns no secrets. Exit code 0: applied. Else it is tried again after
a while, those after it wait, and after --exec-attempts it is parked: see store-sync commands and help store-sync retry. A
command may be given to it twice, after a crash; its id tells.

Ctrl+C, SIGTERM or SIGHUP: tills are let go, what is pending goes up within --grace if the cloud is
there, and the rest stays on the disk for the next start. The exit code is 0 in either case. A second
Ctrl+C does not wait. Under nohup SIGHUP is ignored.`;

/** A second Ctrl+C cuts the grace short and still exits 0. */
export const takesSecondInterrupt = true;

export async function run(flags: RunFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random, interrupted, interruptedTwice } = context;
  const { addr, grace } = flags;
  const now = () => clock.now();
  const log = createLogger({
    ...{ format: flags.logFormat, level: flags.logLevel, now },
    write: (line) => terminal.complain(line),
    backlog: terminal.talkBacklog,
  });
  if (flags.exec !== undefined) {
    insistOnProgram(flags.exec, programEnv(process.env, flags.execEnv));
  }
  // What was salvaged is one of the alarms, which the log has.
  const outbox = openBuffer(flags, context, {
    ...{ makes: flags.store !== undefined, saysSalvaged: false },
    onCorrupt: ({ eventId }) =>
      log.warn("event parked", { event_id: eventId, reason: corruptHere }),
  });
  const lock = becomeDrainer(outbox);
  const applier = flags.exec === undefined ? undefined : becomeApplier(outbox);
  const { storeId } = outbox;
  const inbox = new Inbox(outbox.database, { now });
  const box = randomBytes(4).toString("hex");
  const onOtherBox = otherBoxWarning(log);
  const uplink = { storeId, epoch: () => outbox.epoch(), clock, box, onOtherBox };
  const events = uplinkTo(addr, uplink);
  const control = uplinkTo(addr, uplink);
  const { lost } = outbox.database;
  /** Rejects when the buffer can only be used again by a process that is started anew. */
  const unusable = Promise.withResolvers<never>();
  unusable.promise.catch(() => {});
  lost.addEventListener("abort", () => unusable.reject(lost.reason), { once: true });
  // No lingerMs: a customer waits at the till until the answer comes.
  const commits = new GroupCommit<NewEvent, Appended>({
    clock,
    commit(batch) {
      try {
        return outbox.append(batch);
      } catch (error) {
        if (needsReopening(error)) {
          unusable.reject(error);
        }
        throw error;
      }
    },
  });
  const alarms = () => alarmsOf(outbox);
  let bridge: Bridge | undefined;
  const status = () => {
    const report = reportOf({ outbox, inbox, clock, alarms });
    const link = bridge?.link ?? { kind: "connecting" };
    return {
      ...{ storeId, epoch: outbox.epoch(), version },
      ...{ link: link.kind, why: link.kind === "offline" ? link.why : "" },
      pending: BigInt(report.pending),
      parked: BigInt(report.parked),
      oldestUnacked: BigInt(report.oldestUnacked ?? 0),
      receivedSequence: BigInt(report.receivedSequence),
      appliedSequence: BigInt(report.appliedSequence),
      commandsParked: BigInt(report.commandsParked),
      bytes: BigInt(report.bytes),
      alarms: [...report.alarms],
    };
  };

  let server: BridgeServer | undefined;
  try {
    const { listen: addresses, socketMode } = flags;
    const api = { addresses, socketMode, storeId, commits, status, clock, log };
    server = await serveBridgeApi(api).catch(namingListen);
    const { pending, parked } = outbox.unsettled();
    log.info("store-bridge started", {
      store: storeId,
      listen: server.addresses.map(formatAddress).join(","),
      cloud: formatAddress(addr),
      box,
      ...{ pending, parked, buffer: outbox.path },
    });
    for (const alarm of alarms()) {
      log.warn(alarm);
    }
    if (outbox.database.isExclusive) {
      log.warn("the disk was full when the buffer was opened, and no other process can open it", {
        hint: "make room and start the bridge again; tills record through it as soon as there is room",
      });
    }
    const warnOfWaiting = waitingWarning(log, { inbox, hasProgram: flags.exec !== undefined });
    for (const name of flags.execEnv.filter((name) => process.env[name] === undefined)) {
      log.warn("--exec-env names a variable that is not set, and the program does not get it", {
        name,
      });
    }
    warnOfWaiting();
    const say = newsLog(log);
    const notes = new LinkNotes({
      ...{ path: outbox.path, cloud: formatAddress(addr), now },
      onFailure: (why) => log.warn("store-sync status cannot tell of the link", { why }),
    });
    bridge = new Bridge({
      ...{ outbox, inbox, events, control, clock, random, alarms },
      maxAttempts: flags.execAttempts,
      keepMs: flags.keep,
      apply:
        flags.exec === undefined
          ? undefined
          : exec({
              program: flags.exec,
              timeoutMs: flags.execTimeout,
              ...{ clock, env: process.env, passes: flags.execEnv },
              onOutput: ({ commandId }, said) =>
                log.debug(() => `[${plain(commandId)}] the program says: ${said}`),
            }),
      tell(news) {
        if (news.kind === "link") {
          notes.note(news.state);
        } else if (news.kind === "failed" && news.part === "events") {
          const { error, waitMs } = news;
          notes.note({ kind: "offline", why: messageOf(error), attempt: 1, waitMs });
        }
        say(news);
        if (news.kind === "command") {
          warnOfWaiting();
        }
      },
    });
    const stopped = new Promise<void>((resolve) => {
      interrupted.addEventListener("abort", () => resolve(), { once: true });
    });
    if (!interrupted.aborted) {
      await Promise.race([stopped, bridge.failed, unusable.promise]);
    }
    log.info("graceful stop");
    return 0;
  } finally {
    const force = interruptedTwice;
    const until = clock.monotonic() + grace;
    await server?.stop({ graceMs: grace, force });
    commits.flush();
    await bridge?.stop({ graceMs: Math.max(0, until - clock.monotonic()), force });
    events.close();
    control.close();
    try {
      if (bridge !== undefined) {
        const { pending, parked } = outbox.unsettled();
        log.info("store-bridge stopped", { pending, parked });
      }
    } finally {
      applier?.release();
      // Before the next drainer can have one.
      removeLinkNote(outbox.path);
      lock.release();
      outbox.close();
    }
  }
}

/**
 * Returns a function that warns, once, that commands wait on this disk and that no program applies them.
 * It is to be called whenever a command may have come. With a program it never warns.
 */
function waitingWarning(
  log: Logger,
  { inbox, hasProgram }: { readonly inbox: Inbox; readonly hasProgram: boolean },
): () => void {
  let isOver = hasProgram;
  return () => {
    const waiting = isOver ? 0 : inbox.counts().received;
    if (waiting > 0) {
      isOver = true;
      log.warn("commands wait for a program that applies them; start with --exec", { waiting });
    }
  };
}

/** Returns a function that is told of another box at each report and warns of it once, until it is gone. */
function otherBoxWarning(log: Logger): (otherBox: string) => void {
  let warnedOf = "";
  return (otherBox) => {
    if (otherBox !== "" && otherBox !== warnedOf) {
      log.warn("another box speaks for this store", {
        other: otherBox,
        hint: "one was cloned or moved, or has the wrong --store: see Two boxes speak for one store in docs/operating-the-bridge.md",
      });
    }
    warnedOf = otherBox;
  };
}

/** The flag is another one here than that of `serve`. */
function namingListen(error: unknown): never {
  if (error instanceof UsageError && error.hint !== undefined) {
    const hint = error.hint.replaceAll("--addr", "--listen");
    throw new UsageError(error.message, { hint, cause: error });
  }
  throw error;
}

/** Of the attempts to reconnect, one in so many is said: about three an hour. */
const attemptsToSay = 80;

/** So many attempts in a row are no coincidence. */
const attemptsToBelieve = 3;

/** Of the restarts of a part that fails again and again for one reason, one in so many is said. */
const restartsToSay = 40;

/** A line for what changes; each event only at debug. */
function newsLog(log: Logger): (news: BridgeNews) => void {
  let isOffline = false;
  /** Why a report did not arrive, as it was said last. */
  let unreported = "";
  /** Of each part that fails, with what, and how often in a row. */
  const failing = new Map<string, { readonly why: string; readonly times: number }>();
  return (news) => {
    switch (news.kind) {
      case "link": {
        const { state } = news;
        if (state.kind === "offline") {
          const { why, attempt } = state;
          if (!isOffline || attempt % attemptsToSay === 0) {
            log.warn("offline", { why, attempt, next: formatElapsed(state.waitMs) });
          }
          isOffline = true;
        } else if (isOffline && (state.kind === "recovered" || state.kind === "live")) {
          isOffline = false;
          log.info("connected again");
        } else if (state.kind === "live") {
          log.info("live: everything recorded so far is in the cloud");
        }
        return;
      }
      case "answer": {
        const { answer, settlement } = news;
        if (answer.kind !== "refused") {
          log.debug(() => `ACK: ${plain(answer.eventId)}`);
        } else if (settlement.kind === "parked") {
          log.warn("event parked", { event_id: answer.eventId, reason: answer.reason });
        } else {
          log.debug(() => `NACK: ${plain(answer.eventId)} — ${plain(answer.reason)}. Will retry.`);
        }
        return;
      }
      case "command": {
        const { received } = news;
        const { type, commandId, sequence } = news.command;
        const fields = { command_id: commandId, sequence };
        if (received.kind === "parked") {
          log.warn(`[${plain(type)}] received → parked`, { ...fields, reason: received.reason });
        } else if (received.kind !== "known") {
          log.info(`[${plain(type)}] received`, fields);
        }
        return;
      }
      case "applying": {
        const { type, commandId: command_id, attempts } = news.command;
        log.info(`[${plain(type)}] → applying locally`, { command_id, attempt: attempts + 1 });
        return;
      }
      case "outcome": {
        const { outcome } = news;
        const { type, commandId: command_id, attempts } = news.command;
        if (outcome.kind === "applied") {
          log.info(`[${plain(type)}] applied`, { command_id });
        } else if (outcome.kind === "parked") {
          log.error(`[${plain(type)}] parked`, { command_id, reason: outcome.reason });
        } else {
          const fields = { command_id, attempt: attempts + 1, reason: outcome.reason };
          log.warn(`[${plain(type)}] failed, will be tried again`, fields);
        }
        return;
      }
      case "not watching": {
        const { why, attempt } = news;
        // One may be the other link's loss, which is just about to be said.
        if (attempt === attemptsToBelieve || attempt % attemptsToSay === 0) {
          log.warn("the cloud's commands do not come", { why, attempt });
        }
        return;
      }
      case "alarm":
        log.error(plain(news.why), {
          hint: "send again what is still kept here: brewctl store-sync replay",
        });
        return;
      case "pruned":
        log.info("acknowledged events removed, as they were kept long enough", {
          events: news.events,
        });
        return;
      case "answered":
        if (news.fault === "") {
          const { fromDay, toDay } = news.question.range;
          log.info("head office asked for digests", { from: fromDay, to: toDay });
        } else {
          log.warn("an answer for head office did not arrive", { why: news.fault });
        }
        return;
      case "not reported":
        if (news.why !== unreported) {
          unreported = news.why;
          log.debug(() => `not reported: ${plain(news.why)}`);
        }
        return;
      case "failed": {
        const { part, error, waitMs } = news;
        const why = messageOf(error);
        const before = failing.get(part);
        const times = before?.why === why ? before.times + 1 : 1;
        failing.set(part, { why, times });
        if (times > 1 && times % restartsToSay !== 0) {
          return;
        }
        const stack = error instanceof StatusError ? undefined : (error as Error)?.stack;
        log.error(`${part}: ${plain(why)}`, { again_in: formatDuration(waitMs), times, stack });
        return;
      }
      default:
        news satisfies never;
    }
  };
}

/** Collects names of environment variables. */
function variableNames(text: string, previous: readonly string[]): readonly string[] {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(text)) {
    throw new InvalidArgumentError(
      "expected the name of a variable, such as SHOP_URL; its value is the one that brewctl has",
    );
  }
  return [...previous, text];
}

/** Collects what is repeated; the first one replaces the default. */
function listenAddresses(text: string, previous: unknown): Address[] {
  const known = isGiven.has(previous as object) ? (previous as Address[]) : [];
  const all = [...known, listenAddress(text)];
  isGiven.add(all);
  return all;
}
const isGiven = new WeakSet<object>();
