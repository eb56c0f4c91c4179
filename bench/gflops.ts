/**
 * Turns the JSON of `deno bench --json` into the tracked figure, GFLOP/s of the fastest run: one array of
 * `{ name, unit, value }`, as benchmark dashboards take it (bigger is better).
 *
 *     deno bench -A --json bench/matmul_bench.ts | deno run bench/gflops.ts
 *
 * Ends with 1 where a bench failed, or none ran: a filter that matches nothing is a mistake.
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

/** What a dashboard tracks. */
interface Figure {
  readonly name: string;
  readonly unit: "GFLOP/s";
  readonly value: number;
  /** Figures of other processors are not compared. */
  readonly extra: string;
}

const { cpu, benches } = JSON.parse(await new Response(Deno.stdin.readable).text()) as BenchJson;
const figures: Figure[] = [];
for (const { name, results } of benches) {
  const [, shape, gflop] = /^(.*), ([\d.]+) GFLOP$/.exec(name) ?? [];
  const nanoseconds = results[0]?.ok?.min;
  if (shape === undefined || nanoseconds === undefined) {
    console.error(`error: no figure for ${JSON.stringify(name)}: it failed, or its name says no GFLOP`);
    Deno.exitCode = 1;
    continue;
  }
  figures.push({ name: shape, unit: "GFLOP/s", value: Number(gflop) / (nanoseconds / 1e9), extra: cpu });
}
if (benches.length === 0) {
  console.error("error: no bench ran; a filter must match one");
  Deno.exitCode = 1;
}
console.log(JSON.stringify(figures, null, 1));
