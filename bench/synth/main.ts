/**
 * `deno task bench:synth`: trains dictionaries in a world whose features are known, and measures how well they recover
 * them.
 *
 *     deno task bench:synth [--config small|full] [--only DICTIONARY] [--seeds N] [--json]
 *
 * Seed n of a dictionary has its own initial values and its own rows; all are evaluated on the same ones.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { contextOf, defaultDevice } from "../../kernels/mod.ts";
import { adapterName } from "../../runner/mod.ts";
import { table } from "../measure.ts";
import { architectures, BENCHMARKS } from "./architectures.ts";
import { makeDirections } from "./directions.ts";
import type { WorldMetrics } from "./metrics.ts";
import { trainInWorld } from "./run.ts";
import { Samples } from "./samples.ts";
import { line, ranking, summarise, type Summary } from "./summary.ts";
import { makeWorld } from "./world.ts";

function usage(problem: string): never {
  console.error(`error: ${problem}`);
  console.error("usage: deno task bench:synth [--config small|full] [--only DICTIONARY] [--seeds N] [--json]");
  Deno.exit(2);
}

const args = parseArgs(Deno.args, {
  string: ["config", "only", "seeds"],
  boolean: ["json"],
  default: { config: "small", seeds: "3" },
  unknown: (argument) => usage(`unknown argument ${argument}`),
});
const config = String(args.config);
const only = args.only as string | undefined;
if (!Object.hasOwn(BENCHMARKS, config)) {
  usage(`--config must be one of ${Object.keys(BENCHMARKS).join(", ")}, found ${config}`);
}
const benchmark = BENCHMARKS[config as keyof typeof BENCHMARKS];
const all = architectures(benchmark);
if (only !== undefined && !Object.hasOwn(all, only)) {
  usage(`--only must be one of ${Object.keys(all).join(", ")}, found ${only}`);
}
const n_seeds = Number(args.seeds);
if (!(Number.isSafeInteger(n_seeds) && n_seeds > 0)) usage(`--seeds must be a positive integer, found ${args.seeds}`);

const device = await defaultDevice();
const context = contextOf(device);
const world = makeWorld(benchmark.world);
using directions = makeDirections(context, benchmark.world);
using samples = new Samples(context, world, directions, benchmark.batch_size);
const summaries: Summary[] = [];
for (const [name, architecture] of only === undefined ? Object.entries(all) : [[only, all[only]!] as const]) {
  const runs: WorldMetrics[] = [];
  for (let seed = 0; seed < n_seeds; seed++) {
    const start = performance.now();
    const metrics = await trainInWorld(benchmark, samples, architecture, seed);
    runs.push(metrics);
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.error(`${name}, seed ${seed}: F1 ${metrics.f1.toFixed(3)}, L0 ${metrics.l0.toFixed(2)}, ${seconds} s`);
  }
  summaries.push(summarise(name, runs));
}
if (args.json) console.log(JSON.stringify({ adapter: adapterName(device), config, n_seeds, benchmark, summaries }));
else {
  console.log(`${adapterName(device)}; ${config}, ${n_seeds} seeds, mean ± deviation\n`);
  console.log(table(summaries.map((summary) => line(summary, benchmark.l0))));
  for (const key of ["f1", "mcc", "uniqueness", "ev"] as const) console.log(`${key}: ${ranking(summaries, key)}`);
}
Deno.exit();
