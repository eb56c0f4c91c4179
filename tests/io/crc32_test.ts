/** `io/crc32.ts` against the platform's. */

import { assertEquals } from "@std/assert";
import * as zlib from "node:zlib";
import { crc32 } from "../../io/crc32.ts";
import { Random } from "../support/random.ts";

Deno.test("CRC-32 has the published check value", () => {
  assertEquals(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assertEquals(crc32(new Uint8Array()), 0);
});

Deno.test("CRC-32 agrees with zlib at every length and offset", () => {
  const random = new Random(1);
  const bytes = Uint8Array.from({ length: 300 }, () => random.bits());
  for (let start = 0; start < 5; start++) {
    for (let end = start; end <= 80; end++) {
      const part = bytes.subarray(start, end);
      assertEquals(crc32(part), zlib.crc32(part));
    }
  }
  assertEquals(crc32(bytes), zlib.crc32(bytes));
});
