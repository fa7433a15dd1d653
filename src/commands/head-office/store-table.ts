/**
 * The stores as a table, the worst first: as wide as its content, and no wider than the terminal. Where
 * it is too narrow, columns go: first those that have nothing to tell, then the less important ones. What
 * the columns of numbers would tell is also in the column why, which is among the last to go. Where the
 * terminal is too low, the last stores go.
 *
 *     store     link       why                     depth  oldest  commands
 *     store-02  dark 12 m  alarm, 2 events parked     40    14 m       1/3
 *       ! the buffer was damaged: 3 events could be saved
 *     store-01  up         -                           0       -       3/3
 */

import type { ChalkInstance } from "chalk";
import { formatBrief } from "../../duration.ts";
import type { ListStoresResponse } from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";

/** A store as it was when it came. */
export interface SeenStore {
  readonly state: ListStoresResponse;
  /** By our own clock, which never goes back: the cloud's time goes on from there. */
  readonly cameAt: number;
}

export interface TableOptions {
  readonly columns: number;
  /** For the table with its head; without end for all. */
  readonly rows: number;
  readonly isUnicode: boolean;
  readonly colours: ChalkInstance;
  /** As `cameAt`. */
  readonly now: number;
  /** The cloud cannot be asked now, so nobody knows which stores are up. */
  readonly isOld?: boolean;
}

type Colour = "green" | "yellow" | "red" | "dim";

interface Cell {
  readonly text: string;
  readonly colour?: Colour | undefined;
}

interface Column {
  readonly title: string;
  /** Which goes first where there is no room; those without stay. */
  readonly goes?: number;
  readonly isText?: boolean;
  /** It is left out, however wide the terminal is, if it has nothing to tell. */
  readonly isOptional?: boolean;
  readonly cell: (state: ListStoresResponse, cloudNow: number, isOld: boolean) => Cell;
  /** Whether it has anything to tell of this store. */
  readonly tells: (state: ListStoresResponse) => boolean;
}

const count = (number: bigint, colour: Colour): Cell => ({
  text: String(number),
  colour: number > 0n ? colour : undefined,
});
const always = () => true;

const columns: readonly Column[] = [
  {
    title: "store",
    isText: true,
    cell: (state) => ({
      text: plain(state.storeId),
      colour: needsSomebody(state) ? "red" : undefined,
    }),
    tells: always,
  },
  {
    title: "link",
    isText: true,
    cell: (state, now, isOld) =>
      isOld && state.isConnected
        ? { text: "was up", colour: "dim" }
        : { text: linkOf(state, now), colour: state.isConnected ? "green" : "red" },
    tells: always,
  },
  {
    title: "why",
    goes: 8,
    isText: true,
    isOptional: true,
    cell: (state) => ({ text: reasonsOf(state).join(", ") || "-", colour: "red" }),
    tells: (state) => reasonsOf(state).length > 0,
  },
  { title: "depth", cell: ({ depth }) => count(depth, "yellow"), tells: always },
  {
    title: "oldest",
    goes: 7,
    cell: (state, now) => ({ text: oldestOf(state, now), colour: "yellow" }),
    tells: ({ oldestUnacked }) => oldestUnacked > 0n,
  },
  {
    title: "parked",
    goes: 3,
    cell: ({ parked }) => count(parked, "red"),
    tells: ({ parked }) => parked > 0n,
  },
  {
    title: "gaps",
    goes: 1,
    cell: ({ gaps }) => count(gaps, "red"),
    tells: ({ gaps }) => gaps > 0n,
  },
  {
    title: "conflicts",
    goes: 2,
    cell: ({ conflicts }) => count(conflicts, "red"),
    tells: ({ conflicts }) => conflicts > 0n,
  },
  {
    title: "clock",
    goes: 5,
    cell: (state) => ({ text: clockOf(state), colour: isFarOff(state) ? "yellow" : undefined }),
    tells: isFarOff,
  },
  {
    title: "commands",
    goes: 6,
    cell: (state) => ({ text: commandsOf(state), colour: colourOfCommands(state) }),
    tells: ({ queuedSequence, commandsParked }) => queuedSequence > 0n || commandsParked > 0n,
  },
  {
    title: "reported",
    goes: 4,
    cell: (state, now) => ({ text: reportedOf(state, now), colour: "dim" }),
    tells: ({ reportedAt }) => reportedAt > 0n,
  },
];

const gap = "  ";
const fewestStoreColumns = 8;
const fewestWhyColumns = 12;

/** A clock that is further off is worth a look, in milliseconds. */
const clockTolerance = 60_000n;

export function drawStores(stores: readonly SeenStore[], options: TableOptions): string[] {
  const { rows, colours, now, isUnicode, isOld = false } = options;
  const sorted = stores.toSorted(worstFirst);
  // All of them if they fit, with all that they say; else as many as there is room for.
  const alarms = stores.reduce((sum, { state }) => sum + state.alarms.length, 0);
  const fits = 1 + stores.length + alarms <= rows;
  const chosen = fits ? sorted : sorted.slice(0, Math.max(0, rows - 2));
  const cells = chosen.map(({ state, cameAt }) => {
    const cloudNow = Number(state.asOf) + now - cameAt;
    return columns.map(({ cell }) => cell(state, cloudNow, isOld));
  });
  const layout = layOut(chosen, cells, options);
  const line = (row: readonly Cell[]) =>
    layout
      .map(({ index, width }) => {
        const { text, colour } = row[index] ?? { text: "" };
        const fitted = cut(text, width, isUnicode);
        const padding = " ".repeat(width - widthOf(fitted));
        const shown = colour === undefined || text === "-" ? fitted : colours[colour](fitted);
        return columns[index]?.isText ? shown + padding : padding + shown;
      })
      .join(gap)
      .trimEnd();
  const lines = [colours.dim(line(columns.map(({ title }) => ({ text: title }))))];
  let shown = 0;
  for (const [i, { state }] of chosen.entries()) {
    const alarms = state.alarms.map((alarm) =>
      colours.red(cut(`  ! ${plain(alarm)}`, options.columns, isUnicode)),
    );
    if (!fits && lines.length + 1 + alarms.length > rows - 1) {
      break;
    }
    lines.push(line(cells[i] ?? []), ...alarms);
    shown += 1;
  }
  if (shown < stores.length) {
    const more = `${isUnicode ? "…" : "..."} and ${stores.length - shown} more`;
    lines.push(colours.dim(cut(more, options.columns, isUnicode)));
  }
  return lines.slice(0, Math.max(0, rows));
}

/** The same of one store, as a line for a file. */
export function describeStore({ state }: SeenStore): string {
  const now = Number(state.asOf);
  const facts = [
    `depth=${state.depth}`,
    ...(state.oldestUnacked > 0n ? [`oldest=${squeezed(oldestOf(state, now))}`] : []),
    `parked=${state.parked} gaps=${state.gaps} conflicts=${state.conflicts}`,
    `commands=${state.appliedSequence}/${state.queuedSequence}`,
    ...(state.commandsParked > 0n ? [`commands_parked=${state.commandsParked}`] : []),
    ...state.alarms.map((alarm) => `ALARM: ${plain(alarm)}`),
  ];
  const at = new Date(now).toISOString();
  return `${at} ${plain(state.storeId)} ${linkOf(state, now)} ${facts.join(" ")}`;
}

/** What a person should look at; nothing if all is well. */
export function troublesOf(state: ListStoresResponse): string[] {
  return [
    ...(state.isConnected ? [] : [linkOf(state, Number(state.asOf))]),
    ...countedTroubles(state),
    ...state.alarms.map((alarm) => `alarm: ${plain(alarm)}`),
  ];
}

/** The same for a cell of the table: the link and the text of an alarm are beside it. */
function reasonsOf(state: ListStoresResponse): string[] {
  return [
    ...(state.alarms.length > 0 ? ["alarm"] : []),
    ...countedTroubles(state),
    ...(isFarOff(state) ? [`clock ${clockOf(state)}`] : []),
  ];
}

function countedTroubles(state: ListStoresResponse): string[] {
  const several = (number: bigint, one: string) =>
    number > 0n ? [`${number} ${one}${number === 1n ? "" : "s"}`] : [];
  return [
    ...several(state.parked, "event").map((events) => `${events} parked`),
    ...several(state.openConflicts, "conflict"),
    ...several(state.currentGaps, "gap"),
    ...several(state.commandsParked, "command").map((commands) => `${commands} parked`),
  ];
}

function needsSomebody(state: ListStoresResponse): boolean {
  const { parked, commandsParked, currentGaps, alarms } = state;
  return parked + commandsParked + state.openConflicts + currentGaps > 0n || alarms.length > 0;
}

function worstFirst({ state: a }: SeenStore, { state: b }: SeenStore): number {
  // All the stores are dark at night, so what a person must settle comes before that.
  const ranks = (state: ListStoresResponse) => [
    BigInt(state.alarms.length),
    state.parked + state.commandsParked,
    state.openConflicts + state.currentGaps,
    state.isConnected ? 0n : 1n,
    state.depth,
  ];
  const [ofA, ofB] = [ranks(a), ranks(b)];
  const differs = ofA.findIndex((rank, i) => rank !== ofB[i]);
  return differs < 0
    ? compare(a.storeId, b.storeId)
    : compare(ofB[differs] ?? 0n, ofA[differs] ?? 0n);
}

function compare<T extends string | bigint>(a: T, b: T): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Which columns there are, and how wide each is. */
function layOut(
  stores: readonly SeenStore[],
  cells: readonly (readonly Cell[])[],
  { columns: room }: TableOptions,
) {
  let layout = columns
    .map(({ title, goes = Number.POSITIVE_INFINITY, tells, isOptional = false }, index) => ({
      ...{ index, goes, title, isOptional },
      tells: stores.some(({ state }) => tells(state)),
      width: cells.reduce(
        (width, row) => Math.max(width, widthOf(row[index]?.text ?? "")),
        widthOf(title),
      ),
    }))
    .filter(({ isOptional, tells }) => tells || !isOptional);
  const total = () =>
    layout.reduce((sum, { width }) => sum + width, 0) + gap.length * (layout.length - 1);
  const [store] = layout;
  const why = layout.find(({ title }) => title === "why");
  const whole = { store: store?.width ?? 0, why: why?.width ?? 0 };
  if (store !== undefined && total() > room) {
    store.width = Math.min(store.width, Math.max(fewestStoreColumns, Math.floor(room / 4)));
  }
  if (why !== undefined && total() > room) {
    why.width = Math.min(why.width, Math.max(fewestWhyColumns, Math.floor(room / 3)));
  }
  const byLeave = layout
    .filter(({ goes }) => goes < Number.POSITIVE_INFINITY)
    .toSorted((a, b) => Number(a.tells) - Number(b.tells) || a.goes - b.goes);
  for (const leaves of byLeave) {
    if (total() > room) {
      layout = layout.filter((column) => column !== leaves);
    }
  }
  while (total() > room && layout.length > 1) {
    layout.pop();
  }
  // The name gets what is left, and in the end has to do with it.
  if (store !== undefined) {
    store.width = Math.max(1, Math.min(whole.store, store.width + room - total()));
  }
  if (why !== undefined && layout.includes(why)) {
    why.width = Math.min(whole.why, why.width + room - total());
  }
  return layout;
}

function linkOf({ isConnected, lastSeen }: ListStoresResponse, now: number): string {
  return isConnected ? "up" : lastSeen === 0n ? "dark" : `dark ${age(now - Number(lastSeen))}`;
}

/** By the store's own clock: the timestamp is by that one too. */
function oldestOf({ oldestUnacked, clockOffsetMs }: ListStoresResponse, now: number): string {
  return oldestUnacked === 0n ? "-" : age(now + Number(clockOffsetMs) - Number(oldestUnacked));
}

function reportedOf({ reportedAt }: ListStoresResponse, now: number): string {
  return reportedAt === 0n ? "never" : age(now - Number(reportedAt));
}

function clockOf({ reportedAt, clockOffsetMs }: ListStoresResponse): string {
  if (reportedAt === 0n) {
    return "-";
  }
  const seconds = Math.round(Number(clockOffsetMs) / 1000);
  return seconds === 0
    ? "0 s"
    : `${seconds > 0 ? "+" : "-"}${formatBrief(Math.abs(seconds) * 1000)}`;
}

function isFarOff({ clockOffsetMs }: ListStoresResponse): boolean {
  return clockOffsetMs > clockTolerance || clockOffsetMs < -clockTolerance;
}

function commandsOf(state: ListStoresResponse): string {
  const { appliedSequence, queuedSequence, commandsParked } = state;
  const parked = commandsParked > 0n ? `, ${commandsParked} parked` : "";
  return `${appliedSequence}/${queuedSequence}${parked}`;
}

function colourOfCommands(state: ListStoresResponse): Colour | undefined {
  const isBehind = state.appliedSequence < state.queuedSequence;
  return state.commandsParked > 0n ? "red" : isBehind ? "yellow" : undefined;
}

/** In whole units, so that it ticks: `59 s`, `12 m`, `3 h`, `2 d`. */
function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) {
    return `${seconds} s`;
  }
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) {
    return `${minutes} m`;
  }
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

const squeezed = (text: string) => text.replace(" ", "");

/** Of at most so many columns. */
export function cut(text: string, width: number, isUnicode: boolean): string {
  if (widthOf(text) <= width) {
    return text;
  }
  const mark = (isUnicode ? "…" : "...").slice(0, width);
  let kept = "";
  let used = mark.length;
  for (const character of text) {
    used += widthOf(character);
    if (used > width) {
      break;
    }
    kept += character;
  }
  return kept + mark;
}

/** In columns of a terminal, where some letters take two and others are put on top of one. */
function widthOf(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the usual case, told quickly
  if (/^[\x00-\x7f]*$/.test(text)) {
    return text.length;
  }
  let width = 0;
  for (const character of text) {
    width += /^\p{M}$/u.test(character) ? 0 : wide.test(character) ? 2 : 1;
  }
  return width;
}

/** From Unicode's East Asian Width, in rough: scripts of East Asia, full-width forms, emoji. */
const wide =
  /^[\u1100-\u115f\u2e80-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]$/u;
