/** All attacks by name, at full size. */

import type { Answers } from "./answers.ts";
import {
  continuationFlood,
  hpackBomb,
  pingFlood,
  priorityFlood,
  rapidReset,
  settingsFlood,
} from "./floods.ts";
import { byteFrames, gzipStreams, halfMessages, unreadChats, unreadEvents } from "./messages.ts";
import type { AttackOptions, Target } from "./peer.ts";
import {
  digests,
  emptyEvents,
  farSeqs,
  impossibleCursors,
  inventedReports,
  inventedStores,
  inventedWatches,
  longStoreNames,
  wideCommand,
} from "./stores.ts";
import { idleSubscribes, idleTills, instantDeadlines, silentConnections } from "./streams.ts";

export type Attack = (target: Target, options: AttackOptions) => Promise<Answers>;

/** Attacks on `brewctl serve`. */
export const cloudAttacks = {
  "impossible-cursors": impossibleCursors,
  "far-seqs": farSeqs,
  "wide-command": wideCommand,
  "byte-frames": byteFrames,
  "gzip-streams": gzipStreams,
  "half-messages": halfMessages,
  "unread-chats": unreadChats,
  "idle-subscribes-10000": (target, options) =>
    idleSubscribes(target, { streams: 10_000, ...options }),
  "idle-subscribes-20000": (target, options) =>
    idleSubscribes(target, { streams: 20_000, ...options }),
  "unread-events": unreadEvents,
  "long-store-names": longStoreNames,
  "empty-events": emptyEvents,
  "invented-stores": inventedStores,
  "invented-reports": inventedReports,
  "invented-watches": inventedWatches,
  digests,
  "instant-deadlines": instantDeadlines,
  "silent-connections": silentConnections,
  "rapid-reset": rapidReset,
  "settings-flood": settingsFlood,
  "ping-flood": pingFlood,
  "priority-flood": priorityFlood,
  "continuation-flood": continuationFlood,
  "hpack-bomb": hpackBomb,
} as const satisfies Record<string, Attack>;

/** Attacks on the port that `brewctl store-sync run` has for tills. */
export const bridgeAttacks = {
  "idle-tills": idleTills,
} as const satisfies Record<string, Attack>;

export const attacks: Readonly<Record<string, Attack>> = { ...cloudAttacks, ...bridgeAttacks };
