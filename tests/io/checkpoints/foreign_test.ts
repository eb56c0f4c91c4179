/** Every file that another library wrote: read as what that library computes from it, or refused by name. @module */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { load } from "../../../io/checkpoints/checkpoint.ts";
import { CheckpointError } from "../../../io/errors.ts";
import { recognise } from "../../../io/checkpoints/recognise.ts";
import { sharedDevice } from "../../support/gpu.ts";
import { assertTensorClose } from "../../support/tolerance.ts";
import { FORMATS, goldenFiles, goldenUrl, memoryFiles } from "./golden_files.ts";

const CASES = goldenFiles();

for (const format of FORMATS) {
  const cases = CASES.filter((golden) => golden.format === format);

  Deno.test(`${format}: codes and reconstructions are the library's`, async () => {
    const accepted = cases.filter(({ codes }) => codes !== undefined);
    assert(accepted.length > 0);
    for (const golden of accepted) {
      const { name, x, codes, x_hat, accept } = golden;
      using sae = await load(goldenUrl(golden), { device: await sharedDevice(), ...accept && { accept } });
      using out = sae.forward(x);
      using dense = out.f_x.dense();
      const found = await dense.read();
      assertEquals(
        Array.from(found, (code) => code !== 0),
        Array.from(codes!, (code) => code !== 0),
        `${name}: support`,
      );
      assertTensorClose(found, codes!, `${name}: codes`);
      assertTensorClose(await out.x_hat.read(), x_hat!, `${name}: x_hat`);
    }
  });

  Deno.test(`${format}: what the library's file has beyond a model of this library is refused by name`, async () => {
    for (const { name, files, main, accept, refused } of cases) {
      if (refused === undefined && accept === undefined) continue;
      const recognised = await recognise(memoryFiles(files, main));
      assertEquals(recognised.format, format, name);
      const error = await assertRejects(() => recognised.open(), CheckpointError, refused ?? accept![0]!, name);
      assert(!error.message.includes("undefined"), error.message);
    }
  });
}
