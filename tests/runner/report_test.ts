/** Reports: well-formed, self-contained, escaped, with everything in them. @module */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { renderReport, type Report } from "../../runner/report.ts";

const PICTURE = { png: Uint8Array.of(1, 2, 3), width: 4, height: 5, alt: 'a "picture" & more' };

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

const VOID = ["meta", "img", "br", "line", "path"];

/** Whether every element is closed where it was opened; SVG and HTML alike. */
function assertBalanced(html: string): void {
  const open: string[] = [];
  const markup = html.replace(/<style>.*?<\/style>/s, "");
  for (const [tag, close, name] of markup.matchAll(/<(\/?)([a-z][a-z0-9]*)(?:\s+[a-zA-Z0-9-]+="[^"<>]*")*\s*\/?>/g)) {
    if (close === "/") assertEquals(open.pop(), name, tag);
    else if (!tag.endsWith("/>") && !VOID.includes(name!)) open.push(name!);
  }
  assertEquals(open, []);
  const rest = markup.replace(/<\/?[a-z][a-z0-9]*(?:\s+[a-zA-Z0-9-]+="[^"<>]*")*\s*\/?>|<!doctype html>/g, "");
  assertEquals(rest.includes("<") || rest.includes(">"), false, "text is not escaped");
}

Deno.test("a report is well-formed and needs nothing but itself", () => {
  const html = renderReport(report({
    features: { ...PICTURE, caption: "All <features>" },
    strongest: {
      caption: "The strongest",
      features: [{ index: 17, density: 0.0123, feature: PICTURE, examples: PICTURE }],
    },
  }));
  assertBalanced(html);
  assertMatch(html, /^\s*<!doctype html>/);
  assertEquals(html.match(/(?:src|href)="(?!data:)|url\(|@import|<script|<link|https?:/g), null);
  assertStringIncludes(html, 'src="data:image/png;base64,AQID"');
  assertStringIncludes(html, 'alt="a &#34;picture&#34; &#38; more"');
  for (const text of ["&#60;b&#62;bold", "All &#60;features&#62;", "#17", "1.2 %", "PCA: 0.9", "0.123"]) {
    assertStringIncludes(html, text);
  }
});

Deno.test("every figure and picture has words for who cannot see it", () => {
  const html = renderReport(report());
  for (const [, id] of html.matchAll(/aria-labelledby="([^"]*)"/g)) {
    for (const part of id!.split(" ")) assertStringIncludes(html, `id="${part}"`);
  }
  assertEquals(html.match(/<svg/g)?.length, 3);
  assertEquals(html.match(/<svg[^>]*role="img" aria-labelledby/g)?.length, 3);
  assertStringIncludes(html, "From 4 at step 1 to 1 at step 4; least 1, most 4.");
});

Deno.test("the histogram counts every feature once, dead ones apart", () => {
  const html = renderReport(report());
  const counts = [...html.matchAll(/<title>(\d+) features ([^<]*)<\/title>/g)].map((
    [, count, what],
  ) => [Number(count), what]);
  assertEquals(counts.reduce((sum, [count]) => sum + (count as number), 0), 6);
  assertEquals(counts.filter(([count]) => count !== 0), [
    [1, "never active"],
    [1, "active on at most 2e-5 of rows"],
    [2, "active on 0.01 to 0.0178 of rows"],
    [1, "active on 0.316 to 0.562 of rows"],
    [1, "active on 0.562 to 1 of rows"],
  ]);
});

Deno.test("the configuration is flattened", () => {
  const html = renderReport(report()).replace(/\s+/g, "");
  for (
    const [name, value] of [["train.lr", "0.01"], ["train.schedule.n", "3"], ["group_sizes", "1,2"], [
      "path",
      "&#60;a&#62;",
    ]]
  ) {
    assertStringIncludes(html, `<thscope="row">${name}</th><td>${value}</td>`);
  }
});

Deno.test("curves of any values are drawn inside the figure", () => {
  const curves: [title: string, values: number[]][] = [
    ["one step", [0.5]],
    ["zeros", [0, 0, 0]],
    ["constant", [7, 7]],
    ["negative", [-3, 5]],
    ["many decades", [1e6, 1e3, 1e-3]],
    ["tiny", [1e-9, 2e-9]],
    ["long", Array.from({ length: 5000 }, (_, i) => 1 / (1 + i))],
    ["with a gap", [3, NaN, 1]],
    ["empty", []],
  ];
  for (const [title, values] of curves) {
    const html = renderReport(report({ curves: [{ title, values }] }));
    assertBalanced(html);
    assertEquals(/NaN|Infinity|undefined/.exec(html), null, title);
    for (const [, d] of html.matchAll(/ d="([^"]*)"/g)) {
      for (const [, x, y] of d!.matchAll(/[ML]([-\d.]+) ([-\d.]+)/g)) {
        assert(Number(x) >= 0 && Number(x) <= 460 && Number(y) >= 0 && Number(y) <= 240, `${title}: ${x} ${y}`);
      }
    }
  }
});
