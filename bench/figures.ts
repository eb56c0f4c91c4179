/**
 * Turns the JSON of `deno bench --json` into the tracked figures, the rate of each kernel's fastest run: one array of
 * `{ name, unit, value }`, as benchmark dashboards accept it (bigger is better). The unit is GFLOP/s, or GB/s for a
 * kernel that moves more bytes than it computes.
 *
 *     deno bench -A --json bench/kernels_bench.ts [--filter NAME] | deno run bench/figures.ts
 *
 * Exits with 1 if a benchmark failed, or none ran: a filter that matches nothing is a mistake.
 *
 * @module
 */

interface BenchJson {
  readonly cpu: string;
  readonly benches: readonly {
    readonly name: string;
    readonly results: readonly { readonly ok?: { readonly min: number } }[];
  }[];
}

/** A figure for a dashboard. */
interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  /** Figures of different processors are not compared. */
  readonly extra: string;
}

const { cpu, benches } = JSON.parse(await new Response(Deno.stdin.readable).text()) as BenchJson;
const figures: Figure[] = [];
for (const { name, results } of benches) {
  const [, kernel, work, unit] = /^(.*), ([\d.e-]+) (GFLOP|GB)$/.exec(name) ?? [];
  const nanoseconds = results[0]?.ok?.min;
  if (kernel === undefined || nanoseconds === undefined) {
    console.error(`error: no figure for ${JSON.stringify(name)}: it failed, or its name does not end in GFLOP or GB`);
    Deno.exitCode = 1;
    continue;
  }
  figures.push({ name: kernel, unit: `${unit}/s`, value: Number(work) / (nanoseconds / 1e9), extra: cpu });
}
if (benches.length === 0) {
  console.error("error: no benchmark ran; the filter matches none");
  Deno.exitCode = 1;
}
console.log(JSON.stringify(figures, null, 1));
