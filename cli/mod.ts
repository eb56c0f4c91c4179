#!/usr/bin/env -S deno run -A
/**
 * The command line: `saev demo`, `activations`, `config`, `train`, `baseline`, `collect`, `compare`, `evaluate`, `encode`,
 * `probe`, `features`, `stability`, `inspect`, `convert` and `tune`.
 *
 * Each command has a file beside this one, which parses its arguments; `runner/` and `examples/` do the work. Results
 * go to stdout, progress and errors to stderr. The exit code is 2 for a mistake in the arguments or in a configuration
 * file, 1 for any other failure, and 128 plus its number for a signal (130 for Ctrl-C).
 *
 * @module
 */
import manifest from "../deno.json" with { type: "json" };
import { printable } from "../runner/mod.ts";
import { activationsCommand } from "./activations.ts";
import { inFlags } from "./checkpoint.ts";
import {
  Arguments,
  type Command,
  commandHelp,
  helpTable,
  print,
  say,
  sayWhole,
  unknown,
  UsageError,
} from "./command.ts";
import { baselineCommand } from "./baseline.ts";
import { collectCommand } from "./collect.ts";
import { compareCommand } from "./compare.ts";
import { configCommand } from "./config.ts";
import { convertCommand } from "./convert.ts";
import { demoCommand } from "./demo.ts";
import { encodeCommand } from "./encode.ts";
import { evaluateCommand } from "./evaluate.ts";
import { featuresCommand } from "./features.ts";
import { inspectCommand } from "./inspect.ts";
import { Interruption, Interrupts } from "./interruption.ts";
import { probeCommand } from "./probe.ts";
import { stabilityCommand } from "./stability.ts";
import { trainCommand } from "./train.ts";
import { tuneCommand } from "./tune.ts";

const COMMANDS: Readonly<Record<string, Command>> = {
  demo: demoCommand,
  activations: activationsCommand,
  config: configCommand,
  train: trainCommand,
  baseline: baselineCommand,
  collect: collectCommand,
  compare: compareCommand,
  evaluate: evaluateCommand,
  encode: encodeCommand,
  probe: probeCommand,
  features: featuresCommand,
  stability: stabilityCommand,
  inspect: inspectCommand,
  convert: convertCommand,
  tune: tuneCommand,
};

/** Runs the command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  using interrupts = new Interrupts();
  try {
    return await dispatch(args, interrupts.signal);
  } catch (error) {
    if (error instanceof Interruption) return error.exitCode;
    const message = error instanceof Error ? error.message : String(error);
    await sayWhole(`error: ${printable(inFlags(message.replaceAll(/\s*\n\s*/g, " ")))}`);
    return error instanceof UsageError ? 2 : 1;
  }
}

async function dispatch(args: readonly string[], signal: AbortSignal): Promise<number> {
  const [name, ...rest] = args;
  switch (name) {
    case undefined:
      say(generalHelp());
      return 2;
    case "help":
      // `saev help train` is `saev train --help`.
      if (rest[0] !== undefined && !rest[0].startsWith("-")) return await dispatch([rest[0], "--help"], signal);
      await print(generalHelp());
      return 0;
    case "--help":
    case "-h":
      await print(generalHelp());
      return 0;
    case "version":
    case "--version":
    case "-V":
      await print(manifest.version);
      return 0;
  }
  if (name.startsWith("-")) throw unknown("option", name, ["--help", "--version"]);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw unknown("command", name, Object.keys(COMMANDS));
  const parsed = new Arguments(name, command, rest);
  if (!parsed.flag("help")) return await command.run(parsed, signal);
  await print(commandHelp(name, command));
  return 0;
}

function generalHelp(): string {
  const rows = Object.entries(COMMANDS).map(([name, { positionals, summary }]): [string, string] => [
    [name, ...positionals].join(" "),
    summary,
  ]);
  return `saev ${manifest.version}: sparse autoencoders on the GPU

Usage: saev COMMAND [OPTIONS]

${helpTable(rows)}

  -h, --help     show this help; saev COMMAND --help, or saev help COMMAND, shows a command's
  -V, --version  show the version`;
}

if (import.meta.main) {
  // With a listener, SIGXFSZ does not end the process: the write that exceeds the file-size limit fails and names its
  // file.
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGXFSZ", () => {});
  Deno.exit(await main(Deno.args));
}
