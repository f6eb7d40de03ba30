/**
 * What the command line understands, as data: reading it, the help and the
 * completions are all made of these tables, so that they can't disagree.
 *
 * @module
 */

/** One option. */
export interface OptionSpec {
  /** Its long name, without the dashes. */
  readonly name: string;
  /** Its letter. */
  readonly short?: string;
  /** What its value is called; an option without one is on or off. */
  readonly value?: string;
  /** What it does, in a few words. */
  readonly help: string;
  /** The only values there are. */
  readonly choices?: readonly string[];
  /** Its value is a file's name. */
  readonly isFile?: true;
}

/** One subcommand. */
export interface CommandSpec {
  readonly name: string;
  /** How it is called, one way a line. */
  readonly usage: readonly string[];
  /** What it does, in one line. */
  readonly summary: string;
  /** The rest, in paragraphs. */
  readonly details: readonly string[];
  readonly options: readonly OptionSpec[];
  /** What stands behind the options: completions need it. */
  readonly operands: "module" | "none" | "shell" | "command";
  /** Commands to start from. */
  readonly examples: readonly string[];
}

const SECRET: OptionSpec = {
  name: "secret-file",
  value: "FILE",
  isFile: true,
  help: "the shared secret; or the variable DISTCHAN_SECRET",
};
const HELP: OptionSpec = { name: "help", short: "h", help: "this text" };
const MAX_OUTPUT: OptionSpec = {
  name: "max-output",
  value: "BYTES",
  help: "a command that prints more fails (default 1048576)",
};
const QUIET: OptionSpec = {
  name: "quiet",
  short: "q",
  help: "on standard error nothing but failures and errors",
};

const MAP: CommandSpec = {
  name: "map",
  usage: [
    "distchan map [OPTIONS] --listen :5678",
    "distchan map [OPTIONS] MODULE.ts",
    "distchan map [OPTIONS] -- COMMAND ARG … {}",
  ],
  summary: "send items to workers, print their results",
  details: [
    "Reads items from standard input, a line each, and prints a result for each " +
    "on standard output, as they come. Items that failed are told on standard " +
    "error, and the exit status is then 1.",
    "Workers are those that connect to --listen (distchan work), and --local of " +
    "them on this machine, which run MODULE.ts or COMMAND (see distchan work " +
    "--help). With MODULE.ts or COMMAND, --local is the number of processors " +
    "unless it is given.",
    "Ctrl-C stops in order: nothing new is begun, what is under way is finished " +
    "and printed. The second Ctrl-C stops at once.",
  ],
  options: [
    {
      name: "listen",
      short: "l",
      value: "[HOST]:PORT",
      help: "where workers connect; :PORT is this machine only",
    },
    {
      name: "local",
      value: "N",
      help: "workers on this machine",
    },
    {
      name: "input",
      short: "i",
      value: "FILE",
      isFile: true,
      help: "read items from FILE; -, the default, is standard input",
    },
    {
      name: "format",
      short: "f",
      value: "FORMAT",
      choices: ["lines", "jsonl", "null"],
      help: "lines (default), jsonl: JSON both ways, null: ends are \\0",
    },
    {
      name: "keep-order",
      short: "k",
      help: "results in the order of their items",
    },
    {
      name: "joblog",
      value: "FILE",
      isFile: true,
      help: "record every settled item in FILE before it is reported",
    },
    {
      name: "resume",
      help: "skip what the joblog has, and append to it",
    },
    {
      name: "resume-failed",
      help: "the same, and do again what failed",
    },
    {
      name: "retries",
      value: "N",
      help: "try an item whose handler failed up to N times again",
    },
    {
      name: "timeout",
      value: "SECONDS",
      help: "an item that is executed for longer fails",
    },
    {
      name: "isolate",
      help: "local workers of a module in isolates (with --timeout: always)",
    },
    MAX_OUTPUT,
    {
      name: "dashboard",
      value: "[HOST]:PORT",
      help: "a live page in a browser, /metrics and /healthz; for distchan top",
    },
    SECRET,
    {
      name: "insecure",
      help: "allow other machines with neither a secret nor TLS",
    },
    {
      name: "cert",
      value: "FILE",
      isFile: true,
      help: "TLS: the certificate, as PEM",
    },
    {
      name: "key",
      value: "FILE",
      isFile: true,
      help: "TLS: its private key, as PEM",
    },
    QUIET,
    HELP,
  ],
  operands: "module",
  examples: [
    "seq 1000 | distchan map --local 2 -- factor {}",
    "distchan map --input urls.txt -k --joblog log.jsonl fetch_title.ts > titles.txt",
    "distchan map --listen :5678 --input urls.txt --joblog log.jsonl --resume",
  ],
};

const WORK: CommandSpec = {
  name: "work",
  usage: [
    "distchan work [OPTIONS] --connect HOST:5678 MODULE.ts",
    "distchan work [OPTIONS] --connect HOST:5678 -- COMMAND ARG … {}",
  ],
  summary: "execute items of a server",
  details: [
    "MODULE.ts: its default export is called with every item, and what it " +
    "returns is the item's result; what it throws, the item's failure. Without " +
    "-j in this thread, one after the other; with -j in N isolates.",
    "COMMAND is run for every item, without a shell. {} in its arguments is " +
    "replaced by the item; without {} the item is on its standard input. What it " +
    "prints is the result. An exit status other than 0 is the item's failure, " +
    "with what it printed on standard error.",
    "It ends when the server has no more work. Ctrl-C leaves in order: what is " +
    "under way is finished, the rest goes to other workers. The second Ctrl-C " +
    "stops at once.",
  ],
  options: [
    {
      name: "connect",
      short: "c",
      value: "HOST:PORT",
      help: "the server; :PORT is this machine",
    },
    {
      name: "jobs",
      short: "j",
      value: "N",
      help: "items at once",
    },
    {
      name: "give-up",
      value: "SECONDS",
      help: "end after SECONDS without a server (default 60), or never",
    },
    {
      name: "name",
      value: "NAME",
      help: "what the server shows (default: this machine's name)",
    },
    MAX_OUTPUT,
    SECRET,
    { name: "tls", help: "connect with TLS" },
    {
      name: "ca",
      value: "FILE",
      isFile: true,
      help: "with TLS, trusting the authorities in FILE (PEM) as well",
    },
    QUIET,
    HELP,
  ],
  operands: "module",
  examples: [
    "distchan work --connect 192.0.2.1:5678 -j 4 fetch_title.ts",
    "distchan work --connect :5678 -j 4 -- convert {} -resize 50% -print %f info:",
  ],
};

const TOP: CommandSpec = {
  name: "top",
  usage: [
    "distchan top [OPTIONS] HOST:PORT",
    "distchan top [OPTIONS] https://HOST[:PORT]",
  ],
  summary: "watch a server's workers",
  details: [
    "HOST:PORT, or the URL, is the server's dashboard. On a terminal the table is drawn again " +
    "every second, until q or Ctrl-C; elsewhere it is printed once.",
  ],
  options: [
    {
      name: "interval",
      short: "d",
      value: "SECONDS",
      help: "how often to look (default 1)",
    },
    { name: "once", short: "1", help: "print the table once" },
    SECRET,
    {
      name: "ca",
      value: "FILE",
      isFile: true,
      help: "with TLS, trusting the authorities in FILE (PEM) as well",
    },
    HELP,
  ],
  operands: "none",
  examples: [
    "distchan top :8080",
    "distchan top --secret-file secret.txt https://pool.example.org",
  ],
};

const COMPLETIONS: CommandSpec = {
  name: "completions",
  usage: ["distchan completions bash|zsh|fish"],
  summary: "print a script that completes this command line",
  details: [],
  options: [HELP],
  operands: "shell",
  examples: [
    'eval "$(distchan completions bash)"',
    "distchan completions zsh > ~/.zfunc/_distchan",
    "distchan completions fish > ~/.config/fish/completions/distchan.fish",
  ],
};

const HELP_COMMAND: CommandSpec = {
  name: "help",
  usage: ["distchan help [COMMAND]"],
  summary: "the help of a command",
  details: [],
  options: [HELP],
  operands: "command",
  examples: [],
};

/** Every subcommand, in the order of the help. */
export const COMMANDS: readonly CommandSpec[] = [
  MAP,
  WORK,
  TOP,
  COMPLETIONS,
  HELP_COMMAND,
];

/** The shells there are completions for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** What `distchan` itself understands. */
export const GLOBAL_OPTIONS: readonly OptionSpec[] = [
  HELP,
  { name: "version", short: "V", help: "the version" },
];

/** Exit statuses, and what they mean. */
export const STATUSES: readonly (readonly [status: number, meaning: string])[] =
  [
    [0, "all is done"],
    [1, "map: at least one item has failed"],
    [2, "the command line, or something it names, can't be used"],
    [3, "it couldn't go on: no server, refused by it, joblog not writable, …"],
    [
      130,
      "map: stopped by Ctrl-C (SIGINT) before all was done; work: by the second",
    ],
    [141, "nobody reads its standard output any more"],
    [143, "the same as 130, by SIGTERM"],
  ];
