/** Text that came from elsewhere, made fit to be shown and kept. */

/**
 * Text of a stranger, fit for one line of a terminal: what could move the cursor, break the line,
 * turn the direction of what follows or hide in it is spelled out, as JSON does it.
 */
export function plain(text: string): string {
  return text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    spelledOut,
  );
}

function spelledOut(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/**
 * A line that brewctl has composed, with what a terminal obeys spelled out, except for colours, tabs and
 * line ends, which are brewctl's own. This is for values of flags and of the environment that may be part of the line;
 * text of strangers must have gone through `plain` before.
 */
export function printableLine(line: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
  const controls = /\u001b\[[\d;]*m|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
  return line.replace(controls, (found) => (found.length > 1 ? found : spelledOut(found)));
}

/** At most so many characters of a text. A copy: a slice would keep all of it in memory. */
export function beginning(text: string, maxLength: number): string {
  return text.length <= maxLength ? text : Buffer.from(text.slice(0, maxLength)).toString();
}
