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
  const specs = program
    .createHelp()
    .visibleCommands(program)
    .map((command): Spec => {
      const name = command.name();
      return {
        name,
        summary: command.description(),
        flags: command.createHelp().visibleOptions(command).map(flagOf),
        words: name === "help" ? [...names, ...topics] : name === "completion" ? shells : [],
      };
    });
  const write = { bash, zsh, fish }[shell];
  return write(specs);
}

function flagOf(option: Option): Flag {
  const { flags, short, long, description, argChoices, required, optional } = option;
  const takesValue = required || optional;
  return {
    long: long ?? "",
    short,
    summary: description,
    value: !takesValue ? "none" : (argChoices ?? (/[<[]file/.test(flags) ? "file" : "any")),
    isOptional: optional,
  };
}

const spellings = ({ short, long }: Flag) => (short === undefined ? [long] : [short, long]);

/** For bash 3.2 too, which macOS has, and without the bash-completion package. */
function bash(specs: readonly Spec[]): string {
  const cases = specs.flatMap(({ name, flags, words }) => [
    `    ${name})`,
    `      flags="${flags.flatMap(spellings).join(" ")}"`,
    `      words="${words.join(" ")}"`,
    '      case "$previous" in',
    ...flags
      .filter(({ value }) => value !== "none")
      .map((flag) => `        ${spellings(flag).join("|")}) ${bashValue(flag)} ;;`),
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
  local command= flags="--version --help" words="${specs.map(({ name }) => name).join(" ")}" values= files= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${COMP_WORDS[i]}" in
      ${specs.map(({ name }) => name).join("|")}) command=\${COMP_WORDS[i]}; break ;;
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

function bashValue({ value, isOptional }: Flag): string {
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
  const cases = specs.flatMap(({ name, flags, words }) => [
    `    ${name})`,
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
${specs.map(({ name, summary: text }) => `    ${quoted(`${name}:${summary(text)}`)}`).join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
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
  const lines = specs.flatMap(({ name, summary, flags, words }) => {
    const inCommand = `complete -c brewctl -n ${quoted(`__fish_seen_subcommand_from ${name}`)}`;
    return [
      `complete -c brewctl -n __fish_use_subcommand -f -a ${name} -d ${quoted(summary)}`,
      `${inCommand} -f${words.length > 0 ? ` -a ${quoted(words.join(" "))}` : ""}`,
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
