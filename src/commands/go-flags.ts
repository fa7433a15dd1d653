/**
 * The command line as the lesson writes it, made into what commander reads.
 *
 * The lesson's commands are Go's, which writes flags with one dash and values with `=`: `-limit=0`,
 * `-bad 5`, `-n=3`. And flags may stand before the command that they belong to.
 */

import type { Command, Option } from "commander";

/** The words as commander wants them. What it does not know either stays, for it to complain of. */
export function readWords(argv: readonly string[], program: Command): string[] {
  const words = hoistCommand(argv, program);
  let command = program;
  for (const word of words) {
    const inner = command.commands.find((known) => known.name() === word);
    if (inner === undefined) {
      break;
    }
    command = inner;
  }
  return doubleDashes(words, command.options);
}

/** The command first: `-q chat -n 3` becomes `chat -q -n 3`; of a group, its verb second. */
function hoistCommand(argv: readonly string[], program: Command): string[] {
  const at = positions(argv, optionsWithin(program)).indexOf("word");
  const [name = ""] = argv.slice(at, at + 1);
  const command = program.commands.find((known) => known.name() === name);
  if (at < 0 || command === undefined) {
    return [...argv];
  }
  // Flags mean nothing to `help`.
  const before = name === "help" ? [] : argv.slice(0, at);
  const rest = [...before, ...argv.slice(at + 1)];
  return [name, ...(command.commands.length > 0 ? hoistCommand(rest, command) : rest)];
}

function optionsWithin({ commands }: Command): Option[] {
  return commands.flatMap((command) => [...command.options, ...optionsWithin(command)]);
}

/** Long flags get their second dash, and `-n=3` loses its `=`; values stay as they are. */
function doubleDashes(words: readonly string[], options: readonly Option[]): string[] {
  const kinds = positions(words, options);
  return words.map((word, i) => {
    const flag = kinds[i] === "flag" ? parseFlag(word, options) : undefined;
    if (flag === undefined) {
      return word;
    }
    const { dashes, name, value, option } = flag;
    if (dashes === "--") {
      return `--${name}${value ?? ""}`;
    }
    const takesValue = option?.required === true || option?.optional === true;
    return `-${name}${takesValue ? (value?.slice(1) ?? "") : (value ?? "")}`;
  });
}

type Kind = "flag" | "value" | "word";

/** What each word is: a flag, the value of the flag before it, or a word of its own. */
function positions(words: readonly string[], options: readonly Option[]): Kind[] {
  const kinds: Kind[] = [];
  let takesNext = false;
  let isOver = false;
  for (const word of words) {
    const flag: Flag | undefined = isOver || takesNext ? undefined : parseFlag(word, options);
    kinds.push(takesNext ? "value" : flag === undefined ? "word" : "flag");
    isOver ||= word === "--" && !takesNext;
    takesNext = flag?.option?.required === true && flag.value === undefined;
  }
  return kinds;
}

interface Flag {
  /** How many dashes it should have. */
  readonly dashes: "-" | "--";
  readonly name: string;
  /** With its `=`. */
  readonly value: string | undefined;
  /** The last one, of several short flags in a word. */
  readonly option: Option | undefined;
}

function parseFlag(word: string, options: readonly Option[]): Flag | undefined {
  const match = /^(--?)([A-Za-z][A-Za-z-]*)(=.*)?$/s.exec(word);
  if (match === null) {
    return undefined;
  }
  const [, dashes, name = "", value] = match;
  const short = (letter: string) => options.find((option) => option.short === `-${letter}`);
  const long = options.find((option) => option.long === `--${name}`);
  const letters = Array.from(name);
  const isShort =
    dashes === "-" &&
    long === undefined &&
    (letters.length === 1 || letters.every((letter) => short(letter) !== undefined));
  return isShort
    ? { dashes: "-", name, value, option: short(letters.at(-1) ?? "") }
    : { dashes: "--", name, value, option: long };
}
