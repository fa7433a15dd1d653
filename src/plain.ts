/** Text that came from elsewhere, made fit to be shown. */

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
