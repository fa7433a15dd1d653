/**
 * Bounds on the fields of messages that a peer sends. A type maps every field of a message to its
 * bound, so a field that is added to the contract without one does not compile.
 *
 * A message is checked right after it was decoded, before any code of a service sees it: what is out
 * of bounds is never kept, logged, counted or answered. This module works for any service; the bounds
 * themselves stand beside the services in `server/bounds.ts`, those of answers beside the clients in
 * `commands/answer-bounds.ts`, and all of them in docs/limits.md.
 */

import type { DescMessage, DescMethod, DescService, MessageShape } from "@bufbuild/protobuf";
import { beginning } from "../plain.ts";

/** The bound of one field. */
export interface Bound<T> {
  /** Returns what is wrong with the value, naming the field and the limit, or undefined. */
  readonly check: (field: string, value: T) => string | undefined;
  /** Returns what replaces the value in the message. Without it, the value stays as it came. */
  readonly mend?: (value: T) => T;
}

type NumberLike = number | bigint;

type OneofBounds<V extends { readonly case: string | undefined; readonly value?: unknown }> = {
  readonly [C in Extract<V, { readonly case: string }>["case"]]: FieldBound<
    Extract<V, { readonly case: C }>["value"]
  >;
};

/** The kind of bound that a field of type `T` takes. */
type FieldBound<T> = T extends string
  ? Bound<string>
  : T extends Uint8Array
    ? Bound<Uint8Array>
    : T extends NumberLike
      ? Bound<NumberLike>
      : T extends readonly (infer Item)[]
        ? Bound<readonly Item[]>
        : T extends { readonly $typeName: string }
          ? Bounds<T>
          : never;

type IsBoolean<T> = [T] extends [boolean | undefined] ? true : false;

type IsOneof<T> = [T] extends [{ readonly case: string | undefined; readonly value?: unknown }]
  ? true
  : false;

/** A bound for every field of a message, but for those that are true or false. */
export type Bounds<M> = {
  readonly [K in keyof M as K extends "$typeName" | "$unknown"
    ? never
    : IsBoolean<M[K]> extends true
      ? never
      : K]-?: IsOneof<NonNullable<M[K]>> extends true
    ? OneofBounds<
        Extract<NonNullable<M[K]>, { readonly case: string | undefined; readonly value?: unknown }>
      >
    : FieldBound<NonNullable<M[K]>>;
};

/**
 * The handler bounds each message of this method itself, because a message that is out of bounds is
 * answered as a refused record there and must not end the stream.
 */
export const checkedByHandler = "checked by handler";

/** The bounds of every request of a service, by method. */
export type RequestBounds<S extends DescService> = {
  readonly [K in keyof S["method"]]:
    | Bounds<MessageShape<S["method"][K]["input"]>>
    | typeof checkedByHandler;
};

/**
 * The reader of a call's answers bounds each of them itself, because an answer that is out of bounds
 * is set aside there and must not end the call, which would keep back all answers after it.
 */
export const checkedByReader = "checked by reader";

/** The bounds of every answer of a service, by method. */
export type AnswerBounds<S extends DescService> = {
  readonly [K in keyof S["method"]]:
    | Bounds<MessageShape<S["method"][K]["output"]>>
    | typeof checkedByReader;
};

/** Text of at most `maxBytes` bytes of UTF-8. */
export function text(maxBytes: number): Bound<string> {
  return {
    check(field, value) {
      // A UTF-16 unit takes at most three bytes of UTF-8, so most text need not be measured.
      const bytes = value.length * 3 <= maxBytes ? 0 : Buffer.byteLength(value);
      return bytes > maxBytes
        ? `${field} has ${bytes} bytes; at most ${maxBytes} are allowed`
        : undefined;
    },
  };
}

/**
 * Text for people, such as the reason of a refusal. It is cut to `maxLength` characters, and never a
 * reason to refuse the message that it explains. Anyone who prints it makes it plain first.
 */
export function textForPeople(maxLength: number): Bound<string> {
  return {
    check: () => undefined,
    mend: (value) => beginning(value, maxLength).toWellFormed(),
  };
}

/** Bounds a text by `faultOf`, which returns what is wrong with it. With `optional`, empty text passes as well. */
export function textThat(
  faultOf: (field: string, value: string) => string | undefined,
  { optional = false }: { readonly optional?: boolean } = {},
): Bound<string> {
  return {
    check: (field, value) => (optional && value === "" ? undefined : faultOf(field, value)),
  };
}

/** Bytes, at most `maxBytes` of them. */
export function bytes(maxBytes: number): Bound<Uint8Array> {
  return {
    check: (field, { byteLength }) =>
      byteLength > maxBytes
        ? `${field} has ${byteLength} bytes; at most ${maxBytes} are allowed`
        : undefined,
  };
}

/** A whole number from `min` to `max`, both included. */
export function integer(min: number, max: number): Bound<NumberLike> {
  return {
    check: (field, value) =>
      value < min || value > max ? `${field} is ${value}; expected ${min} to ${max}` : undefined,
  };
}

/** Any number that the field's type can hold: the service gives each of them a meaning. */
export const anyInteger: Bound<NumberLike> = { check: () => undefined };

/** At most `maxItems` items, each within `item`. */
export function list<T>(maxItems: number, item: Bound<T> | Bounds<T>): Bound<readonly T[]> {
  return {
    check(field, value) {
      if (value.length > maxItems) {
        return `${field} has ${value.length} items; at most ${maxItems} are allowed`;
      }
      for (const i of value.keys()) {
        const fault = faultOfPlace(value, i, `${field}[${i}]`, item as UntypedBound);
        if (fault !== undefined) {
          return fault;
        }
      }
      return undefined;
    },
  };
}

type UntypedBound = Bound<unknown> | { readonly [field: string]: UntypedBound };

/** What checks a message of one method, made once when the service is registered. */
export type Check = (message: object) => string | undefined;

/** The check of a method's requests; undefined if its handler does it. */
export function requestCheck(
  method: DescMethod,
  bounds: RequestBounds<DescService>,
): Check | undefined {
  const own = bounds[method.localName];
  if (own === undefined) {
    throw new TypeError(`${method.parent.typeName} has no bounds for ${method.name}`);
  }
  return own === checkedByHandler ? undefined : checkOf(method.input, own);
}

/** The check of a method's answers; undefined if their reader does it. */
export function answerCheck(
  method: DescMethod,
  bounds: AnswerBounds<DescService>,
): Check | undefined {
  const own = bounds[method.localName];
  if (own === undefined) {
    throw new TypeError(`${method.parent.typeName} has no bounds for answers of ${method.name}`);
  }
  return own === checkedByReader ? undefined : checkOf(method.output, own);
}

/** The check of messages of one type. It mends what its bounds mend. */
export function checkOf<M extends DescMessage>(schema: M, bounds: Bounds<MessageShape<M>>): Check {
  const fields = schema.members.flatMap((member) => {
    const bound = (bounds as { readonly [field: string]: UntypedBound })[member.localName];
    return bound === undefined ? [] : [{ name: member.name, key: member.localName, bound }];
  });
  return (message) => {
    for (const { name, key, bound } of fields) {
      const fault = faultOfPlace(message, key, name, bound);
      if (fault !== undefined) {
        return fault;
      }
    }
    return undefined;
  };
}

function isBound(bound: UntypedBound): bound is Bound<unknown> {
  return typeof bound["check"] === "function";
}

/** Checks what `holder`, a message or a list, has at `key`, and mends it there. */
function faultOfPlace(
  holder: object,
  key: string | number,
  field: string,
  bound: UntypedBound,
): string | undefined {
  const values = holder as { [key: string | number]: unknown };
  const value = values[key];
  if (value === undefined) {
    return undefined;
  }
  if (isBound(bound)) {
    if (bound.mend !== undefined) {
      values[key] = bound.mend(value);
    }
    return bound.check(field, values[key]);
  }
  const oneof = value as { readonly $typeName?: string; case?: unknown };
  if (oneof.$typeName === undefined) {
    const { case: name } = oneof;
    const chosen = typeof name === "string" ? bound[name] : undefined;
    return chosen === undefined
      ? undefined
      : faultOfPlace(oneof, "value", snakeCase(String(name)), chosen);
  }
  for (const [key, own] of Object.entries(bound)) {
    const fault = faultOfPlace(oneof, key, `${field}.${snakeCase(key)}`, own);
    if (fault !== undefined) {
      return fault;
    }
  }
  return undefined;
}

/** The name of a field in the contract, from its name in our code. */
function snakeCase(localName: string): string {
  return localName.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
