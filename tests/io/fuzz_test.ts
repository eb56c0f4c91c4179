/** Seeded damage to checkpoints of every schema and format; `tests/io/fuzz.ts` does more of it. */

import { assert } from "@std/assert";
import { fuzzFormat } from "./checkpoints/fuzz.ts";
import { FORMATS } from "./checkpoints/golden_files.ts";
import { type Depth, fuzz } from "./fuzz.ts";

for (const depth of ["file", "header", "pickle"] satisfies Depth[]) {
  Deno.test(`damage to the ${depth} is refused, or changes no more than it may`, async () => {
    const { refused, unharmed } = await fuzz(depth, 0, 500);
    // Both happen: padding, dates and the seeds of old headers carry nothing.
    assert(refused > 250 && unharmed > 0, `${refused} refused, ${unharmed} unharmed`);
  });
}

for (const format of FORMATS) {
  Deno.test(`damage to ${format}'s files is refused, or makes another whole model of what nothing protects`, async () => {
    const { refused, unharmed } = await fuzzFormat(format, 0, 300);
    assert(refused > 150 && unharmed > 0, `${refused} refused, ${unharmed} unharmed`);
  });
}
