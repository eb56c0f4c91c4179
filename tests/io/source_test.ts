/** `io/source.ts`: bytes anywhere, parts of them, and fewer reads. */

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { Buffer } from "node:buffer";
import { CheckpointError } from "../../io/errors.ts";
import { blobSource, buffered, bytesSource, joinBytes, readPieces, sliceSource, type Source } from "../../io/source.ts";
import { Random } from "../support/random.ts";
import { countingSource } from "./counting_source.ts";

fc.configureGlobal({ seed: 0 });

const BYTES = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 2654435761) >>> 24);

const SOURCES: readonly [what: string, source: Source][] = [
  ["bytes", bytesSource(BYTES)],
  ["a Blob", blobSource(new Blob([BYTES]))],
  ["a slice", sliceSource(bytesSource(joinBytes([Uint8Array.of(1, 2, 3), BYTES, Uint8Array.of(4)])), 3, 300_003)],
  ["buffered bytes", buffered(bytesSource(BYTES))],
  ["a slice of a buffered source", sliceSource(buffered(bytesSource(joinBytes([BYTES, BYTES]))), 300_000)],
  ["a source whose start is known", buffered(bytesSource(BYTES), BYTES.slice(0, 2 ** 16))],
];

for (const [what, source] of SOURCES) {
  Deno.test(`any range can be read: ${what}`, async () => {
    assertEquals(source.size, BYTES.length);
    const random = new Random(1);
    const ranges = [[0, 0], [0, 1], [0, 300_000], [300_000, 300_000], [65_535, 65_537], [65_536, 131_072], [7, 65_543]];
    for (let n = 0; n < 200; n++) {
      const from = random.integer(0, 300_000);
      ranges.push([from, Math.min(300_000, from + random.integer(0, [10, 70_000, 300_000][n % 3]!))]);
    }
    // Several at once: no read may disturb another.
    const read = await Promise.all(ranges.map(([from, to]) => source.read(from!, to!)));
    for (const [i, [from, to]] of ranges.entries()) {
      assertEquals(Buffer.compare(read[i]!, BYTES.subarray(from, to)), 0, `${from} to ${to}`);
    }
  });

  Deno.test(`what is not there is an error: ${what}`, async () => {
    for (const [from, to] of [[0, 300_001], [-1, 4], [5, 4], [0.5, 2], [NaN, 4], [300_001, 300_002]]) {
      await assertRejects(() => source.read(from!, to!), CheckpointError, "found 300000 bytes; expected bytes");
    }
  });
}

Deno.test("bytes in memory are viewed, not copied", async () => {
  assertEquals((await bytesSource(BYTES).read(5, 9)).buffer, BYTES.buffer);
  assertEquals((await sliceSource(bytesSource(BYTES), 3).read(5, 9)).byteOffset, BYTES.byteOffset + 8);
});

Deno.test("a slice lies within its source", () => {
  for (const [start, end] of [[-1, 4], [4, 3], [0, 300_001]]) {
    assertThrows(() => sliceSource(bytesSource(BYTES), start!, end), CheckpointError, "found 300000 bytes");
  }
});

Deno.test("a File is called by its name", () => {
  assertEquals(blobSource(new File([BYTES], "sae.pt")).name, "sae.pt");
  assertEquals(bytesSource(BYTES, "ours").name, "ours");
});

Deno.test("small reads are served from blocks, long ones pass", async () => {
  const counter = countingSource(BYTES);
  const source = buffered(counter);
  for (let at = 0; at < 60_000; at += 30) await source.read(at, at + 30);
  assertEquals([counter.reads, counter.bytesRead], [1, 65_536]);
  await source.read(65_000, 66_000);
  assertEquals([counter.reads, counter.bytesRead], [2, 131_072]);
  await source.read(1000, 201_000);
  assertEquals([counter.reads, counter.bytesRead], [3, 331_072]);
  await Promise.all([source.read(299_990, 299_999), source.read(299_000, 299_010)]);
  // The last block is as short as the source ends.
  assertEquals([counter.reads, counter.bytesRead], [4, 331_072 + 300_000 - 4 * 65_536]);
});

Deno.test("blocks are few, and those used last stay", async () => {
  const counter = countingSource(new Uint8Array(40 * 2 ** 16));
  const source = buffered(counter);
  const touch = (block: number): Promise<Uint8Array> => source.read(block * 2 ** 16, block * 2 ** 16 + 1);
  for (let block = 0; block < 40; block++) {
    await touch(block);
    await touch(0);
  }
  assertEquals(counter.reads, 40);
  await touch(39);
  assertEquals(counter.reads, 40);
  await touch(1);
  assertEquals(counter.reads, 41);
});

Deno.test("a failed read is tried again", async () => {
  let isBroken = true;
  const source = buffered({
    name: "x",
    size: 10,
    read: (from, to) => isBroken ? Promise.reject(new Error("broken")) : Promise.resolve(BYTES.subarray(from, to)),
  });
  await assertRejects(() => source.read(0, 5), Error, "broken");
  isBroken = false;
  assertEquals(await source.read(0, 5), BYTES.subarray(0, 5));
});

Deno.test("pieces are the range, none of them longer than 8 MiB", async () => {
  const bytes = new Uint8Array(20_000_000);
  bytes[12_345_678] = 1;
  const counter = countingSource(bytes);
  const pieces = await Array.fromAsync(readPieces(counter, 12_345_678, 20_000_000));
  assertEquals(pieces.map(({ length }) => length), [7_654_322]);
  assertEquals((await Array.fromAsync(readPieces(counter))).map(({ length }) => length), [2 ** 23, 2 ** 23, 3_222_784]);
  assertEquals([pieces[0]![0], counter.longest], [1, 2 ** 23]);
});
