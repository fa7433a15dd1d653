/**
 * `brewctl completion bash|zsh|fish`: a script for the shell, written from the commands and flags as
 * they are declared. It holds all words itself: a TAB starts no process and runs nothing typed.
 */

import type { Command, Option } from "commander";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

export const examples = `\
  source <(brewctl completion bash)                in ~/.bashrc
  brewctl completion zsh > "\${fpath[1]}/_brewctl"  then begin a new shell
  brewctl completion fish > ~/.config/fish/completions/brewctl.fish`;

/** What may follow a flag: nothing, a file, one of these words, or what we cannot know. */
type Value = "none" | "file" | "any" | readonly string[];

interface Flag {
  readonly long: string;
  /** With its dash. */
  readonly short: string | undefined;
  readonly summary: string;
  readonly value: Value;
  /** Whether the flag may stand without its value. */
  readonly isOptional: boolean;
}

interface Spec {
  /** Of a verb of a group, with the group's: `store-sync flush`. */
  readonly name: string;
  readonly summary: string;
  readonly flags: readonly Flag[];
  /** What may follow that is no flag. */
  readonly words: readonly string[];
}

/** `topics` are what `help` knows beside the commands. */
export function completionScript(
  shell: Shell,
  program: Command,
  { topics }: { topics: readonly string[] },
): string {
  const names = program.commands.map((command) => command.name());
  const specs = specsOf(program, "");
  const wordsOf: Readonly<Record<string, readonly string[]>> = {
    help: [...names, ...topics],
    completion: shells,
  };
  const write = { bash, zsh, fish }[shell];
  return write([
    ...specs.map((spec) => ({ ...spec, words: wordsOf[spec.name] ?? spec.words })),
    ...specs.filter(isTop).map((spec) => helpOn(spec, specs)),
    ...topics.map((topic) => ({
      name: `help ${topic}`,
      summary: "help on this topic",
      flags: [],
      words: [],
    })),
  ]);
}

/** What `help` takes after a command: the verbs of a group. */
function helpOn({ name, summary, words }: Spec, specs: readonly Spec[]): Spec {
  const hasVerbs = specs.some((other) => other.name.startsWith(`${name} `));
  return { name: `help ${name}`, summary, flags: [], words: hasVerbs ? words : [] };
}

/** Of the commands, and behind each group of its verbs. */
function specsOf(parent: Command, path: string): Spec[] {
  return parent
    .createHelp()
    .visibleCommands(parent)
    .flatMap((command): Spec[] => {
      const name = `${path}${command.name()}`;
      const spec = {
        name,
        summary: command.description(),
        flags: command.createHelp().visibleOptions(command).map(flagOf),
        words: [
          ...command.commands.map((verb) => verb.name()),
          ...command.registeredArguments.flatMap(({ argChoices }) => argChoices ?? []),
        ],
      };
      return [spec, ...specsOf(command, `${name} `)];
    });
}

function flagOf(option: Option): Flag {
  const { flags, short, long, description, argChoices, required, optional } = option;
  const takesValue = required || optional;
  return {
    long: long ?? "",
    short,
    summary: description,
    value: !takesValue
      ? "none"
      : (argChoices ?? (/[<[](file|folder)/.test(flags) ? "file" : "any")),
    isOptional: optional,
  };
}

const nameOf = ({ name }: Spec) => name;
const isTop = ({ name }: Spec) => !name.includes(" ");
const isGroup = ({ name }: Spec, specs: readonly Spec[]) =>
  specs.some((other) => other.name.startsWith(`${name} `));

const spellings = ({ short, long }: Flag) => (short === undefined ? [long] : [short, long]);

/** For bash 3.2 too, which macOS has, and without the bash-completion package. */
function bash(specs: readonly Spec[]): string {
  const cases = specs.flatMap(({ name, flags, words }) => [
    `    "${name}")`,
    `      flags="${flags.flatMap(spellings).join(" ")}"`,
    `      words="${words.join(" ")}"`,
    '      case "$previous" in',
    ...flags
      .filter(({ value }) => value !== "none")
      .map((flag) => `        ${spellings(flag).join("|")}) ${bashValue(flag, name)} ;;`),
    "      esac",
    "      ;;",
  ]);
  return `\
# bash completion for brewctl. Load it with: source <(brewctl completion bash)
_brewctl() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  # bash splits --output=nd at the equals sign.
  if [[ $current == "=" ]]; then
    current=
  elif [[ $previous == "=" ]]; then
    previous=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  local command= flags="--version --help" words="${specs.filter(isTop).map(nameOf).join(" ")}" values= files= stores= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    # The command, and behind a group its verb.
    case "\${command:+$command }\${COMP_WORDS[i]}" in
      ${specs.map(({ name }) => `"${name}"`).join("|")}) command="\${command:+$command }\${COMP_WORDS[i]}" ;;
    esac
  done
  case "$command" in
${cases.join("\n")}
  esac
  local IFS=$' \\t\\n'
  if [[ -n $files && ( -z $current || $current != -* ) ]]; then
    compopt -o filenames 2>/dev/null
    local file
    while IFS= read -r file; do
      COMPREPLY+=("$file")
    done < <(compgen -f -- "$current")
  elif [[ -n $stores ]]; then
    # The folders of the stores on this machine; ids that a folder's name spells out are left out.
    local store
    for store in "\${XDG_STATE_HOME:-\${HOME-}/.local/state}"/brewctl/stores/*/buffer.db; do
      store=\${store%/buffer.db}
      store=\${store##*/}
      [[ $store == *[%=*]* || $store != "$current"* ]] || COMPREPLY+=("$store")
    done
  elif [[ -n $values ]]; then
    [[ $values == "?" ]] || COMPREPLY=($(compgen -W "$values" -- "$current"))
  elif [[ $current == -* || -z $words ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$current"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  fi
}
complete -F _brewctl brewctl
`;
}

function bashValue({ long, value, isOptional }: Flag, command: string): string {
  if (long === "--store" && command.startsWith("store-sync ")) {
    return "stores=1";
  }
  if (value === "file") {
    return "files=1";
  }
  // After a flag that may stand alone, the next flag is as likely.
  return value === "any"
    ? isOptional
      ? ":"
      : 'values="?"'
    : `values="${(value as string[]).join(" ")}"`;
}

function zsh(specs: readonly Spec[]): string {
  const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
  const summary = (text: string) => text.replace(/[[\]:\\]/g, "\\$&");
  const argument = (flag: Flag) => {
    const value =
      flag.value === "none"
        ? ""
        : `${flag.isOptional ? "::" : ":"}${
            flag.value === "file"
              ? "file:_files"
              : flag.value === "any"
                ? "value: "
                : `value:(${flag.value.join(" ")})`
          }`;
    const assign = flag.value === "none" ? "" : "=";
    return spellings(flag).map((spelling) => {
      const others = spellings(flag).length > 1 ? `(${spellings(flag).join(" ")})` : "";
      return quoted(
        `${others}${spelling}${spelling.startsWith("--") ? assign : ""}[${summary(flag.summary)}]${value}`,
      );
    });
  };
  const described = (some: readonly Spec[]) =>
    some.map(({ name, summary: text }) => quoted(`${name.split(" ").at(-1)}:${summary(text)}`));
  const groups = specs.filter((spec) => isGroup(spec, specs));
  const groupCases = groups.flatMap(({ name }) => {
    const verbs = specs.filter((verb) => verb.name.startsWith(`${name} `));
    return [
      `    ${name})`,
      "      if (( CURRENT == 3 )); then",
      `        commands=(${described(verbs).join(" ")})`,
      "        _describe verb commands",
      "        return",
      "      fi",
      '      command="$command $words[3]"',
      "      shift words",
      "      (( CURRENT-- ))",
      "      ;;",
    ];
  });
  const leaves = specs.filter((spec) => !isGroup(spec, specs));
  const cases = leaves.flatMap(({ name, flags, words }) => [
    `    ${quoted(name)})`,
    `      _arguments -S ${[
      ...flags.flatMap(argument),
      ...(words.length > 0 ? [quoted(`1:word:(${words.join(" ")})`)] : []),
    ].join(" \\\n        ")}`,
    "      ;;",
  ]);
  return `\
#compdef brewctl
# zsh completion for brewctl. Load it with: source <(brewctl completion zsh), or from a file in $fpath.
_brewctl() {
  local -a commands
  commands=(
${described(specs.filter(isTop))
  .map((line) => `    ${line}`)
  .join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  case $command in
${groupCases.join("\n")}
  esac
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join("\n")}
  esac
}
if [[ $funcstack[1] == _brewctl ]]; then
  _brewctl "$@"
else
  compdef _brewctl brewctl
fi
`;
}

function fish(specs: readonly Spec[]): string {
  const quoted = (text: string) => `'${text.replace(/['\\]/g, "\\$&")}'`;
  const seen = (name: string) => `__fish_seen_subcommand_from ${name}`;
  const complete = (condition: string) => `complete -c brewctl -n ${quoted(condition)}`;
  const lines = specs.flatMap((spec) => {
    const { name, summary, flags, words } = spec;
    const [group = "", verb] = name.split(" ");
    const inCommand = complete(name.split(" ").map(seen).join("; and "));
    // `help` is among the words of `help`, where it is always on the line.
    const siblings = specs
      .find((other) => other.name === group)
      ?.words.filter((word) => word !== group)
      .join(" ");
    const offer =
      verb === undefined
        ? `${complete("__fish_use_subcommand")} -f -a ${name} -d ${quoted(summary)}`
        : `${complete(`${seen(group)}; and not ${seen(siblings ?? "")}`)} -f -a ${verb} -d ${quoted(summary)}`;
    const given = isGroup(spec, specs) ? [] : words;
    return [
      offer,
      `${inCommand} -f${given.length > 0 ? ` -a ${quoted(given.join(" "))}` : ""}`,
      ...flags.map((flag) => {
        const short = flag.short === undefined ? "" : ` -s ${flag.short.slice(1)}`;
        const value =
          flag.value === "none" || (flag.isOptional && flag.value === "any")
            ? ""
            : flag.value === "file"
              ? " -r -F"
              : flag.value === "any"
                ? " -x"
                : ` -x -a ${quoted(flag.value.join(" "))}`;
        return `${inCommand} -l ${flag.long.slice(2)}${short}${value} -d ${quoted(flag.summary)}`;
      }),
    ];
  });
  return `# fish completion for brewctl. Load it with: brewctl completion fish | source\n${lines.join("\n")}\n`;
}
