/** The picture to keep: a well-formed document, and the same facts as on the terminal. */

import { expect, test } from "vitest";
import { drawSvg } from "../../../src/commands/observe/svg.ts";
import { Timeline } from "../../../src/commands/observe/timeline.ts";
import type { CallEvent } from "../../../src/grpc/call-events.ts";

const sent: CallEvent = { kind: "sent", bytes: 30, waiting: 1 };
/** A gauge that stands at this. */
const still = (count: number) => ({ peak: count, rest: count });
const received: CallEvent = { kind: "received", bytes: 30, waiting: 1 };

function draw(timeline: Timeline, { title = "brewctl chat", hasEchoes = true } = {}): string {
  const unit = { name: "in flight", full: 0 };
  return drawSvg(timeline, { title, untilMs: timeline.lastMs, unit, hasEchoes });
}

/** Every element is closed, in order, and every attribute quoted: a parser of what XML we write. */
function elements(svg: string): string[] {
  const open: string[] = [];
  const names: string[] = [];
  let rest = svg;
  while (rest !== "") {
    const match =
      /^<(\/?)([a-z]+)((?: [A-Za-z0-9:-]+="[^"<>&]*")*)(\/?)>|^(?:[^<>&]|&(?:amp|lt|gt|quot);)+/.exec(
        rest,
      );
    if (match === null) {
      throw new Error(`not well-formed at: ${rest.slice(0, 80)}`);
    }
    const [all, closes, name, , isEmpty] = match;
    if (name !== undefined && closes === "/") {
      expect(open.pop()).toBe(name);
    } else if (name !== undefined) {
      names.push(name);
      if (isEmpty !== "/") {
        open.push(name);
      }
    }
    rest = rest.slice(all.length);
  }
  expect(open).toEqual([]);
  return names;
}

function chat(count: number): Timeline {
  const timeline = new Timeline();
  for (let i = 0; i < count; i += 1) {
    timeline.record(sent, i * 10, still(1));
    timeline.record(received, i * 10 + 5, still(0));
  }
  timeline.record({ kind: "half-closed" }, count * 10, still(0));
  timeline.record({ kind: "ended", code: "OK", message: "" }, count * 10 + 1, still(0));
  return timeline;
}

test("it is well-formed, with a dot a message and a line from each to its echo", () => {
  const svg = draw(chat(20));
  const names = elements(svg);
  expect(names[0]).toBe("svg");
  expect(names.filter((name) => name === "circle")).toHaveLength(40);
  expect(svg.match(/class="echo"/g)).toHaveLength(20);
  expect(svg).toContain("half-close");
  expect(svg).toContain("end: OK");
  expect(svg).not.toContain('class="blocked"');
});

test("a title, and a description for those who cannot see it", () => {
  const svg = draw(chat(2), { title: 'a "title" & <b>' });
  elements(svg);
  expect(svg).toContain("<title>a &quot;title&quot; &amp; &lt;b&gt;</title>");
  expect(svg).toContain(
    "<desc>2 sent by 10 ms; half-close at 20 ms; 2 received from 5 ms to 15 ms; at most 1 in flight; OK at 21 ms</desc>",
  );
});

test("without echoes there are no lines, nor with more than could be told apart", () => {
  expect(draw(chat(20), { hasEchoes: false })).not.toContain('class="echo"');
  expect(draw(chat(500))).not.toContain('class="echo"');
});

test("a cancelled and a blocked call", () => {
  const timeline = new Timeline();
  timeline.record(sent, 0, still(16));
  timeline.record({ kind: "blocked" }, 0, still(16));
  timeline.record({ kind: "cancelled" }, 100, still(16));
  const svg = draw(timeline);
  elements(svg);
  expect(svg).toContain('class="blocked"');
  expect(svg).toContain("cancelled");
});

test("nothing at all is a document, too, and so are a hundred thousand messages, of the same size", () => {
  elements(draw(new Timeline()));
  const svg = draw(chat(100_000));
  elements(svg);
  expect(svg.length).toBeLessThan(200_000);
});

test.each([
  ["OK", "received"],
  ["UNAVAILABLE", "end"],
] as const)("the end with %s is drawn as %s", (code, name) => {
  const timeline = new Timeline();
  timeline.record(sent, 0, still(1));
  timeline.record({ kind: "ended", code, message: "" }, 10, still(0));
  expect(draw(timeline)).toMatch(
    new RegExp(`class="(mark )?${name}( mark)?"[^>]*>(?:(?!<line).)*end: ${code}`, "s"),
  );
});
