/**
 * The core in a browser: bundled, run once in headless Chromium, and compared with the same program in Deno.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { chromium } from "playwright-core";
import { type BrowserRun, run } from "../support/browser_program.ts";
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

/** Runs the bundle in a page and returns what `run` gives there. */
async function runInChromium(script: Uint8Array<ArrayBuffer>): Promise<BrowserRun> {
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    ({ url }) =>
      url.endsWith("/program.js")
        ? new Response(script, { headers: { "content-type": "text/javascript" } })
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
    return await page.evaluate("import('/program.js').then(({ run }) => run())") as BrowserRun;
  } finally {
    await browser.close();
  }
}

Deno.test("browser: Chromium computes the numbers that Deno computes", async () => {
  const there = await runInChromium(await bundle());
  const here = await run();
  assertEquals(there.initialBits, here.initialBits, "the initial parameters differ in their bits");
  assertRunLosses(there.losses, here.losses);
  for (const [i, losses] of here.otherLosses.entries()) assertRunLosses(there.otherLosses[i]!, losses);
  assertRunParameter(there.W_dec, here.W_dec, "W_dec");
  assertRunParameter(there.metrics, here.metrics, "metrics");
  assertEquals([there.conditional, here.conditional], [[7, 5], [7, 5]]);
  assertEquals([there.isRoundTrip, here.isRoundTrip], [true, true]);
  assertEquals([there.areHalvesExact, here.areHalvesExact], [true, true]);
  assertEquals([there.isSameTogether, here.isSameTogether], [true, true]);
});
