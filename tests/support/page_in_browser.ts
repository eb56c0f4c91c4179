/**
 * Opens a page from a file in headless Chromium without network, at the usual sizes and themes.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Browser, chromium, type Page } from "playwright-core";
import { findChromium } from "./chromium.ts";

/** A screen, and its system theme. */
export interface View {
  /** Pixels. */
  readonly width: number;
  /** The preferred colour scheme. */
  readonly colorScheme: "light" | "dark";
}

/** A desktop and a phone, in light and dark themes. */
export const VIEWS: readonly View[] = [1280, 390].flatMap((width) =>
  (["light", "dark"] as const).map((colorScheme) => ({ width, colorScheme }))
);

/** A browser for all pages of a test. */
export async function openBrowser(): Promise<Browser & AsyncDisposable> {
  return await chromium.launch({ ...await findChromium(), headless: true, args: ["--no-sandbox"] });
}

/**
 * Opens a file as a double click does, and checks that no error or warning is logged, that only files are loaded, and
 * that the page is no wider than the screen. If `SAEV_SCREENSHOTS` names a folder, saves a picture there.
 */
export async function inBrowser(
  browser: Browser,
  path: string,
  { width, colorScheme }: View,
  use: (page: Page) => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, offline: true });
  try {
    const page = await context.newPage();
    page.setDefaultTimeout(10_000);
    const complaints: string[] = [];
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text());
    });
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("request", (request) => {
      if (!/^(?:file|data|blob):/.test(request.url())) complaints.push(`asked for ${request.url()}`);
    });
    await page.goto(`file://${await Deno.realPath(path)}`);
    await page.waitForSelector("main section");
    const folder = Deno.env.get("SAEV_SCREENSHOTS");
    if (folder) {
      const name = path.split("/").at(-1)!.replace(/\.html$/, "");
      await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png`, fullPage: true });
    }
    assertEquals(
      await page.evaluate("document.documentElement.scrollWidth"),
      width,
      "the page is as wide as the screen",
    );
    await use(page);
    assertEquals(complaints, []);
  } finally {
    await context.close();
  }
}
