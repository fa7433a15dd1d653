/** A timeline as an SVG document, to be kept: the lanes of the text picture, and which echo answers which message. */

import { formatBrief } from "../../duration.ts";
import { facts, roundStep, type Unit } from "./picture.ts";
import type { Timeline } from "./timeline.ts";

export interface SvgOptions {
  readonly title: string;
  /** See `PictureOptions`. */
  readonly untilMs: number;
  /** See `PictureOptions`. */
  readonly unit: Unit;
  /** Whether the n-th received message answers the n-th sent one, and lines say so. */
  readonly hasEchoes: boolean;
}

/** In the units of the drawing. */
const width = 960;
const left = 96;
const right = 24;
const plotWidth = width - left - right;
const laneY = { sent: 84, received: 164 };
const gaugeY = { top: 204, bottom: 260 };
const blockedY = { top: 276, bottom: 292 };
const height = 360;

/** Finer than the eye; one stretch is a little more than a unit of the drawing. */
const stretches = 512;

/** With more, the lines from message to echo would be one grey. */
const mostEchoLines = 200;

export function drawSvg(timeline: Timeline, options: SvgOptions): string {
  const { title, untilMs, unit, hasEchoes } = options;
  const parts = timeline.stretches(stretches, untilMs);
  const x = (i: number) => round(left + ((i + 0.5) / stretches) * plotWidth);
  const xAt = (ms: number) => round(left + (untilMs > 0 ? ms / untilMs : 0) * plotWidth);
  const { at } = timeline;

  const dots = (lane: "sent" | "received") =>
    parts.flatMap(({ [lane]: count }, i) =>
      count === 0
        ? []
        : `<circle class="${lane}" cx="${x(i)}" cy="${laneY[lane]}" r="${round(Math.min(9, 3 + Math.log2(count)))}"><title>${count} ${lane}</title></circle>`,
    );
  // One x a message: of a stretch with three, three times the same.
  const xs = (lane: "sent" | "received") =>
    parts.flatMap(({ [lane]: count }, i) => Array.from({ length: count }, () => x(i)));
  const echoes =
    hasEchoes && timeline.sent <= mostEchoLines
      ? zip(xs("sent"), xs("received")).map(
          ([from, to]) =>
            `<line class="echo" x1="${from}" y1="${laneY.sent}" x2="${to}" y2="${laneY.received}"/>`,
        )
      : [];

  const full = Math.max(timeline.peak, unit.full, 1);
  const gaugeHeight = gaugeY.bottom - gaugeY.top;
  const area = parts.map(
    (part, i) => `${x(i)},${round(gaugeY.bottom - ((part.peak ?? 0) / full) * gaugeHeight)}`,
  );
  const stretchMs = untilMs / stretches;
  const blocked = parts.flatMap(({ blockedMs }, i) =>
    blockedMs > 0
      ? `<rect class="blocked" x="${round(x(i) - plotWidth / stretches / 2)}" y="${blockedY.top}" width="${Math.ceil(plotWidth / stretches)}" height="${blockedY.bottom - blockedY.top}" opacity="${round(Math.max(0.15, Math.min(1, blockedMs / stretchMs)))}"/>`
      : [],
  );

  const endClass = timeline.status === "OK" ? "received" : "end";
  const marks = [
    ...(at.halfClosed === undefined
      ? []
      : [mark(xAt(at.halfClosed), laneY.sent, "sent", "half-close")]),
    ...(at.cancelled === undefined
      ? []
      : [mark(xAt(at.cancelled), laneY.received, "end", "cancelled")]),
    ...parts.flatMap(({ lost }, i) => (lost > 0 ? mark(x(i), laneY.received, "end", "lost") : [])),
    ...(at.ended !== undefined && at.cancelled === undefined
      ? [mark(xAt(at.ended), laneY.received, endClass, `end: ${timeline.status}`)]
      : []),
  ];

  const summary = facts(timeline, { unit });
  const half = Math.ceil(summary.length / 2);
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" font-family="system-ui, sans-serif" font-size="13">`,
    `<title>${escapeXml(title)}</title>`,
    `<desc>${escapeXml(summary.join("; "))}</desc>`,
    `<style>${style}</style>`,
    `<rect class="paper" width="${width}" height="${height}"/>`,
    `<text class="title" x="${left}" y="28">${escapeXml(title)}</text>`,
    ...axis(untilMs, xAt),
    label("sent", laneY.sent),
    label("received", laneY.received),
    label(unit.name, gaugeY.bottom - 16),
    `<text class="small" x="${left - 8}" y="${gaugeY.top + 8}" text-anchor="end">${full}</text>`,
    ...(blocked.length > 0 ? [label("blocked", blockedY.bottom - 3)] : []),
    `<line class="lane" x1="${left}" y1="${laneY.sent}" x2="${width - right}" y2="${laneY.sent}"/>`,
    `<line class="lane" x1="${left}" y1="${laneY.received}" x2="${width - right}" y2="${laneY.received}"/>`,
    ...echoes,
    `<polygon class="gauge" points="${left},${gaugeY.bottom} ${area.join(" ")} ${width - right},${gaugeY.bottom}"/>`,
    ...blocked,
    ...dots("sent"),
    ...dots("received"),
    ...marks,
    `<text class="small" x="${left}" y="${height - 36}">${escapeXml(summary.slice(0, half).join(" · "))}</text>`,
    `<text class="small" x="${left}" y="${height - 16}">${escapeXml(summary.slice(half).join(" · "))}</text>`,
    "</svg>",
  ].join("\n")}\n`;
}

const style = [
  ".paper{fill:#fff}text{fill:#24292f}.title{font-size:16px;font-weight:600}.small{font-size:12px;fill:#57606a}",
  ".grid{stroke:#d8dee4}.lane{stroke:#8c959f}.echo{stroke:#8c959f;stroke-opacity:.45}",
  ".sent{fill:#0969da;stroke:#0969da}.received{fill:#1a7f37;stroke:#1a7f37}.gauge{fill:#bf8700;fill-opacity:.35}",
  ".blocked{fill:#cf222e;shape-rendering:crispEdges}.end{stroke:#cf222e}.mark{stroke-width:3}",
  "@media(prefers-color-scheme:dark){.paper{fill:#0d1117}text{fill:#e6edf3}.small{fill:#9198a1}.grid{stroke:#30363d}}",
].join("");

function axis(untilMs: number, xAt: (ms: number) => number): string[] {
  const stepMs = roundStep(untilMs, 8);
  const ticks = stepMs > 0 ? Math.floor(untilMs / stepMs) + 1 : 1;
  return Array.from({ length: ticks }, (_, i) => i * stepMs).flatMap((ms) => [
    `<line class="grid" x1="${xAt(ms)}" y1="56" x2="${xAt(ms)}" y2="${blockedY.bottom}"/>`,
    `<text class="small" x="${xAt(ms)}" y="50" text-anchor="middle">${formatBrief(ms)}</text>`,
  ]);
}

function label(text: string, y: number): string {
  return `<text x="${left - 8}" y="${y + 4}" text-anchor="end">${text}</text>`;
}

function mark(x: number, y: number, name: string, text: string): string {
  const anchor = x > width / 2 ? "end" : "start";
  return [
    `<line class="${name} mark" x1="${x}" y1="${y - 14}" x2="${x}" y2="${y + 14}"/>`,
    `<text class="small" x="${x}" y="${y - 19}" text-anchor="${anchor}">${escapeXml(text)}</text>`,
  ].join("");
}

function zip<T>(one: readonly T[], other: readonly T[]): [T, T][] {
  return one.slice(0, other.length).map((item, i) => [item, other[i] as T]);
}

const round = (number: number) => Math.round(number * 100) / 100;

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
};

function escapeXml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => entities[character] as string);
}
