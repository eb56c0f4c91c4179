/**
 * Reads the checkpoints that `check_dump.py` wrote with PyTorch and compares every bit.
 *
 * `deno run -A tests/interop/load_files.ts FOLDER`
 *
 * @module
 */

import { assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { openSource } from "../../io/files.ts";
import { parseCheckpoint } from "../../io/checkpoints/saev_reader.ts";
import { bitsOf } from "../io/models.ts";

const folder = Deno.args[0];
if (folder === undefined) throw new TypeError("name the folder to read from");

for (const { name } of Deno.readDirSync(folder)) {
  const stem = /^(python_.+)\.pt$/.exec(name)?.[1];
  if (stem === undefined) continue;
  const { parameters } = await parseCheckpoint(await openSource(`${folder}/${name}`));
  const bits = bitsOf(parameters);
  for (const [parameter, found] of Object.entries(bits)) {
    const expected = Deno.readFileSync(`${folder}/${stem}.${parameter}.f32`);
    assertEquals(found, [...new Uint32Array(expected.buffer)], `${name} ${parameter}`);
  }
  console.log(`${name}: every bit of ${Object.keys(bits).join(", ")} as PyTorch says`);
}

const legacy = await openSource(`${folder}/refused_legacy.pt`);
await assertRejects(() => parseCheckpoint(legacy), CheckpointError, "as PyTorch wrote before version 1.6");
console.log("refused_legacy.pt: refused by name");
