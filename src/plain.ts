/** Text that came from elsewhere, made fit to be shown and kept. */

/**
 * Text of a stranger, fit for one line of a terminal: what could move the cursor, break the line,
 * turn the direction of what follows or hide in it is spelled out, as JSON does it.
 */
export function plain(text: string): string {
  return text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** At most so many characters of a text. A copy: a slice would keep all of it in memory. */
export function beginning(text: string, maxLength: number): string {
  return text.length <= maxLength ? text : Buffer.from(text.slice(0, maxLength)).toString();
}
