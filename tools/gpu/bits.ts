/**
 * Requires the same bits of losses and parameters after twelve steps of each activation, whichever WGSL compiler made the
 * kernels and however many invocations share a row: `deno task gpu:bits`. All of it runs on Mesa's software driver.
 *
 * @module
 */

import { mesaEnvironment } from "./mesa.ts";
import { deviations } from "./same_bits.ts";
import { runScript } from "./script.ts";
import type { Bits } from "./train_bits.ts";

const mesa = await mesaEnvironment("lvp");
const printed = await Promise.all([
  runScript("./train_bits.ts", ["8", "8-textures", "32", "64"], mesa),
  runScript("./train_bits.ts", ["--dawn", "8", "32-textures", "64"], mesa),
]);
const ways = printed.flatMap((text) => JSON.parse(text) as Bits[]);
const found = deviations(ways);
for (const { way, hashes } of ways) {
  const shown = Object.entries(hashes).map(([activation, hash]) => `${activation} ${hash.slice(0, 8)}`);
  console.log(`${way}: ${shown.join(", ")}`);
}
for (const sentence of found) console.log(`FAILED: ${sentence}`);
const n_hashes = ways.reduce((sum, { hashes }) => sum + Object.keys(hashes).length, 0);
console.log(`${n_hashes - found.length} passed, ${found.length} failed`);
Deno.exit(found.length > 0 ? 1 : 0);
