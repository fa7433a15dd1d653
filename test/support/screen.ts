/** What a terminal shows after it was sent some text: as much of one as our pictures use. */

/** The lines of the screen and above it, without the empty ones at the end. Lines do not wrap. */
export function screenOf(written: string): string[] {
  const lines: string[] = [""];
  let row = 0;
  let column = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: an escape sequence begins with one
  const pieces = /\x1b\[(\??\d*)([A-Za-z])|\n|\r|[^\x1b\n\r]+|\x1b/g;
  for (const [piece, parameter = "", command] of written.matchAll(pieces)) {
    if (piece === "\n") {
      row += 1;
      column = 0;
      lines[row] ??= "";
    } else if (piece === "\r") {
      column = 0;
    } else if (command === "A") {
      row = Math.max(0, row - Number(parameter || 1));
    } else if (command === "K") {
      lines[row] = (lines[row] ?? "").slice(0, column);
    } else if (command === "J") {
      lines[row] = (lines[row] ?? "").slice(0, column);
      lines.length = row + 1;
    } else if (command === undefined) {
      const line = (lines[row] ?? "").padEnd(column);
      lines[row] = line.slice(0, column) + piece + line.slice(column + piece.length);
      column += piece.length;
    }
  }
  while (lines.at(-1) === "") {
    lines.pop();
  }
  return lines;
}
