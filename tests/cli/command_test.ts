/** Arguments and help of every command. @module */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arguments, type Command, commandHelp, helpTable, print, say, UsageError } from "../../cli/command.ts";

/** The commands that the files of `cli/` declare, by name. */
async function commands(): Promise<ReadonlyMap<string, Command>> {
  const found = new Map<string, Command>();
  const folder = new URL("../../cli/", import.meta.url);
  for await (const { name } of Deno.readDir(folder)) {
    const module = await import(new URL(name, folder).href) as Readonly<Record<string, unknown>>;
    for (const [key, value] of Object.entries(module)) {
      if (key.endsWith("Command")) found.set(key.slice(0, -"Command".length), value as Command);
    }
  }
  return found;
}

Deno.test("every command's help fits 100 columns and says its permissions", async () => {
  const all = await commands();
  assert(all.size >= 7, [...all.keys()].join());
  for (const [name, command] of all) {
    const help = commandHelp(name, command);
    for (const line of help.split("\n")) assert([...line].length <= 100, `${name}: ${[...line].length}: ${line}`);
    assert(help.includes("\n\nPermissions: ") && command.permissions !== "", name);
    assert(help.includes(`Usage: saev ${[name, ...command.positionals].join(" ")} [OPTIONS]\n`), name);
  }
});

Deno.test("the general help fits too, and long words are not cut", () => {
  const table = helpTable([["short", "word ".repeat(60).trim()], ["a longer one", "x".repeat(120)]]);
  const lines = table.split("\n");
  assertEquals(lines.filter((line) => line.length > 100).length, 1);
  assertEquals(lines.slice(0, 2).map((line) => line.slice(0, 20)), ["  short         word", "                word"]);
  assert(lines.at(-1)!.endsWith("x".repeat(120)));
});

Deno.test("a number below 0 is the value of the option before it, and an unknown option is named", () => {
  const command: Command = {
    summary: "",
    positionals: [],
    options: { steps: { value: "N", help: "" }, lr: { value: "X", help: "" }, json: { help: "" } },
    permissions: "",
    run: () => Promise.resolve(0),
  };
  const parse = (...args: string[]) => new Arguments("demo", command, args);
  for (const value of ["-3", "-.5", "-1e3", "-Infinity", "-nan"]) {
    const message = `--steps must be a number of at least 1, found ${JSON.stringify(value)}`;
    assertThrows(() => parse("--steps", value).integer("steps", 1), UsageError, message);
    assertThrows(() => parse(`--steps=${value}`).integer("steps", 1), UsageError, message);
  }
  assertEquals(parse("--lr", "-0.5").number("lr", -1), -0.5);
  assertThrows(() => parse("--steps", "-x"), UsageError, "unknown option -x");
  assertThrows(() => parse("--json", "-3"), UsageError, "unknown option -3");
  assertThrows(() => parse("--steps", "--json"), UsageError, "--steps needs a value");
});

Deno.test("no terminal obeys what commands say, and programs read results as they are", async () => {
  const written: Record<"stdout" | "stderr", string> = { stdout: "", stderr: "" };
  const streams = ["stdout", "stderr"] as const;
  for (const stream of streams) {
    Deno[stream].writeSync = (bytes) => {
      written[stream] += new TextDecoder().decode(bytes);
      return bytes.length;
    };
  }
  try {
    say("a\x1b[2J\u202eb\nc");
    await print("a\x1b[2J\u202eb\nc", true);
    await print("a\x1b[2J\u202eb\nc", false);
  } finally {
    for (const stream of streams) Reflect.deleteProperty(Deno[stream], "writeSync");
  }
  const shown = "a\\u001b[2J\\u202eb\nc\n";
  assertEquals(written, { stderr: shown, stdout: `${shown}a\x1b[2J\u202eb\nc\n` });
});

Deno.test("every command waits until its result is written", async () => {
  const folder = new URL("../../cli/", import.meta.url);
  const loose: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    const lines = (await Deno.readTextFile(new URL(name, folder))).split("\n");
    for (const [i, line] of lines.entries()) {
      if (/(?<!await |function )\b(?:print|sayWhole)\(/.test(line)) loose.push(`${name}:${i + 1}: ${line.trim()}`);
    }
  }
  assertEquals(loose, []);
});

/** Lines of all lengths, more than a pipe holds, of which none is like another. */
const long = () => Array.from({ length: 300 }, (_, i) => (i + ":").padEnd(i * i % 7919, "r")).join("\n");

/** Makes stdout and stderr pipes that do not block, and writes more into each than it holds. */
const FILLING = `
const isDarwin = Deno.build.os === "darwin";
const libc = Deno.dlopen(isDarwin ? "libSystem.dylib" : "libc.so.6", {
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
});
const F_SETFL = 4;
for (const stream of [1, 2]) libc.symbols.fcntl(stream, F_SETFL, isDarwin ? 0x4 : 0x800);
const { print, sayWhole } = await import(Deno.args[0]);
const long = ${long};
await print(long());
await sayWhole(long());
`;

Deno.test("a result, and why a command ends, come whole through a pipe that does not block and is read slowly", async () => {
  const module = new URL("../../cli/command.ts", import.meta.url).href;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--quiet", FILLING, module],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const read = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of stream) {
      text += decoder.decode(chunk, { stream: true });
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return text;
  };
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr)]);
  const expected = `${long()}\n`;
  for (const text of [stdout, stderr]) assert(text === expected, `${text.length} of ${expected.length} characters`);
  assertEquals((await child.status).code, 0);
});
