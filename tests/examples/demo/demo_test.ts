/** The demo with few steps: its files, both activations, its end by a signal. Its quality is measured in tests/process. @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { DEMO_DEFAULTS, type DemoOptions, runDemo } from "../../../examples/demo/demo.ts";
import type { SparseAutoencoderConfig } from "../../../nn/config.ts";
import { load } from "../../../io/checkpoints/checkpoint.ts";

/** The demo in a folder that is gone afterwards. */
async function demo(options: Partial<DemoOptions>, signal?: AbortSignal) {
  const out = await Deno.makeTempDir();
  try {
    const said: string[] = [];
    const say = (line: string) => said.push(line);
    const metrics = await runDemo({ ...DEMO_DEFAULTS, ...options, out }, { say, ...(signal ? { signal } : {}) });
    const files = new Map<string, Uint8Array>();
    for await (const { name } of Deno.readDir(out)) files.set(name, await Deno.readFile(`${out}/${name}`));
    return { metrics, files, said };
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}

Deno.test("a short demo writes all its files and tells what it measured", async () => {
  const { metrics, files, said } = await demo({ steps: 30, d_sae: 48, top_k: 5, batch_size: 256, seed: 1 });
  assertEquals([...files.keys()].sort(), ["features.png", "metrics.json", "report.html", "run.json", "sae.pt"]);
  assertEquals(JSON.parse(new TextDecoder().decode(files.get("metrics.json"))), metrics);
  assert(metrics !== null);
  assertEquals([metrics.steps, metrics.l0, metrics.losses.loss.length], [30, 5, 30]);
  for (const name of ["nmse", "pca_nmse", "best_linear_nmse", "pixel_nmse", "pca_pixel_nmse"] as const) {
    assert(metrics[name] > 0 && metrics[name] < 1, `${name} is ${metrics[name]}`);
  }
  assert(metrics.examples_per_second > 0 && metrics.adapter !== "");
  const png = new DataView(files.get("features.png")!.buffer);
  assertEquals([png.getUint32(16), png.getUint32(20)], [16 * 64 - 4, 3 * 64 - 4]);
  const report = new TextDecoder().decode(files.get("report.html"));
  for (const id of ["numbers", "features", "strongest", "training", "density", "configuration"]) {
    assertStringIncludes(report, `<h2 id="${id}">`);
  }
  assertMatch(said.at(-2)!, /^held-out photographs: NMSE 0\.\d+ \(PCA 0\.\d+\), L0 5\.0/);
  using sae = await load(files.get("sae.pt")!);
  assertEquals([sae.cfg.d_model, sae.cfg.d_sae], [100, 48]);
});

Deno.test("the demo trains ReLU too", async () => {
  const { metrics } = await demo({ steps: 10, d_sae: 32, activation: "relu", batch_size: 128 });
  const { activation } = metrics!.config.sae as SparseAutoencoderConfig;
  assertEquals(activation, {
    key: "relu",
    sparsity: { key: "l1-sparsity", coeff: 4e-4 },
    aux: { key: "no-aux" },
  });
  assert(metrics!.losses.loss[0]! > metrics!.losses.mse[0]!, "the penalty counts");
});

Deno.test("a demo that is stopped leaves its checkpoint", async () => {
  const stopped = AbortSignal.abort();
  const { metrics, files, said } = await demo({ steps: 1000, d_sae: 16, top_k: 2 }, stopped);
  assertEquals(metrics, null);
  assertEquals([...files.keys()].sort(), ["run.json", "sae.pt"]);
  assertMatch(said.at(-1)!, /^stopped after 0 steps/);
});
