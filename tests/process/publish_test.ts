/**
 * The publish rehearsal: `deno publish` into a registry on the loopback, then a user's empty project adds the package
 * from there, trains and runs the command line.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { LoopbackRegistry, type PackageFiles } from "../support/registry.ts";

const ROOT = new URL("../../", import.meta.url);

/** A user's program: every entry point, a few steps, a file. */
const PROGRAM = `
import { dump, getObjective, load, SparseAutoencoder } from "@saev/nn";
import { train } from "@saev/nn/train";
import * as data from "@saev/nn/data";
import * as evaluation from "@saev/nn/eval";
import * as io from "@saev/nn/io";
import * as kernels from "@saev/nn/kernels";
import * as runner from "@saev/nn/runner";

using sae = await SparseAutoencoder.create(
  { d_model: 8, d_sae: 16, activation: { key: "top-k", top_k: 4 } },
  { seed: 1 },
);
const objective = getObjective({ key: "vanilla" });
const batch = Float32Array.from({ length: 32 * 8 }, (_, i) => Math.sin(i));
const losses: number[] = [];
for await (const report of train(sae, objective, [batch, batch, batch], { lr: 1e-3, log_every: 1, n_lr_warmup: 0 })) {
  losses.push(...report.losses.map(({ mse }) => mse));
}
await dump("sae.pt", sae);
using again = await load("sae.pt");
console.log(JSON.stringify({
  losses,
  d_sae: again.cfg.d_sae,
  entries: [data, evaluation, io, kernels, runner].map((entry) => Object.keys(entry).length > 0),
}));
`;

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function deno(cwd: URL | string, args: string[], env: Record<string, string>): Promise<Run> {
  const command = new Deno.Command(Deno.execPath(), { args, cwd, env: { NO_COLOR: "1", ...env }, stdin: "null" });
  const { code, stdout, stderr } = await command.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, stdout: out!, stderr: err! };
}

/** Reads the JSON that a `deno info` command prints. */
async function denoInfo(...args: string[]): Promise<Record<string, unknown>> {
  const { stdout } = await deno(ROOT, ["info", "--json", ...args], {});
  return JSON.parse(stdout);
}

/** The files of the npm package that stands in for the standard library in this repository. */
async function standInFiles(): Promise<PackageFiles> {
  const adapter = await Deno.readTextFile(new URL("tests/std/toml/mod.ts", ROOT));
  const specifier = /npm:deno-std@[^/]+/.exec(adapter)![0];
  const info = await denoInfo(`${specifier}/toml/mod.js`);
  const npmPackages = Object.values(info.npmPackages as Record<string, { name: string; localPath: string }>);
  const npmPackage = npmPackages.find(({ name }) => name === "deno-std");
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const folder of ["cli", "collections", "internal", "toml"]) {
    for await (const { name } of Deno.readDir(`${npmPackage!.localPath}/${folder}`)) {
      files.set(`/${folder}/${name}`, await Deno.readFile(`${npmPackage!.localPath}/${folder}/${name}`));
    }
  }
  return files;
}

/** The lowest version of a package that deno.json asks for. */
function wantedVersion(name: keyof typeof config.imports): string {
  return config.imports[name].split("@^")[1]!;
}

/** The package as published, and the standard library's two that the command line needs. */
async function publishedRegistry(): Promise<LoopbackRegistry> {
  const registry = new LoopbackRegistry();
  const files = await standInFiles();
  registry.add("@std/cli", wantedVersion("@std/cli"), { "./parse-args": "./cli/parse_args.js" }, files);
  registry.add("@std/toml", wantedVersion("@std/toml"), { ".": "./toml/mod.js" }, files);
  const args = ["publish", "--token", "none", "--allow-dirty", "--no-provenance", "--no-check"];
  const { code, stderr } = await deno(ROOT, args, { JSR_URL: registry.url });
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "Successfully published");
  return registry;
}

Deno.test("publish: the package holds the library and nothing of the workshop", async () => {
  await using registry = await publishedRegistry();
  const paths = registry.paths(config.name);
  for (const path of Object.values(config.exports)) assert(paths.includes(path.slice(1)), path);
  for (const path of ["/README.md", "/LICENSE", "/CHANGELOG.md", "/deno.json"]) assert(paths.includes(path), path);
  assertEquals(
    paths.filter((path) => /^\/(?:tests|bench|runs|tools|\.)|_test\.ts$|deno\.lock/.test(path)),
    [],
  );
  // JSR leads relative links to files of the package, where no repository is linked.
  const readme = registry.text(config.name, "/README.md");
  const links = [...readme.matchAll(/\]\(([^)]+)\)/g)].map(([, link]) => link!);
  assert(links.length > 3, links.join());
  for (const link of links.filter((link) => !/^https:/.test(link))) {
    assert(paths.includes(`/${link.replace(/#.*/, "")}`), `README.md links ${link}, which is not published`);
  }
  const imported = ["/cli/command.ts", "/cli/train.ts"].flatMap((
    path,
  ) => [...registry.text(config.name, path).matchAll(/from "([^".][^"]*)"/g)]).map((match) => match[1]!);
  assert(imported.length > 0);
  for (const specifier of imported) assertMatch(specifier, /^(?:jsr|npm):/);
});

Deno.test("publish: an empty project adds the package, trains, writes and reads a file, and runs the command line", async () => {
  await using registry = await publishedRegistry();
  const folder = await Deno.makeTempDir();
  try {
    const project = `${folder}/project`;
    await Deno.mkdir(project);
    await Deno.mkdir(`${folder}/deno`);
    // npm packages may come from the cache; what JSR serves may not.
    await Deno.symlink(String((await denoInfo()).npmCache), `${folder}/deno/npm`);
    const env = { JSR_URL: registry.url, DENO_DIR: `${folder}/deno` };
    await Deno.writeTextFile(`${project}/main.ts`, PROGRAM);
    await Deno.writeTextFile(`${project}/deno.json`, "{}");

    const added = await deno(project, ["add", "jsr:@saev/nn"], env);
    assertEquals(added.code, 0, added.stderr);
    const { imports } = JSON.parse(await Deno.readTextFile(`${project}/deno.json`));
    assertEquals(imports, { "@saev/nn": `jsr:@saev/nn@^${config.version}` });

    const run = await deno(project, ["run", "--check", "--allow-read", "--allow-write", "--no-prompt", "main.ts"], env);
    assertEquals(run.code, 0, run.stderr);
    const { losses, d_sae, entries } = JSON.parse(run.stdout);
    assertEquals([losses.length, d_sae, entries], [3, 16, Array(5).fill(true)]);
    assert(losses[2] < losses[0], `the losses ${losses} do not fall`);

    const help = await deno(project, ["run", "-A", "jsr:@saev/nn/cli", "--help"], env);
    assertEquals(help.code, 0, help.stderr);
    assertStringIncludes(help.stdout, "demo");
    assert(registry.requests.includes(`GET /@std/cli/meta.json`), "the command line takes @std/cli from the registry");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
