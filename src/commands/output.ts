/**
 * What a server sent, as lines of data. They are ProtoJSON in a form that every line of brewctl has:
 *
 * - all fields are there, also those with a default value;
 * - a 64-bit integer is a number, or a text beyond 2^53 - 1, where most readers would round a number;
 * - a value of an enum is its name as the flags have it: `applied` for COMMAND_STATE_APPLIED;
 * - a google.protobuf.Timestamp has milliseconds: `2026-01-02T03:04:05.678Z`.
 *
 * A reader of ProtoJSON reads all of it but the names of enums.
 */

import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type JsonValue,
  type MessageShape,
  ScalarType,
  toJson,
} from "@bufbuild/protobuf";
import { messageOf, StatusError } from "../errors.ts";
import { plain } from "../plain.ts";

/**
 * A line of NDJSON. Throws `StatusError` for a message that has no such form, such as one with a time
 * outside of the years 1 to 9999.
 */
export function ndjson<M extends DescMessage>(schema: M, message: MessageShape<M>): string {
  // JSON leaves some characters as they are that terminals obey. Spelled out it is the same JSON.
  return plain(JSON.stringify(jsonOf(schema, message)));
}

/** The same as an object, for a line that has more beside it. Throws as `ndjson`. */
export function jsonOf<M extends DescMessage>(
  schema: M,
  message: MessageShape<M>,
): Record<string, JsonValue> {
  const json = printable(() => toJson(schema, message, { alwaysEmitImplicit: true }));
  return withFields(schema, json);
}

/** What `print` returns; what it throws is the fault of whoever sent the message, not ours. */
export function printable<T>(print: () => T): T {
  try {
    return print();
  } catch (error) {
    const why = messageOf(error);
    throw new StatusError("DATA_LOSS", `the server sent what cannot be printed: ${why}`);
  }
}

function withFields(desc: DescMessage, json: JsonValue): Record<string, JsonValue> {
  const fields: Record<string, JsonValue> = isObject(json) ? { ...json } : {};
  for (const field of desc.fields) {
    const value = fields[field.jsonName];
    if (value !== undefined) {
      fields[field.jsonName] =
        field.fieldKind === "list" && Array.isArray(value)
          ? value.map((item) => inOurForm(field, item))
          : inOurForm(field, value);
    }
  }
  return fields;
}

/** A value of a field, or an item of a list. */
function inOurForm(field: DescField, value: JsonValue): JsonValue {
  if (field.enum !== undefined) {
    return flagName(field.enum, value);
  }
  if (field.message !== undefined) {
    return field.message.typeName === "google.protobuf.Timestamp"
      ? new Date(String(value)).toISOString()
      : withFields(field.message, value);
  }
  const isLong = field.scalar !== undefined && longTypes.has(field.scalar);
  return isLong && Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

const longTypes: ReadonlySet<ScalarType> = new Set([
  ...[ScalarType.INT64, ScalarType.UINT64, ScalarType.SINT64],
  ...[ScalarType.FIXED64, ScalarType.SFIXED64],
]);

/** `seq-taken` for REFUSAL_CODE_SEQ_TAKEN. A value that this version does not know stays a number. */
function flagName({ values, sharedPrefix = "" }: DescEnum, value: JsonValue): JsonValue {
  const known = values.find(({ name }) => name === value);
  return known === undefined
    ? value
    : known.name.slice(sharedPrefix.length).toLowerCase().replaceAll("_", "-");
}

function isObject(json: JsonValue): json is { readonly [name: string]: JsonValue } {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}
