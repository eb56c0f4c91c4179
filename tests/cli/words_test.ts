/**
 * What people read, as it is: help, the complete configuration, and what `saev inspect` says. A change of words is seen in
 * the snapshots beside this file; `deno task words` writes them anew.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { assertSnapshot } from "@std/testing/snapshot";
import { type Command, commandHelp } from "../../cli/command.ts";

const CLI = new URL("../../cli/", import.meta.url);
const CHECKPOINTS = new URL("../goldens/", import.meta.url).pathname;

/** What a command prints. Paths are of the goldens' folder, so that the text is the same everywhere. */
async function printed(...args: string[]): Promise<string> {
  const options = [
    "run",
    "--quiet",
    "-A",
    "--config",
    new URL("../deno.json", CLI).pathname,
    new URL("mod.ts", CLI).href,
  ];
  const command = new Deno.Command(Deno.execPath(), { args: [...options, ...args], cwd: CHECKPOINTS });
  const { code, stdout, stderr } = await command.output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

Deno.test("the help of every command", async (t) => {
  for (const { name } of (await Array.fromAsync(Deno.readDir(CLI))).sort((a, b) => a.name < b.name ? -1 : 1)) {
    const module = await import(new URL(name, CLI).href) as Readonly<Record<string, unknown>>;
    for (const [key, value] of Object.entries(module)) {
      if (key.endsWith("Command")) {
        await assertSnapshot(t, commandHelp(key.slice(0, -"Command".length), value as Command));
      }
    }
  }
});

Deno.test("the general help", async (t) => {
  await assertSnapshot(t, (await printed("--help")).replace(/^saev \S+/, "saev VERSION"));
});

Deno.test("the complete configuration", async (t) => {
  await assertSnapshot(t, await printed("config"));
});

for (const path of ["checkpoints/schema1_relu.pt", "checkpoints/schema5_batch_top_k.pt", "formats/saelens/topk"]) {
  Deno.test(`what inspect says of ${path}`, async (t) => {
    await assertSnapshot(t, await printed("inspect", path));
  });
}
