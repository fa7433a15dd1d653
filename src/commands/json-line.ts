/**
 * A line of NDJSON as an object whose values are exactly what the line says. JSON.parse alone would
 * round numbers that a double cannot hold, reorder the keys of objects and drop duplicates; here the text of
 * each top-level value stays available.
 */

import {
  type DescField,
  type DescMessage,
  fromJson,
  type JsonValue,
  type MessageShape,
  ScalarType,
} from "@bufbuild/protobuf";
import { messageOf, UsageError } from "../errors.ts";
import { parseRfc3339 } from "../timestamp.ts";
import type { Line } from "./input.ts";

export interface JsonLine {
  /** Where the line stands, such as `orders.ndjson:17`. */
  readonly where: string;
  /** The values as JSON.parse reads them: numbers may be rounded. */
  readonly values: { readonly [name: string]: JsonValue };
  /** The text of each value as it stands in the line, without the white space around it. */
  readonly texts: ReadonlyMap<string, string>;
}

/**
 * Reads a line. Throws `UsageError` naming the line, and `what` was expected, if it is not a JSON object
 * or has a name twice.
 */
export function parseJson({ text, where }: Line, what: string): JsonLine {
  const hint = `expected ${what}`;
  let json: JsonValue;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${where}: not JSON: ${messageOf(error)}`, { hint });
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new UsageError(`${where}: expected a JSON object`, { hint });
  }
  const members = [...membersOf(text)];
  const texts = new Map(members);
  if (texts.size < members.length) {
    const twice = members.find(([name], i) => members.findIndex(([other]) => other === name) < i);
    throw new UsageError(`${where}: ${JSON.stringify(twice?.[0])} is given twice`, { hint });
  }
  return { where, values: json, texts };
}

/** The names and the texts of the values of a JSON object, which must be valid. */
function* membersOf(text: string): Generator<[name: string, value: string], void> {
  let depth = 0;
  let name: string | undefined;
  let from = 0;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '"') {
      const end = endOfString(text, at);
      if (depth === 1 && name === undefined) {
        name = String(JSON.parse(text.slice(at, end + 1)));
      }
      at = end;
    } else if (character === "{" || character === "[") {
      depth += 1;
    } else if (character === ":" && depth === 1) {
      from = at + 1;
    } else {
      const closes = character === "}" || character === "]";
      depth -= closes ? 1 : 0;
      const isEndOfMember = closes ? depth === 0 : character === "," && depth === 1;
      if (isEndOfMember && name !== undefined) {
        yield [name, text.slice(from, at).trim()];
        name = undefined;
      }
    }
  }
}

/** The position of the quotation mark that closes the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; ; at += 1) {
    if (text[at] === "\\") {
      at += 1;
    } else if (text[at] === '"') {
      return at;
    }
  }
}

/**
 * The integer that a JSON number stands for, as digits: `1e3` is `1000`. Undefined if the number is not
 * an integer, or has so many digits that no field could hold it.
 */
export function exactInteger(number: string): string | undefined {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(number);
  if (match === null) {
    return undefined;
  }
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = match;
  const digits = `${whole}${fraction}`;
  const significant = digits.replace(/0+$/, "");
  const zeros = digits.length - significant.length + Number(exponent) - fraction.length;
  if (significant === "") {
    return "0";
  }
  return zeros < 0 || zeros > 30 ? undefined : `${sign}${significant}${"0".repeat(zeros)}`;
}

/**
 * A message from a line of ProtoJSON, with integers of any size exact. Throws `UsageError` naming the
 * line and the field for a field that the message lacks, that is given in both its spellings, or whose value
 * has another type, does not fit or is a time that does not exist.
 */
export function parseMessage<M extends DescMessage>(schema: M, line: JsonLine): MessageShape<M> {
  const values: { [name: string]: JsonValue } = { ...line.values };
  for (const field of schema.fields) {
    const given = [...new Set([field.jsonName, field.name])].filter((name) => name in values);
    const [name, other] = given;
    if (other !== undefined) {
      throw new UsageError(`${line.where}: ${name} and ${other} are the same field`);
    }
    if (name !== undefined) {
      values[name] = exactValue(field, name, line);
    }
  }
  try {
    return fromJson(schema, values);
  } catch (error) {
    throw new UsageError(`${line.where}: ${messageOf(error)}`);
  }
}

/** The value to be given to protobuf-es: integers as text, since it would take a rounded number. */
function exactValue(field: DescField, name: string, { where, values, texts }: JsonLine): JsonValue {
  const value = values[name] ?? null;
  const isInteger = field.scalar === ScalarType.INT64 || field.scalar === ScalarType.INT32;
  if (typeof value === "number" && isInteger) {
    const text = texts.get(name) ?? "";
    return exactInteger(text) ?? text;
  }
  if (typeof value === "string" && field.message?.typeName === "google.protobuf.Timestamp") {
    try {
      parseRfc3339(value);
    } catch (error) {
      throw new UsageError(`${where}: ${name}: ${messageOf(error)}`);
    }
  }
  return value;
}
