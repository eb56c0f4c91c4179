/**
 * `deno task pages`: builds the pages into `runner/pages/built.ts`.
 *
 * @module
 */

import { buildPages, BUILT } from "./build.ts";

const text = await buildPages();
await Deno.writeTextFile(BUILT, text);
console.error(`${BUILT.pathname}: ${text.length.toLocaleString("en")} bytes`);
