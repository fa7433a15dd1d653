/** Sizes for people. */

const kibibyte = 1024;
const mebibyte = 1024 * kibibyte;

/** A size rounded down to three digits or so, in the largest unit that fits: `812 KiB`, `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  if (bytes < kibibyte) {
    return `${bytes} bytes`;
  }
  return bytes < mebibyte
    ? `${Math.floor(bytes / kibibyte)} KiB`
    : `${Math.floor((bytes / mebibyte) * 10) / 10} MiB`;
}
