/** Files of every format described and converted, and cut short at every byte. @module */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { convertCheckpoint, TARGET_FORMATS } from "../../io/convert.ts";
import { CheckpointError } from "../../io/errors.ts";
import { inspectCheckpoint } from "../../io/formats/inspect.ts";
import { recognise } from "../../io/formats/recognise.ts";
import { FORMATS, type GoldenFiles, goldenFiles, goldenUrl, memoryFiles } from "./formats/golden_files.ts";
import { PARAMETERS } from "./models.ts";
import { assertSameBits } from "../support/tolerance.ts";

const CASES = goldenFiles();

async function read({ files, main, accept }: GoldenFiles) {
  return (await (await recognise(memoryFiles(files, main))).read(accept ? { accept } : {})).model;
}

Deno.test("every file is described: its format, its tensors, and a model or the reason why there is none", async () => {
  for (const golden of CASES) {
    const found = await inspectCheckpoint(goldenUrl(golden));
    assertEquals(found.format, golden.format, golden.name);
    assert(found.tensors.length >= 2, golden.name);
    for (const { statistics } of found.tensors) assertEquals(statistics?.n_not_finite ?? 0, 0, golden.name);
    const isModel = golden.refused === undefined;
    assertEquals(found.cfg !== null, isModel, golden.name);
    assertEquals(found.accept, golden.accept ?? [], golden.name);
    if (isModel) assert(found.formula.length === 3 && found.formula[0]!.startsWith("h = "), found.formula.join("; "));
    else assert(found.warnings.some((warning) => warning.includes(golden.refused!)), found.warnings.join("; "));
  }
});

Deno.test("every model is converted to our own schema without losing a bit", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (const golden of CASES.filter(({ refused }) => refused === undefined)) {
      const out = `${folder}/${golden.format}-${golden.name}.pt`;
      const options = { to: "saev_nn", ...golden.accept && { accept: golden.accept } } as const;
      const { from, to } = await convertCheckpoint(goldenUrl(golden), out, options);
      assertEquals([from, to], [golden.format, "saev_nn"]);
      const want = await read(golden);
      const got = await read({ ...golden, files: new Map([["sae.pt", await Deno.readFile(out)]]), main: "sae.pt" });
      assertEquals([got.cfg, got.input], [want.cfg, want.input], golden.name);
      for (const name of PARAMETERS) assertSameBits(got.parameters[name], want.parameters[name], name);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("what upstream has no word for is not converted to its schemas, and nothing is left behind", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const jump = CASES.find(({ format, refused }) => format === "gemma_scope" && refused === undefined)!;
    for (const to of TARGET_FORMATS.filter((to) => to !== "saev_nn")) {
      const out = `${folder}/sae.pt`;
      await assertRejects(() => convertCheckpoint(goldenUrl(jump), out, { to }), CheckpointError, "jump-relu");
    }
    assertEquals([...Deno.readDirSync(folder)], []);
    const relu = CASES.find(({ format, name }) => format === "saelens" && name === "standard")!;
    await convertCheckpoint(goldenUrl(relu), `${folder}/relu.pt`, { to: "saev" });
    assertEquals((await inspectCheckpoint(`${folder}/relu.pt`)).schema, "5");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

for (const format of FORMATS) {
  Deno.test(`${format}: a file that is cut short anywhere is refused`, async () => {
    const golden = CASES.find((golden) => golden.format === format && golden.codes !== undefined)!;
    for (const [name, bytes] of golden.files) {
      // A configuration of some kilobytes is cut at every seventh byte, tensors at every one.
      const stride = name.endsWith(".json") ? 7 : 1;
      for (let length = 0; length < bytes.length - 1; length += stride) {
        const files = new Map(golden.files).set(name, bytes.subarray(0, length));
        await assertRejects(() => read({ ...golden, files }), CheckpointError, "", `${name} of ${length} bytes`);
      }
    }
  });
}
