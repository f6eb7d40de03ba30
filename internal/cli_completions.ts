/**
 * Completions for shells, made of the tables in cli_spec.ts.
 *
 * @module
 */

import {
  COMMANDS,
  type CommandSpec,
  GLOBAL_OPTIONS,
  type OptionSpec,
  SHELLS,
} from "./cli_spec.ts";

/** A shell that there are completions for. */
export type Shell = typeof SHELLS[number];

/** The script that completes `distchan` in a shell. */
export function completions(shell: Shell): string {
  if (shell === "bash") return bash();
  return shell === "zsh" ? zsh() : fish();
}

const NAMES = COMMANDS.map(({ name }) => name).join(" ");

function flags({ name, short }: OptionSpec): string[] {
  return short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`];
}

/** Words that may stand behind a subcommand; null: files. */
function operandWords({ operands }: CommandSpec): string | null {
  if (operands === "module") return null;
  if (operands === "shell") return SHELLS.join(" ");
  return operands === "command" ? NAMES : "";
}

function bash(): string {
  const cases = COMMANDS.map((spec) => {
    const values = spec.options.filter(({ value }) => value !== undefined)
      .map((option) => {
        const { choices, isFile } = option;
        const reply = choices !== undefined
          ? `COMPREPLY=($(compgen -W "${choices.join(" ")}" -- "$word"))`
          : isFile
          ? "_distchan_files -f"
          : "COMPREPLY=()";
        return `        ${flags(option).join("|")}) ${reply}; return ;;`;
      });
    const words = operandWords(spec);
    return [
      `    ${spec.name})`,
      `      case "$before" in`,
      ...values,
      `      esac`,
      `      if [[ "$word" == -* ]]; then`,
      `        COMPREPLY=($(compgen -W "${
        spec.options.flatMap(flags).join(" ")
      }" -- "$word"))`,
      `      else`,
      words === null
        ? "        _distchan_files -f"
        : `        COMPREPLY=($(compgen -W "${words}" -- "$word"))`,
      `      fi`,
      `      ;;`,
    ].join("\n");
  });
  return `# bash completion of distchan
_distchan_files() { # names may have spaces in them
  local IFS=$'\\n'
  COMPREPLY=($(compgen "$@" -- "$word"))
}
_distchan() {
  local word="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD-1]}"
  local i
  # bash takes --input=FILE apart at the "=".
  if [[ "$word" == "=" ]]; then
    word=""
  elif [[ "$before" == "=" ]]; then
    before="\${COMP_WORDS[COMP_CWORD-2]}"
  fi
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "${NAMES} ${
    GLOBAL_OPTIONS.flatMap(flags).join(" ")
  }" -- "$word"))
    return
  fi
  # Behind -- is a command of its own: files are a fair guess.
  for ((i = 2; i < COMP_CWORD; i++)); do
    if [[ "\${COMP_WORDS[i]}" == -- ]]; then
      _distchan_files -c -f
      return
    fi
  done
  case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
  esac
}
complete -o filenames -o bashdefault -F _distchan distchan
`;
}

function zsh(): string {
  const quote = (text: string) => text.replaceAll(/[[\]:'\\]/g, "\\$&");
  const argument = (option: OptionSpec) => {
    const { help, value, choices, isFile } = option;
    const action = choices !== undefined
      ? `(${choices.join(" ")})`
      : isFile
      ? "_files"
      : " ";
    const text = quote(help).replaceAll("\\'", "'\\''");
    return flags(option).map((flag) => {
      if (value === undefined) return `'${flag}[${text}]'`;
      // A value may stand in the same word, too: --format=jsonl, -fjsonl.
      const joint = flag.startsWith("--") ? "=" : "+";
      return `'${flag}${joint}[${text}]:${quote(value)}:${action}'`;
    }).join(" ");
  };
  const cases = COMMANDS.map((spec) => {
    const words = operandWords(spec);
    const rest = words === null ? "'*:module:_files'" : `'*: :(${words})'`;
    return `    ${spec.name}) _arguments -s ${
      spec.options.map(argument).join(" \\\n      ")
    } \\\n      ${rest} ;;`;
  });
  // "commands" is a table of zsh's own, which completing what is behind -- needs.
  return `#compdef distchan
_distchan() {
  local -a subcommands
  subcommands=(
${
    COMMANDS.map(({ name, summary }) =>
      `    '${name}:${summary.replaceAll("'", "'\\''")}'`
    ).join("\n")
  }
  )
  if ((CURRENT == 2)); then
    _describe command subcommands
    _arguments ${GLOBAL_OPTIONS.map(argument).join(" ")}
    return
  fi
  local -i dashes="$words[(i)--]"
  if ((dashes < CURRENT)); then
    shift $dashes words
    ((CURRENT -= dashes))
    _normal
    return
  fi
  local command="$words[2]"
  shift words
  ((CURRENT--))
  case "$command" in
${cases.join("\n")}
  esac
}
if [[ "$funcstack[1]" == _distchan ]]; then _distchan "$@"; else compdef _distchan distchan; fi
`;
}

function fish(): string {
  const quote = (text: string) =>
    `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const option = (condition: string, { name, short, ...rest }: OptionSpec) => {
    const { help, value, choices, isFile } = rest;
    return [
      `complete -c distchan -n ${quote(condition)} -l ${name}`,
      ...(short === undefined ? [] : [`-s ${short}`]),
      ...(value === undefined ? [] : isFile ? ["-r -F"] : ["-x"]),
      ...(choices === undefined ? [] : [`-a ${quote(choices.join(" "))}`]),
      `-d ${quote(help)}`,
    ].join(" ");
  };
  const lines = ["# fish completion of distchan", "complete -c distchan -f"];
  for (const spec of GLOBAL_OPTIONS) {
    lines.push(option("__fish_use_subcommand", spec));
  }
  for (const spec of COMMANDS) {
    const condition = `__fish_seen_subcommand_from ${spec.name}`;
    lines.push(
      `complete -c distchan -n '__fish_use_subcommand' -a ${spec.name} -d ${
        quote(spec.summary)
      }`,
    );
    const words = operandWords(spec);
    if (words === null) {
      lines.push(`complete -c distchan -n ${quote(condition)} -F`);
    } else if (words !== "") {
      lines.push(
        `complete -c distchan -n ${quote(condition)} -a ${quote(words)}`,
      );
    }
    for (const spec_ of spec.options) lines.push(option(condition, spec_));
  }
  return lines.join("\n") + "\n";
}
