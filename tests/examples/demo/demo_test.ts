/** The demo with few steps: its files, other activations, its end by a signal. Its quality is measured in tests/process. @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { DEMO_DEFAULTS, type DemoOptions, runDemo } from "../../../examples/demo/demo.ts";
import { load } from "../../../io/checkpoints/checkpoint.ts";
import { readRun } from "../../../runner/mod.ts";

const SMALL: DemoOptions = { ...DEMO_DEFAULTS, steps: 30, d_sae: 48, top_k: 5, batch_size: 256, seed: 1 };

async function inFolder(work: (out: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(`${folder}/demo`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
}

/** What a run that was resumed leaves, and what the demo adds. */
const FILES = [
  ...["config.json", "features.png", "metrics.json", "metrics.jsonl", "report.html", "run.json", "sae.pt"],
  ...["training.previous.safetensors", "training.safetensors"],
];

Deno.test("a demo is a run with a report of its own: its files, what it says and measures, and a resume", () =>
  inFolder(async (out) => {
    const said: string[] = [];
    const aborter = new AbortController();
    const stopped = await runDemo({ ...SMALL, out }, {
      signal: aborter.signal,
      say(line) {
        said.push(line);
        if (line.startsWith("training")) aborter.abort();
      },
    });
    assertEquals(stopped, null);
    assertMatch(said.at(-1)!, /^stopped after 0 steps; the same command with --resume continues/);
    assertEquals(await namesIn(out), FILES.filter((name) => !/^(?:features|report|training\.previous)\./.test(name)));

    const resumed = await runDemo({ ...SMALL, out, resumes: true }, { say: (line) => void said.push(line) });
    assert(resumed !== null);
    const { steps, metrics, demo } = resumed;
    assertEquals(await namesIn(out), FILES);
    const written = JSON.parse(await Deno.readTextFile(`${out}/metrics.json`));
    assertEquals([written.demo, written.metrics.nmse, written.steps], [demo, metrics.nmse, 30]);
    assertEquals([steps, metrics.l0, written.losses.loss.length, written.evaluated_on], [30, 5, 30, "validation"]);
    assert(metrics.nmse > 0 && metrics.nmse < 1);
    for (const name of ["pca_nmse", "best_linear_nmse", "pixel_nmse", "pca_pixel_nmse"] as const) {
      assert(demo[name] > 0 && demo[name] < 1, `${name} is ${demo[name]}`);
    }
    assertEquals((await Deno.readTextFile(`${out}/metrics.jsonl`)).trim().split("\n").length, 30);
    const png = new DataView((await Deno.readFile(`${out}/features.png`)).buffer);
    assertEquals([png.getUint32(16), png.getUint32(20)], [16 * 64 - 4, 3 * 64 - 4]);
    assertStringIncludes(
      await Deno.readTextFile(`${out}/report.html`),
      "What a sparse autoencoder sees in photographs",
    );
    assertMatch(said.at(-2)!, /^held-out photographs: NMSE 0\.\d+ \(PCA 0\.\d+\), L0 5\.0/);
    assertEquals((await readRun(out)).steps, 30, "saev compare shows it");
    using sae = await load(`${out}/sae.pt`);
    assertEquals([sae.cfg.d_model, sae.cfg.d_sae], [100, 48]);
  }));

Deno.test("the demo trains ReLU too", () =>
  inFolder(async (out) => {
    const result = await runDemo({ ...SMALL, out, steps: 10, activation: "relu" }, { say: () => {} });
    const { config: { sae, objective }, losses } = JSON.parse(await Deno.readTextFile(`${out}/metrics.json`));
    assertEquals(sae.activation, {
      key: "relu",
      sparsity: { key: "l1-sparsity", coeff: 4e-4 },
      aux: { key: "no-aux" },
    });
    assertEquals(objective.target_l0, 5);
    assert(losses.loss[0] > losses.mse[0], "the penalty counts");
    assertEquals(result?.steps, 10);
  }));
