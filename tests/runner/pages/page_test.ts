/** The pages: built from their sources, with their licences, as documents that nothing in their data can break. @module */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { NOTICES, SCRIPTS, STYLE } from "../../../runner/pages/built.ts";
import { jsonForScript, renderPage } from "../../../runner/pages/page.ts";
import { buildPages, BUILT } from "../../../tools/pages/build.ts";

const SOURCE = new URL("../../../runner/pages/source/", import.meta.url);

Deno.test("pages: the committed module is what its sources are built into", async () => {
  const isSame = await Deno.readTextFile(BUILT) === await buildPages();
  assert(isSame, "runner/pages/built.ts is not what its sources give; run deno task pages");
});

Deno.test("pages: the licence of every package in the scripts goes along", async () => {
  const packages = new Set<string>();
  for (const page of Object.keys(SCRIPTS)) {
    const args = ["info", "--json", new URL(`${page}.tsx`, SOURCE).pathname];
    const { stdout } = await new Deno.Command(Deno.execPath(), { args, cwd: SOURCE.pathname }).output();
    const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as {
      readonly modules: readonly { readonly npmPackage?: string }[];
    };
    for (const { npmPackage } of modules) if (npmPackage) packages.add(npmPackage.replace(/@[^@]*$/, ""));
  }
  assertEquals([...packages].sort(), ["preact", "uplot"]);
  for (const name of packages) assertStringIncludes(NOTICES, `\n${name}: Copyright (c)`);
  assertStringIncludes(NOTICES, "Permission is hereby granted, free of charge");
  assertStringIncludes(renderPage("report", { title: "", data: {} }), "Copyright (c) 2022 Leon Sorokin");
});

Deno.test("pages: no data ends the script that holds it", () => {
  const data = { name: "</script><script>alert(1)</script><!-- <b> \u2028 & \"'", none: NaN };
  const text = jsonForScript(data);
  assertEquals(text.includes("<"), false);
  assertEquals(JSON.parse(text), { ...data, none: null });
});

Deno.test("pages: the title is text, and nothing is loaded from elsewhere", () => {
  const html = renderPage("report", { title: `<i>&"'`, data: {} });
  assertStringIncludes(html, "<title>&#60;i&#62;&#38;&#34;&#39;</title>");
  assertStringIncludes(html, "default-src &#39;none&#39;");
  const markup = html.replace(/<script[\s\S]*?<\/script>|<style>[\s\S]*?<\/style>/g, "");
  assertEquals(/<link|\bsrc=|\bhref=/.exec(markup), null);
  assertEquals(/url\(|@import/.exec(STYLE), null);
});
