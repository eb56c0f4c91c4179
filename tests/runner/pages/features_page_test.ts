/**
 * The page of features, opened from disk in Chromium: a large dictionary in a small document, the way of the keyboard,
 * filters, search, annotations that last, export and import, two folders beside each other.
 *
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Page } from "playwright-core";
import { CheckpointError } from "../../../io/errors.ts";
import { openFeatures, readAnnotations } from "../../../eval/mod.ts";
import { inBrowser, openBrowser, VIEWS } from "../../support/page_in_browser.ts";
import { writeSyntheticFeatures } from "../../support/synthetic_features.ts";

const folder = await Deno.makeTempDir();
const file = await writeSyntheticFeatures(`${folder}/large`, 16_384);
await writeSyntheticFeatures(`${folder}/small`, 24, "other");
await Deno.mkdir(`${folder}/empty/data`, { recursive: true });
await Deno.writeTextFile(`${folder}/empty/data/index.js`, "");

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

const tiles = (page: Page): Promise<number[]> =>
  page.$$eval(".tiles a", (links) => links.map((link) => Number(link.getAttribute("data-latent"))));
const status = (page: Page): Promise<string> => page.locator("[role=status]").first().innerText();
const heading = (page: Page): Promise<string> => page.locator("h1").innerText();

Deno.test("features: 16,384 latents are a document of at most 600 elements, on a desk and a phone, by day and by night", async () => {
  assert((await Deno.stat(`${folder}/large/data/index.js`)).size < 4 * 2 ** 20, "the index has at most 4 MiB");
  await using browser = await openBrowser();
  for (const view of VIEWS) {
    await inBrowser(browser, `${folder}/large/index.html`, view, async (page) => {
      assertEquals(await status(page), "14,336 of 14,336 latents, page 1 of 299");
      const count = () => page.evaluate("document.querySelectorAll('*').length") as Promise<number>;
      assert(await count() <= 600, "the grid");
      await page.locator(".tiles a").first().click();
      await page.waitForSelector(".heat canvas");
      assert(await count() <= 600, "a latent");
      assertEquals(await page.evaluate("document.documentElement.scrollWidth"), view.width);
      const painted = await page.evaluate(`(() => {
        const canvas = document.querySelector(".heat canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return document.querySelector(".heat img").decode().then(() => data.some((value) => value > 0));
      })()`);
      assert(painted, "the heat-map has colours");
    });
  }
});

Deno.test("features: sorted, filtered and searched as the numbers say, and the address is a link to it", async () => {
  await using browser = await openBrowser();
  await inBrowser(browser, `${folder}/large/index.html`, VIEWS[0]!, async (page) => {
    const best = (value: (at: number) => number) =>
      [...file.latents.keys()].sort((a, b) => value(b) - value(a) || a - b).slice(0, 48)
        .map((at) => file.latents[at]!.latent);
    const rounded = (value: number) => Number(value.toPrecision(4));
    assertEquals(await tiles(page), best((at) => rounded(file.latents[at]!.density)));
    await page.getByLabel("Sort by").selectOption("monosemanticity");
    assertEquals(await tiles(page), best((at) => rounded(file.latents[at]!.monosemanticity!)));
    await page.getByLabel("Sort by").selectOption("latent");
    await page.getByRole("button", { name: "Largest first" }).click();
    assertEquals((await tiles(page)).slice(0, 8), [0, 1, 2, 3, 4, 5, 6, 8]);
    await page.locator("label", { hasText: /^Best class/ }).locator("select").selectOption("2");
    assertEquals((await tiles(page)).slice(0, 3), [2, 6, 10]);
    await page.getByLabel("Density from").fill("0.5");
    await page.getByLabel("Density from").press("Enter");
    const dense = file.latents.filter(({ latent, density }) => latent % 4 === 2 && density >= 0.5).length;
    assertEquals(await status(page), `${dense} of 14,336 latents, page 1 of ${Math.ceil(dense / 48)}`);
    const address = page.url();
    await page.goto("about:blank");
    await page.goto(address);
    await page.waitForSelector(".tiles a");
    assertEquals(await status(page), `${dense} of 14,336 latents, page 1 of ${Math.ceil(dense / 48)}`);
    await page.goto(address.replace(/#.*/, "#search=wheels"));
    await page.reload();
    await page.waitForSelector(".tiles a");
    assertEquals(await tiles(page), [2]);
    await page.getByLabel("Search").fill("4242");
    assertEquals(await tiles(page), [4242]);
    await page.getByLabel("Search").fill("no such thing");
    assertEquals(await status(page), "No latent matches.");
  });
});

Deno.test("features: the keyboard goes through the grid and the latents and back", async () => {
  await using browser = await openBrowser();
  await inBrowser(browser, `${folder}/large/index.html`, VIEWS[0]!, async (page) => {
    const [first, second, third] = await tiles(page);
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".examples");
    assertEquals(await heading(page), `Latent ${second}`);
    assertEquals(await page.evaluate("document.activeElement.tagName"), "H1");
    await page.keyboard.press("ArrowRight");
    await page.locator("h1", { hasText: `Latent ${third}` }).waitFor();
    // Faster than the page can follow.
    await page.evaluate(`for (const key of ["ArrowLeft", "ArrowLeft"]) {
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    }`);
    await page.locator("h1", { hasText: `Latent ${first}` }).waitFor();
    assert(await page.getByRole("button", { name: "Previous" }).isDisabled());
    await page.keyboard.press("?");
    assert(await page.locator("dialog").isVisible());
    await page.keyboard.press("Escape");
    assertEquals([await page.locator("dialog").isVisible(), await heading(page)], [false, `Latent ${first}`]);
    await page.keyboard.press("Escape");
    await page.waitForSelector(".tiles");
    assertEquals(await heading(page), "Features of synthetic");
    await page.keyboard.press("/");
    await page.keyboard.type("17");
    assertEquals(await tiles(page), [17]);
  });
});

Deno.test("features: annotations last, are found, exported and imported, and read by the library", async () => {
  await using browser = await openBrowser();
  await inBrowser(browser, `${folder}/large/index.html`, VIEWS[0]!, async (page) => {
    await page.goto(`${page.url()}#latent=5`);
    await page.waitForSelector("#name");
    await page.locator("#name").fill("striped cats");
    await page.locator("#tags").fill("animal, fur ");
    await page.locator("#tags").press("Tab");
    await page.locator("#verdict").selectOption("mixed");
    await page.locator("#note").fill("and one tiger");
    await page.reload();
    await page.waitForSelector("#name");
    assertEquals(await page.locator("#name").inputValue(), "striped cats");
    assertEquals(await heading(page), "Latent 5: striped cats");
    await page.keyboard.press("Escape");
    await page.getByLabel("Search").fill("tiger");
    assertEquals(await tiles(page), [5]);
    await page.getByLabel("Search").fill("");
    await page.locator("label", { hasText: /^Annotation/ }).locator("select").selectOption("mixed");
    assertEquals(await tiles(page), [5]);
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#export").click()]);
    const exported = `${folder}/annotations.json`;
    await download.saveAs(exported);
    const expected = [
      { latent: 2, name: "wheels", tags: ["things"], verdict: "interpretable" as const, note: "round ones" },
      { latent: 5, name: "striped cats", tags: ["animal", "fur"], verdict: "mixed" as const, note: "and one tiger" },
    ];
    assertEquals(await readAnnotations(exported), {
      saev_annotations: 1,
      model: "synthetic",
      d_sae: 16_384,
      annotations: expected,
    });
    await Deno.writeTextFile(exported, (await Deno.readTextFile(exported)).replace("striped cats", "tabbies"));
    await page.getByLabel("Import").setInputFiles(exported);
    await page.getByText("2 annotations read").waitFor();
    await page.getByLabel("Search").fill("tabbies");
    assertEquals(await tiles(page), [5]);
    await Deno.writeTextFile(exported, "[]");
    await page.getByLabel("Import").setInputFiles(exported);
    await page.getByText("it is no annotations.json").waitFor();
    await assertRejects(
      () => readAnnotations(exported),
      CheckpointError,
      "found saev_annotations undefined; expected 1",
    );
  });
});

Deno.test("features: two latents and two folders stand beside each other", async () => {
  await using browser = await openBrowser();
  await inBrowser(browser, `${folder}/large/index.html`, VIEWS[0]!, async (page) => {
    await page.goto(`${page.url()}#latent=5`);
    await page.waitForSelector("input[name=beside]");
    await page.locator("input[name=beside]").fill("9");
    await page.getByRole("button", { name: "Show" }).click();
    await page.locator(".pair .legend").nth(1).waitFor();
    assertEquals(await page.locator(".pair h2", { hasText: /^Latent \d/ }).allInnerTexts(), ["Latent 5", "Latent 9"]);
    await page.locator("input[name=other]").fill("../small");
    await page.getByRole("button", { name: "Show" }).click();
    await page.getByText("other on shards").waitFor();
    assert(await page.evaluate("document.querySelectorAll('*').length") as number <= 600);
    await page.locator("input[name=other]").fill("../empty");
    await page.getByRole("button", { name: "Show" }).click();
    await page.getByText("../empty/data/index.js holds no features").waitFor();
  });
});

Deno.test("features: the folder's reader gives the numbers, and heat-maps in units of activation", async () => {
  const features = await openFeatures(`${folder}/small`);
  assertEquals(features.file.latents.map(({ latent }) => latent).slice(-2), [21, 22]);
  const record = features.file.latents[6]!;
  assertEquals(record.latent, 6);
  const maps = await features.heatMaps(6);
  assertEquals(maps.length, record.examples.length);
  assertEquals(maps[0]![1], Math.fround((6 * 37 + 5) % 256 / 255 * record.max));
  await assertRejects(() => features.heatMaps(7), RangeError, "has no latent 7");
  await Deno.writeTextFile(`${folder}/small/data/0000.js`, "alert(1)");
  await assertRejects(() => features.heatMaps(6), CheckpointError, "expected one call of saev.block");
  await Deno.writeTextFile(`${folder}/small/features.json`, '{"saev_features": 2}');
  await assertRejects(() => openFeatures(`${folder}/small`), CheckpointError, "found saev_features 2; expected 1");
});
