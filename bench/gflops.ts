/**
 * Turns the JSON of `deno bench --json` into the tracked figure, GFLOP/s of the fastest run, as JSON lines of
 * `{ name, unit, value }`.
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

const { cpu, benches } = JSON.parse(await new Response(Deno.stdin.readable).text()) as BenchJson;
for (const { name, results } of benches) {
  const [, shape, gflop] = /^(.*), ([\d.]+) GFLOP$/.exec(name) ?? [];
  const nanoseconds = results[0]?.ok?.min;
  if (shape === undefined || nanoseconds === undefined) {
    console.error(`no figure for ${JSON.stringify(name)}: it failed, or its name says no GFLOP`);
    Deno.exitCode = 1;
    continue;
  }
  console.log(JSON.stringify({ name: shape, unit: "GFLOP/s", value: Number(gflop) / (nanoseconds / 1e9), cpu }));
}
