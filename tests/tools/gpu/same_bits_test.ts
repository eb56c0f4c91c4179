/**
 * The judge of bits: which results it finds.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { deviations } from "../../../tools/gpu/same_bits.ts";

Deno.test("results that differ from the first way's, or are missing, are found; equal ones are not", () => {
  const naga = { way: "naga", hashes: { relu: "a", gated: "b" } };
  assertEquals(deviations([naga, { way: "Tint", hashes: { relu: "a", gated: "b" } }]), []);
  assertEquals(deviations([naga, { way: "Tint", hashes: { relu: "c", gated: "b" } }]), [
    "relu by Tint is c, by naga a",
  ]);
  assertEquals(deviations([naga, { way: "Tint", hashes: { relu: "a" } }]), ["gated by Tint is undefined, by naga b"]);
});
