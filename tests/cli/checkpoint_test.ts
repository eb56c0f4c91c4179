/** Checkpoints on the command line: what must be accepted, what a file leaves open, and text that comes out of it. @module */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { inFlags } from "../../cli/checkpoint.ts";
import { main } from "../../cli/mod.ts";
import { inspectCheckpoint } from "../../io/checkpoints/inspect.ts";
import { REMEDIES } from "../../io/checkpoints/remedies.ts";
import { writeNpy } from "../../io/npy.ts";
import { formatSafetensors } from "../../io/safetensors.ts";
import { joinBytes } from "../../io/source.ts";
import { goldenFiles, goldenUrl } from "../io/checkpoints/golden_files.ts";
import { Random } from "../support/random.ts";

const GOLDENS = new URL("../goldens/", import.meta.url).pathname;

/** Runs a command in this process. */
async function saev(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: "", stderr: "" };
  const streams = ["stdout", "stderr"] as const;
  for (const stream of streams) {
    Deno[stream].writeSync = (bytes) => {
      written[stream] += new TextDecoder().decode(bytes);
      return bytes.length;
    };
  }
  try {
    return { code: await main(args), ...written };
  } finally {
    for (const stream of streams) Reflect.deleteProperty(Deno[stream], "writeSync");
  }
}

Deno.test("a message that gives a program's option gives the command line's", async () => {
  for (const remedy of Object.values(REMEDIES)) {
    const words = inFlags(`say ${remedy} here`);
    assertMatch(words, /^say (--|relu = true).* here$/);
  }
  for (const golden of goldenFiles()) {
    const { refused } = await inspectCheckpoint(goldenUrl(golden));
    if (refused !== null) assert(!/\{ \w+:/.test(inFlags(refused)), inFlags(refused));
  }
});

Deno.test("inspect and evaluate read what --accept accepts, and nothing else ends with 0", async () => {
  const path = `${GOLDENS}formats/saelens/layer_norm`;
  const refused = await saev("inspect", path);
  assertEquals(refused.code, 1);
  // What can be said is said all the same.
  for (const text of ["computes  h = ", "accept    normalised-rows\n"]) assertStringIncludes(refused.stdout, text);
  assertMatch(refused.stderr, /^error: .*normalize_activations is "layer_norm".*use --accept normalised-rows\n$/);
  assertEquals((await saev("inspect", path, "--accept", "normalised-rows,rescaled-codes")).code, 0);
  assertEquals((await saev("inspect", path, "--accept", "rescaled-codes")).code, 1);

  const folder = await Deno.makeTempDir();
  try {
    const data = `${folder}/x.npy`;
    await Deno.writeFile(data, writeNpy({ rows: 16, cols: 8, data: new Random(0).normal(16 * 8) }));
    const without = await saev("evaluate", path, data);
    assertEquals([without.code, without.stdout], [1, ""]);
    assertStringIncludes(without.stderr, "--accept normalised-rows");
    const accepted = await saev("evaluate", path, data, "--accept", "normalised-rows", "--json");
    assertEquals([accepted.code, JSON.parse(accepted.stdout).n_rows], [0, 16]);
    const less = await saev("evaluate", path, data, "--accept", "normalised-rows", "--json", "--no-coherence");
    const { coherence, undefined_metrics: reasons } = JSON.parse(less.stdout);
    assertEquals([less.code, less.stderr, coherence, reasons.coherence], [0, "", null, "it was not measured"]);
    const table = await saev("evaluate", path, data, "--accept", "normalised-rows", "--no-coherence");
    assertMatch(table.stdout, /coherence +none +it was not measured\n/);
    const both = await saev("evaluate", path, data, "--coherence", "--no-coherence");
    assertEquals([both.code, both.stderr], [
      2,
      "error: --coherence and --no-coherence contradict each other; give one\n",
    ]);
    const doubtful = await saev("evaluate", `${GOLDENS}checkpoints/schema2_top_k.pt`, data, "--json");
    assertEquals(doubtful.code, 0);
    assertMatch(
      doubtful.stderr,
      /^warning: schema 2 does not say .* --subtract-b-dec yes and with --subtract-b-dec no; .*\n/,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("convert says on stderr what a file leaves open", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const args = ["convert", `${GOLDENS}checkpoints/schema1_relu.pt`, `${folder}/out.pt`, "--to", "saev_nn"];
    const { code, stderr } = await saev(...args);
    assertEquals(code, 0);
    assertMatch(stderr, /^warning: schema 1 does not say .*\n$/);
    assertEquals((await saev(...args, "--subtract-b-dec", "yes", "--overwrite")).stderr, "");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** A bell, an escape sequence, a line end, a right-to-left override and an isolate. */
const HOSTILE = "a\x07\x1b[2J\n\r\u202eb\u2066c\u0085";

Deno.test("nothing that a file says is obeyed by a terminal", async () => {
  const { files } = goldenFiles().find(({ format, name }) => format === "saelens" && name === "standard")!;
  const cfg = JSON.parse(new TextDecoder().decode(files.get("cfg.json")));
  const folder = await Deno.makeTempDir();
  const write = async (config: object, weights: Uint8Array): Promise<void> => {
    await Deno.writeTextFile(`${folder}/cfg.json`, JSON.stringify(config));
    await Deno.writeFile(`${folder}/sae_weights.safetensors`, weights);
  };
  try {
    const weights = files.get("sae_weights.safetensors")!;
    const names = ["W_enc", "W_dec", HOSTILE].map((name) => ({ name, shape: [1], data: Float32Array.of(1) }));
    const cases: [config: object, weights: Uint8Array, code: number][] = [
      [{ ...cfg, model_name: HOSTILE, metadata: { [HOSTILE]: HOSTILE } }, weights, 0],
      [{ ...cfg, [HOSTILE]: HOSTILE, architecture: HOSTILE }, weights, 1],
      [cfg, joinBytes(formatSafetensors(names)), 1],
    ];
    for (const [config, bytes, code] of cases) {
      await write(config, bytes);
      for (const options of [[], ["--json"]]) {
        const found = await saev("inspect", folder, ...options);
        assertEquals(found.code, code);
        const text = found.stdout + found.stderr;
        assert(!/[^\P{C}\n]/u.test(text), JSON.stringify(text));
        assertStringIncludes(text, "\\u202eb\\u2066c\\u0085");
        if (options.length > 0) assertEquals(Object.keys(JSON.parse(found.stdout).configs), ["cfg.json"]);
      }
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
