/** Text that came from elsewhere, made fit to be shown. */

/**
 * Text of a stranger, fit for one line of a terminal: control characters, which could move the
 * cursor, break the line or worse, are spelled out.
 */
export function plain(text: string): string {
  return text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about
    /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
