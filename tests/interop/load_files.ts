/**
 * Reads the checkpoints that `check_dump.py` wrote with PyTorch and compares every bit.
 *
 * `deno run -A tests/interop/load_files.ts FOLDER`
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { parseCheckpoint } from "../../io/formats/saev.ts";
import { bitsOf, PARAMETERS } from "../io/models.ts";

const folder = Deno.args[0];
if (folder === undefined) throw new TypeError("name the folder to read from");

for (const { name } of Deno.readDirSync(folder)) {
  const stem = /^(python_.+)\.pt$/.exec(name)?.[1];
  if (stem === undefined) continue;
  const bits = bitsOf(parseCheckpoint(Deno.readFileSync(`${folder}/${name}`)).parameters);
  for (const parameter of PARAMETERS) {
    const expected = Deno.readFileSync(`${folder}/${stem}.${parameter}.f32`);
    assertEquals(bits[parameter], [...new Uint32Array(expected.buffer)], `${name} ${parameter}`);
  }
  console.log(`${name}: every bit as PyTorch says`);
}
