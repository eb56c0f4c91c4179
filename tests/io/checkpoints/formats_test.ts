/** `io/checkpoints/formats.ts`: the list of formats, and what each of its lines needs elsewhere. */

import { assertEquals } from "@std/assert";
import { FORMATS, WRITERS } from "../../../io/checkpoints/formats.ts";
import { FORMATS as WITH_GOLDENS } from "./golden_files.ts";

Deno.test("every format but saev, which has goldens of its own, has files of the library itself", () => {
  assertEquals(FORMATS.map(({ name }) => name).toSorted(), ["saev", ...WITH_GOLDENS].toSorted());
});

Deno.test("a format that is written is written under its name", () => {
  for (const { name, write } of FORMATS) {
    assertEquals(Object.entries(WRITERS).find(([, writer]) => writer === write)?.[0], write && name, name);
  }
});
