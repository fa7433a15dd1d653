/**
 * A timeline as text: two lanes against time, and below them how many messages were under way and
 * when backpressure held us up.
 *
 *                0 ms           100 ms         200 ms         300 ms
 *     sent       ●──────●──────●──────●──────●┤
 *     received                                 ●──────●──────●──────●──────●■
 *     in flight  ▂▂▂▂▂▂▂▃▃▃▃▃▃▃▅▅▅▅▅▅▅▆▆▆▆▆▆▆██▆▆▆▆▆▆▆▅▅▅▅▅▅▅▃▃▃▃▃▃▃▂▂▂▂▂▂▂
 *     20 sent in 190 ms · half-close at 190 ms · …
 */

import type { ChalkInstance } from "chalk";
import { formatBrief } from "../../duration.ts";
import { type Bucket, stretchOf, type Timeline } from "./timeline.ts";

export interface PictureOptions {
  /** Of the terminal; no line is longer. */
  readonly columns: number;
  /** Up to when to draw, in milliseconds since the call began. */
  readonly untilMs: number;
  readonly unit: Unit;
  readonly isUnicode: boolean;
  readonly colours: ChalkInstance;
}

/** What the gauge counts. */
export interface Unit {
  /** Messages `in flight`, or `waiting` in a buffer. */
  readonly name: string;
  /** How many fill that buffer; 0 where there is none. */
  readonly full: number;
}

interface Glyphs {
  readonly one: string;
  readonly line: string;
  readonly halfClose: string;
  readonly cancel: string;
  readonly end: string;
  /** From next to nothing to full. */
  readonly levels: string;
  /** Between two facts. */
  readonly dot: string;
}

const unicode: Glyphs = {
  one: "●",
  line: "─",
  halfClose: "┤",
  cancel: "✗",
  end: "■",
  levels: "▁▂▃▄▅▆▇█",
  dot: " ·",
};

const ascii: Glyphs = {
  one: "o",
  line: "-",
  halfClose: "|",
  cancel: "x",
  end: "#",
  levels: ".:-=+*#%@",
  dot: ",",
};

const labelWidth = 11;
const fewestLaneColumns = 8;
/** Wider would be finer than the timeline's buckets. */
const mostLaneColumns = 400;
/** Behind a message in the last column, for the mark of an end. */
const marksColumns = 2;
/** A label such as `100 ms` and a gap. */
const axisLabelColumns = 10;

export function drawPicture(timeline: Timeline, options: PictureOptions): string[] {
  const { columns, untilMs, unit, isUnicode, colours } = options;
  const glyphs = isUnicode ? unicode : ascii;
  const width = Math.min(columns - labelWidth, mostLaneColumns);
  if (width < fewestLaneColumns) {
    // Nothing could be seen in lanes that short.
    return wrap(facts(timeline, options), Math.max(columns, 1), glyphs.dot);
  }
  const count = width - marksColumns;
  const scale = { count, untilMs };
  const stretches = timeline.stretches(count, untilMs);
  const { at } = timeline;

  const sent = lane(
    stretches.map((stretch) => stretch.sent),
    glyphs,
  );
  const marking = { line: glyphs.line, room: width };
  const markAt = (cells: string[], ms: number | undefined, glyph: string) => {
    if (ms !== undefined) {
      mark(cells, stretchOf(ms, scale), { ...marking, glyph });
    }
  };
  markAt(sent, at.halfClosed, glyphs.halfClose);
  markAt(sent, at.cancelled, glyphs.cancel);
  const received = lane(
    stretches.map((stretch) => stretch.received),
    glyphs,
  );
  for (const [column, { lost }] of stretches.entries()) {
    if (lost > 0) {
      mark(received, column, { ...marking, glyph: glyphs.end });
    }
  }
  markAt(received, at.cancelled === undefined ? at.ended : undefined, glyphs.end);
  const row = (label: string, cells: readonly string[], colour: (text: string) => string) => {
    const text = cells.join("").trimEnd();
    return text === "" ? label : label.padEnd(labelWidth) + colour(text);
  };
  const rows = [
    row("", axis(scale), colours.dim),
    row("sent", sent, colours.cyan),
    row("received", received, colours.green),
    row(unit.name, gaugeRow(stretches, Math.max(timeline.peak, unit.full), glyphs), colours.yellow),
  ];
  if (timeline.blockedTimes > 0 || timeline.outputBlockedMs > 0) {
    rows.push(row("blocked", blockedRow(stretches, scale, glyphs), colours.red));
  }
  return [
    ...rows,
    ...wrap(facts(timeline, options), columns, glyphs.dot).map((line) => colours.dim(line)),
  ];
}

/** A message a mark, several in a column a digit, more than nine a plus. */
function lane(counts: readonly number[], glyphs: Glyphs): string[] {
  const first = counts.findIndex((messages) => messages > 0);
  const last = counts.findLastIndex((messages) => messages > 0);
  return counts.map((messages, i) => {
    if (messages === 0) {
      return i > first && i < last ? glyphs.line : " ";
    }
    return messages === 1 ? glyphs.one : messages < 10 ? String(messages) : "+";
  });
}

/** Sets a mark at its column or, where a message is, behind it, if there is room. */
function mark(
  cells: string[],
  column: number,
  { glyph, line, room }: { glyph: string; line: string; room: number },
): void {
  let at = column;
  while (at < cells.length && cells[at] !== " " && cells[at] !== line) {
    at += 1;
  }
  if (at < room) {
    cells[at] = glyph;
  }
}

function gaugeRow(stretches: readonly Bucket[], full: number, { levels }: Glyphs): string[] {
  return stretches.map((stretch) => level((stretch.peak ?? 0) / Math.max(full, 1), levels));
}

function blockedRow(
  stretches: readonly Bucket[],
  { count, untilMs }: { count: number; untilMs: number },
  { levels }: Glyphs,
): string[] {
  return stretches.map(({ blockedMs }) => level(blockedMs / (untilMs / count), levels));
}

function level(share: number, levels: string): string {
  return share <= 0
    ? " "
    : (levels[Math.min(levels.length, Math.ceil(share * levels.length)) - 1] as string);
}

/** Labels at round times, as many as there is room for. */
function axis({ count, untilMs }: { count: number; untilMs: number }): string[] {
  const cells = Array.from({ length: count }, () => " ");
  const stepMs = roundStep(untilMs, Math.floor(count / axisLabelColumns));
  for (let ms = 0; ms <= untilMs; ms += stepMs) {
    const from = stretchOf(ms, { count, untilMs });
    const label = Array.from(formatBrief(ms));
    if (from + label.length <= count) {
      cells.splice(from, label.length, ...label);
    }
    if (stepMs <= 0) {
      break;
    }
  }
  return cells;
}

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;
const day = 24 * hour;
/** Where time is not counted in tens. */
const longSteps = [
  ...[30 * second, minute, 2 * minute, 5 * minute, 10 * minute, 15 * minute, 30 * minute],
  ...[hour, 2 * hour, 3 * hour, 6 * hour, 12 * hour, day],
];

/** The roundest step, in milliseconds, that cuts a time into at most so many parts. */
export function roundStep(ms: number, parts: number): number {
  const least = ms / Math.max(parts, 1);
  if (least <= 0) {
    return 0;
  }
  const long = longSteps.find((step) => step >= least);
  if (long !== undefined && least > 20 * second) {
    return long;
  }
  const unit = least > day ? day : 1;
  const power = 10 ** Math.floor(Math.log10(least / unit));
  return unit * power * ([1, 2, 5].find((factor) => factor * power * unit >= least) ?? 10);
}

/** How long an upload's server works after the half-close before the picture says so, in milliseconds. */
const longWorkMs = 500;

/** What the lanes show, in words. */
export function facts(timeline: Timeline, { unit }: { unit: Unit }): string[] {
  const { at, sent, received, peak, status, blockedTimes, blockedMs, outputBlockedMs, lost } =
    timeline;
  const facts = [
    `${sent} sent${at.lastSent === undefined ? "" : ` by ${formatBrief(at.lastSent)}`}`,
  ];
  if (at.halfClosed !== undefined) {
    facts.push(`half-close at ${formatBrief(at.halfClosed)}`);
    const workedMs = (at.firstReceived ?? at.ended ?? Number.POSITIVE_INFINITY) - at.halfClosed;
    if (unit.name === "waiting" && at.ended === undefined && received === 0) {
      facts.push("the server still works through what is buffered on the way");
    } else if (unit.name === "waiting" && received > 0 && workedMs >= longWorkMs) {
      const rest = formatBrief(workedMs);
      facts.push(`the server worked for another ${rest} through what was buffered on the way`);
    }
  }
  if (received > 0 && at.firstReceived !== undefined && at.lastReceived !== undefined) {
    const from = formatBrief(at.firstReceived);
    const to = formatBrief(at.lastReceived);
    facts.push(`${received} received ${from === to ? `at ${from}` : `from ${from} to ${to}`}`);
  } else {
    facts.push("0 received");
  }
  facts.push(`at most ${peak} ${unit.name}`);
  if (blockedTimes > 0) {
    const times = blockedTimes === 1 ? "once" : `${blockedTimes} times`;
    facts.push(`write() answered false ${times}, blocked for ${formatBrief(blockedMs)}`);
  }
  if (outputBlockedMs > 0) {
    facts.push(`nobody read our output for ${formatBrief(outputBlockedMs)}`);
  }
  if (at.lastLost !== undefined) {
    const times = lost === 1 ? "" : ` ${lost} times, the last`;
    facts.push(`connection lost${times} at ${formatBrief(at.lastLost)}`);
  }
  if (at.cancelled !== undefined) {
    facts.push(`cancelled at ${formatBrief(at.cancelled)}`);
  } else if (at.ended !== undefined) {
    facts.push(`${status} at ${formatBrief(at.ended)}`);
  }
  return facts;
}

/** The facts, set apart, in lines of at most so many columns; one that is longer is cut up. */
function wrap(facts: readonly string[], columns: number, dot: string): string[] {
  const pieces = facts
    .map((fact, i) => (i < facts.length - 1 ? `${fact}${dot}` : fact))
    .flatMap((fact) => (fact.length > columns ? fact.split(" ") : fact))
    .flatMap((word) => word.match(new RegExp(`.{1,${columns}}`, "gu")) ?? []);
  const lines: string[] = [];
  let line = "";
  for (const piece of pieces) {
    if (line !== "" && line.length + 1 + piece.length > columns) {
      lines.push(line);
      line = "";
    }
    line = line === "" ? piece : `${line} ${piece}`;
  }
  return [...lines, line];
}
