/**
 * A page as one HTML document that needs no server and no network: the script and the style that
 * `deno task pages` has built, and the data as JSON.
 *
 * @module
 */

import { NOTICES, SCRIPTS, STYLE } from "./built.ts";

/** The pages that there are. */
export type PageName = keyof typeof SCRIPTS;

/** What a page shows. */
export interface PageContent {
  /** In the title of the window. */
  readonly title: string;
  /** What the page's script is given; plain data. */
  readonly data: unknown;
  /** Where it may load from, as in a Content-Security-Policy; only pictures within the page, if left out. */
  readonly sources?: string;
  /** Whether it loads scripts that lie beside it. */
  readonly loadsScripts?: boolean;
}

/** The document. */
export function renderPage(
  page: PageName,
  { title, data, sources = "img-src data:", loadsScripts = false }: PageContent,
): string {
  const scripts = `script-src 'unsafe-inline'${loadsScripts ? " 'self' file:" : ""}`;
  const policy = `default-src 'none'; ${scripts}; style-src 'unsafe-inline'; ${sources}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escapeText(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="saev ${page}">
<title>${escapeText(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<div id="page"></div>
<noscript><p>This page needs JavaScript to show its numbers.</p></noscript>
<footer><details><summary>Licences</summary><pre>${escapeText(NOTICES)}</pre></details></footer>
<script type="application/json" id="data">${jsonForScript(data)}</script>
<script>${SCRIPTS[page]}</script>
</body>
</html>
`;
}

/**
 * JSON that ends no script element: `<` is written `\u003c`, which JSON reads as the same. Numbers that are not finite
 * become `null`.
 */
export function jsonForScript(data: unknown): string {
  return JSON.stringify(data).replaceAll("<", "\\u003c");
}

/** Text that is no markup. */
function escapeText(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
