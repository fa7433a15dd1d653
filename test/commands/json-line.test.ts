/** Lines of NDJSON whose values are exactly what the line says. */

import { expect, test } from "vitest";
import { exactInteger, parseJson } from "../../src/commands/json-line.ts";
import { dice } from "../support/dice.ts";

const read = (text: string) => parseJson({ text, where: "stdin:1" }, "an object");

test("the text of each value is as it stands in the line, without the white space around it", () => {
  const line = read(
    '{ "a" : {"x": [1, "}],{" ] ,"a":2} ,"b\\"":"\\\\", "\\u0063":-0, "d":[],"e":null,"":1.10}',
  );
  expect(Object.fromEntries(line.texts)).toEqual({
    a: '{"x": [1, "}],{" ] ,"a":2}',
    'b"': '"\\\\"',
    c: "-0",
    d: "[]",
    e: "null",
    "": "1.10",
  });
  expect([...read("{}").texts]).toEqual([]);
  expect([...read(' {"__proto__" : 1} ').texts]).toEqual([["__proto__", "1"]]);
});

test("the texts of any object are what JSON.parse makes its values of", () => {
  const { pick, below } = dice(1);
  const any = (depth: number): unknown =>
    pick([
      () => below(11) - 5,
      () => pick(["", "\\", '"', '{"a":1}', "],[", "☕\u0000\n", ":,"]),
      () => null,
      () => (depth > 3 ? [] : Array.from({ length: below(4) }, () => any(depth + 1))),
      () =>
        depth > 3
          ? {}
          : Object.fromEntries(
              Array.from({ length: below(4) }, (_, i) => [
                `${pick(["k", '"', "\\", "{"])}${i}`,
                any(depth + 1),
              ]),
            ),
    ])();
  for (let i = 0; i < 500; i += 1) {
    const object = { first: any(0), '"second\\': any(0), "": any(0) };
    const { texts, values } = read(JSON.stringify(object, null, pick([0, 1, "\t"])));
    expect(values).toEqual(object);
    const reread = Object.fromEntries([...texts].map(([name, text]) => [name, JSON.parse(text)]));
    expect(reread).toEqual(object);
  }
});

test.each(['{"a":1,"a":1}', '{"a":1,"b":{},"\\u0061":2}'])("%s has a name twice", (text) => {
  expect(() => read(text)).toThrow('stdin:1: "a" is given twice');
});

test.each([
  ["0", "0"],
  ["-0", "0"],
  ["9007199254740993", "9007199254740993"],
  ["-63200012345678901234", "-63200012345678901234"],
  ["1e3", "1000"],
  ["2.50e1", "25"],
  ["120e-1", "12"],
  ["0e999999999", "0"],
  ["1.5", undefined],
  ["1.00000000000000000001", undefined],
  ["1e400", undefined],
  ["1e-400", undefined],
  ["NaN", undefined],
])("%s as an integer is %s", (number, digits) => {
  expect(exactInteger(number)).toBe(digits);
});
