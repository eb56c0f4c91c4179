/** The figures that a dashboard tracks: one array, and an error where there is nothing to track. @module */
import { assertEquals, assertStringIncludes } from "@std/assert";

const SCRIPT = new URL("../../bench/figures.ts", import.meta.url).href;

async function figures(json: unknown): Promise<{ code: number; stdout: string; stderr: string }> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", SCRIPT],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const process = command.spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(json)));
  await writer.close();
  const { code, stdout, stderr } = await process.output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
  return { code, stdout: out, stderr: err };
}

Deno.test("each bench is one figure of an array", async () => {
  const bench = (name: string, min: number) => ({ name, results: [{ ok: { min } }] });
  const { code, stdout } = await figures({
    cpu: "a cpu",
    benches: [bench("nt 2×3×4, 20 GFLOP", 5e8), bench("fill, 1e-7 GB", 100)],
  });
  assertEquals(code, 0);
  assertEquals(JSON.parse(stdout), [
    { name: "nt 2×3×4", unit: "GFLOP/s", value: 40, extra: "a cpu" },
    { name: "fill", unit: "GB/s", value: 1, extra: "a cpu" },
  ]);
});

Deno.test("a bench that failed, and no bench at all, are errors", async () => {
  const failed = await figures({ cpu: "a cpu", benches: [{ name: "nt 2×3×4, 20 GFLOP", results: [{}] }] });
  assertEquals(failed.code, 1);
  assertStringIncludes(failed.stderr, 'no figure for "nt 2×3×4, 20 GFLOP"');
  const none = await figures({ cpu: "a cpu", benches: [] });
  assertEquals(none.code, 1);
  assertStringIncludes(none.stderr, "the filter matches none");
});
