/**
 * Makes integers of the ledger readable, whatever an older version or another program has stored:
 * node:sqlite throws for one beyond 2^53 - 1, and so a single row would end the list of all stores.
 */

/** An SQL expression for a column's value, cut to what a JavaScript number holds exactly. */
export function safe(column: string): string {
  const { MAX_SAFE_INTEGER: max, MIN_SAFE_INTEGER: min } = Number;
  return `min(max(${column}, ${min}), ${max})`;
}

/** An SQL condition that holds if one of the columns has a value that `safe` cuts. */
export function isUnsafe(...columns: readonly string[]): string {
  const { MAX_SAFE_INTEGER: max, MIN_SAFE_INTEGER: min } = Number;
  return `(${columns.map((column) => `${column} NOT BETWEEN ${min} AND ${max}`).join(" OR ")})`;
}

/**
 * An SQL expression for the sum of an expression over rows, cut in the same way. SQLite's `sum` fails
 * when it overflows; `total` adds as floating point and does not.
 */
export function safeSum(expression: string): string {
  return `CAST(${safe(`total(${expression})`)} AS INTEGER)`;
}
