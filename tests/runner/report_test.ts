/** Reports: everything is in the page, as it was given, and Chromium shows it without a complaint. @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { ReportData } from "../../runner/pages/data.ts";
import { pageLine, renderReport, type Report } from "../../runner/report.ts";
import { inBrowser, openBrowser, VIEWS } from "../support/page_in_browser.ts";

/** One pixel. */
const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
const PICTURE = { png: Uint8Array.fromBase64(PNG), width: 4, height: 5, alt: 'a "picture" & more' };

function report(changes: Partial<Report> = {}): Report {
  return {
    title: "A <b>bold</b> title",
    summary: "Trained & measured.",
    numbers: [{ label: "NMSE", value: "0.123", note: "PCA: 0.9" }, { label: "L0", value: "10" }],
    curves: [{ title: "Loss", values: [4, 3, 2, 1] }, { title: "L0", values: [10, 10, 10, 10] }],
    density: [0, 0.01, 0.012, 0.5, 1, 1e-9],
    configuration: { train: { lr: 0.01, schedule: { n: 3 } }, group_sizes: [1, 2], path: "<a>" },
    ...changes,
  };
}

/** What the document holds for its script. */
function dataOf(html: string): ReportData {
  return JSON.parse(/<script type="application\/json" id="data">(.*)<\/script>/.exec(html)![1]!);
}

Deno.test("a report holds what it was given", () => {
  const html = renderReport(report({
    features: { ...PICTURE, caption: "All <features>" },
    strongest: { caption: "The strongest", features: [{ index: 17, density: 0.0123, examples: PICTURE }] },
    warnings: ["it is short"],
    tables: [{ title: "Versions", columns: ["date"], rows: [["today"]] }],
  }));
  assertMatch(html, /^<!doctype html>/);
  const data = dataOf(html);
  assertEquals([data.title, data.summary, data.warnings], [
    "A <b>bold</b> title",
    "Trained & measured.",
    ["it is short"],
  ]);
  assertEquals(data.features, {
    src: `data:image/png;base64,${PNG}`,
    width: 4,
    height: 5,
    alt: 'a "picture" & more',
    caption: "All <features>",
  });
  assertEquals(data.strongest!.features.map(({ index, feature }) => [index, feature]), [[17, null]]);
  assertEquals(data.tables, [{ title: "Versions", columns: ["date"], rows: [["today"]] }]);
  assertEquals(data.configuration, [
    ["train.lr", "0.01"],
    ["train.schedule.n", "3"],
    ["group_sizes", "1, 2"],
    ["path", "<a>"],
  ]);
});

Deno.test("a report counts every feature once, dead ones apart", () => {
  const { density } = dataOf(renderReport(report()));
  assertEquals([density.n_latents, density.n_dead], [6, 1]);
  assertEquals(density.counts.reduce((sum, count) => sum + count, 0), 5);
  const filled = density.counts.flatMap((count, bin) => count > 0 ? [[density.log10_edges[bin]!, count]] : []);
  assertEquals(filled, [[-8, 1], [-2, 2], [-0.5, 1], [-0.25, 1]]);
});

Deno.test("a line of a page keeps the means of groups, at the middle of their steps", () => {
  assertEquals(pageLine([4, 3, 2]), { x: [1, 2, 3], y: [4, 3, 2] });
  assertEquals(pageLine([4, 2, 6, 8, 1], undefined, 3), { x: [1.5, 3.5, 5], y: [3, 7, 1] });
  assertEquals(pageLine([1, NaN, NaN, NaN], undefined, 2), { x: [1.5, 3.5], y: [1, null] });
  assertEquals(pageLine([1, 2, 3], [10, 20, 40], 2), { x: [15, 40], y: [1.5, 3] });
  assertEquals(pageLine([]), { x: [], y: [] });
  assertEquals(pageLine([1 / 3]).y, [0.333333]);
  assertEquals(pageLine(new Float32Array(5000)).x.length, 1000);
});

Deno.test("Chromium shows a report of any values, at every width and in both themes, without a complaint", async () => {
  const noise = (i: number) => 1 + Math.sin(i * i);
  const curves = [
    { title: "long", values: Array.from({ length: 5000 }, (_, i) => noise(i) / (1 + i)) },
    { title: "one step", values: [0.5] },
    { title: "zeros", values: [0, 0, 0] },
    { title: "constant", values: [7, 7] },
    { title: "negative", values: [-3, 5] },
    { title: "many decades", values: [1e6, 1e3, 1e-3] },
    { title: "tiny", values: [1e-9, 2e-9] },
    { title: "with a gap", values: [3, NaN, 1] },
    { title: "validation", values: [0.9, 0.5, 0.45], steps: [100, 200, 300] },
    { title: "empty", values: [] },
  ];
  const html = renderReport(report({
    curves,
    features: { ...PICTURE, caption: "All <features>" },
    strongest: {
      caption: "The strongest",
      features: [{ index: 17, density: 0.0123, feature: PICTURE, examples: PICTURE }],
    },
    warnings: ["the learning rate does not reach its peak: n_lr_warmup is 500 and there are 20 steps"],
    tables: [{
      title: "Largest gradients",
      caption: "Of all parameters.",
      columns: ["step", "norm", "W_enc"],
      rows: [[1, 12.5, 3], [7, 2.25, null]],
    }],
    density: Array.from({ length: 4000 }, (_, i) => i % 10 === 0 ? 0 : 10 ** (-4 * Math.abs(Math.sin(i)))),
  }));
  const path = `${await Deno.makeTempDir()}/report.html`;
  await Deno.writeTextFile(path, html);
  await using browser = await openBrowser();
  for (const view of VIEWS) {
    await inBrowser(browser, path, view, async (page) => {
      assertEquals(await page.locator("h1").innerText(), "A <b>bold</b> title");
      assertEquals(await page.locator("canvas").count(), curves.length - 1 + 1);
      for (const text of ["All <features>", "PCA: 0.9", "n_lr_warmup is 500", "There are no values."]) {
        assertStringIncludes(await page.locator("main").innerText(), text);
      }
      // Every chart has words and numbers for those who cannot see it.
      const said = await page.locator('.chart[role="img"]').evaluateAll((all) =>
        all.map((one) => one.getAttribute("aria-label")!)
      );
      assertStringIncludes(said.join("\n"), "with a gap. From 3 to 1 at step 3; least 1, most 3.");
      await page.locator('summary[aria-label="with a gap as a table"]').focus();
      await page.keyboard.press("Enter");
      await page.waitForSelector("figure tbody");
      assertEquals(await page.locator("figure:has-text('with a gap') tbody tr").allInnerTexts(), [
        "1\t3",
        "2\t–",
        "3\t1",
      ]);
      // The switch goes before the system, and lasts.
      const ground = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
      const before = await ground();
      const other = view.colorScheme === "light" ? "dark" : "light";
      await page.getByRole("radio", { name: other }).check({ force: true });
      assert(await ground() !== before, "the theme does not change");
      await page.reload();
      assert(await ground() !== before, "the theme is forgotten");
      await page.getByRole("radio", { name: "auto" }).check({ force: true });
      assertEquals(await ground(), before);
    });
  }
});
