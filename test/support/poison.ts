/** Messages with one field out of all bounds, made from a descriptor: what a hostile server sends. */

import { create, type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";

export interface Poison {
  /** The field and what is wrong with it, such as `issued_at: 2^53`. */
  readonly name: string;
  /** Puts it into a message. */
  readonly put: (message: object) => void;
}

const megabyte = "x".repeat(1_000_000);

const texts = {
  "1 MB": megabyte,
  "129 bytes": "x".repeat(129),
  "control characters": "\x1b[2J\r\n",
};
const longs = { "-1": -1n, "2^53": 2n ** 53n, "2^63 - 1": 2n ** 63n - 1n, "-2^63": -(2n ** 63n) };
const ints = { "-1": -1, "2^31 - 1": 2 ** 31 - 1, "-2^31": -(2 ** 31) };
const blobs = { "1 MB": Buffer.from(megabyte), "33 bytes": Buffer.alloc(33) };

/** The values of a scalar that are poison. Every value of a flag or a checksum is within its bounds. */
function valuesOf(scalar: ScalarType): Readonly<Record<string, unknown>> {
  switch (scalar) {
    case ScalarType.STRING:
      return texts;
    case ScalarType.BYTES:
      return blobs;
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return longs;
    case ScalarType.INT32:
    case ScalarType.UINT32:
      return ints;
    case ScalarType.BOOL:
    case ScalarType.FIXED32:
      return {};
    default:
      throw new Error(`no poison for a field of type ${ScalarType[scalar]}`);
  }
}

/** More than any list of the contract may have. */
const tooMany = 20_000;

function set(message: object, field: DescField, value: unknown): void {
  const oneof = field.oneof;
  Object.assign(
    message,
    oneof === undefined
      ? { [field.localName]: value }
      : { [oneof.localName]: { case: field.localName, value } },
  );
}

function inside(field: DescField, of: DescMessage, list: boolean, depth: number): Poison[] {
  return poisonsOf(of, depth + 1).map(({ name, put }) => ({
    name: `${field.name}.${name}`,
    put(message) {
      const inner = create(of);
      put(inner);
      set(message, field, list ? [inner] : inner);
    },
  }));
}

/** Every poison of a message, field by field. */
export function poisonsOf(schema: DescMessage, depth = 0): Poison[] {
  return schema.fields.flatMap((field): Poison[] => {
    const values = (of: Readonly<Record<string, unknown>>, wrap = (value: unknown) => value) =>
      Object.entries(of).map(([what, value]) => ({
        name: `${field.name}: ${what}`,
        put: (message: object) => set(message, field, wrap(value)),
      }));
    switch (field.fieldKind) {
      case "scalar":
        return values(valuesOf(field.scalar));
      case "enum":
        return values(ints);
      case "message":
        return depth < 3 ? inside(field, field.message, false, depth) : [];
      case "list": {
        const empty =
          field.listKind === "message"
            ? create(field.message)
            : field.listKind === "scalar" && field.scalar === ScalarType.STRING
              ? "x"
              : 0;
        const many = values({ "too many": Array.from({ length: tooMany }, () => empty) });
        const items =
          field.listKind === "message"
            ? depth < 3
              ? inside(field, field.message, true, depth)
              : []
            : values(field.listKind === "enum" ? ints : valuesOf(field.scalar), (one) => [one]);
        return [...many, ...items];
      }
      default:
        throw new Error(`no poison for a map: ${field.name}`);
    }
  });
}
