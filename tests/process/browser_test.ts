/**
 * The core in a browser: bundled, run once in headless Chromium, and compared with the same program in Deno.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { chromium } from "playwright-core";
import { type BrowserRun, latentsAt, run } from "../support/browser_program.ts";
import { findChromium } from "../support/chromium.ts";
import { assertRunLosses, assertRunParameter } from "../support/tolerance.ts";

const PROGRAM = new URL("../support/browser_program.ts", import.meta.url).pathname;

/** What loads in the page; nothing but the core. */
async function bundle(): Promise<Uint8Array<ArrayBuffer>> {
  const args = ["bundle", "--quiet", "--platform", "browser", PROGRAM];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assert(success, new TextDecoder().decode(stderr));
  return stdout;
}

const CHECKPOINT = new URL("../goldens/checkpoints/schema5_top_k.pt", import.meta.url);

/** Runs the bundle in a page: what `run` gives there, and the latents of a checkpoint beside the page. */
async function runInChromium(
  script: Uint8Array<ArrayBuffer>,
): Promise<{ readonly there: BrowserRun; readonly latents: readonly number[] }> {
  const checkpoint = await Deno.readFile(CHECKPOINT);
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    ({ url }) =>
      url.endsWith("/program.js")
        ? new Response(script, { headers: { "content-type": "text/javascript" } })
        : url.endsWith("/models/sae.pt")
        ? new Response(checkpoint)
        : new Response("<!doctype html><title>program</title>", { headers: { "content-type": "text/html" } }),
  );
  const browser = await chromium.launch({
    ...await findChromium(),
    headless: true,
    args: ["--no-sandbox", "--enable-unsafe-webgpu"],
  });
  try {
    const page = await browser.newPage();
    await page.goto(`http://localhost:${server.addr.port}/`);
    const there = await page.evaluate("import('/program.js').then(({ run }) => run())") as BrowserRun;
    const addresses = JSON.stringify(["/models/sae.pt", "models/sae.pt"]);
    const open = `import('/program.js').then(({ latentsAt }) => Promise.all(${addresses}.map(latentsAt)))`;
    return { there, latents: await page.evaluate(open) as number[] };
  } finally {
    await browser.close();
  }
}

Deno.test("browser: Chromium computes the numbers that Deno computes", async () => {
  const { there, latents } = await runInChromium(await bundle());
  const expected = await latentsAt(CHECKPOINT.pathname);
  assertEquals(latents, [expected, expected], "an address without an origin is the page's");
  const here = await run();
  assertEquals(there.initialBits, here.initialBits, "the initial parameters differ in their bits");
  assertRunLosses(there.losses, here.losses);
  for (const [i, losses] of here.otherLosses.entries()) assertRunLosses(there.otherLosses[i]!, losses);
  assertRunParameter(there.W_dec, here.W_dec, "W_dec");
  assertRunParameter(there.metrics, here.metrics, "metrics");
  assertEquals([there.conditional, here.conditional], [[7, 5], [7, 5]]);
  assertEquals([there.isRoundTrip, here.isRoundTrip], [true, true]);
  assertEquals([there.isF16Exact, here.isF16Exact], [true, true]);
  assertEquals([there.isSameTogether, here.isSameTogether], [true, true]);
});
