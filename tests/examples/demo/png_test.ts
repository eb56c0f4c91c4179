/** PNG files: what a decoder makes of them, and the contact sheets they show. @module */
import { assertEquals, assertRejects } from "@std/assert";
import { drawContactSheet } from "../../../examples/demo/contact_sheet.ts";
import { type ByteImage, encodePng } from "../../../examples/demo/png.ts";
import { crc32 } from "../../../io/crc32.ts";
import { Random } from "../../support/random.ts";

/** Decodes what the encoder can write, checking every checksum. */
async function decodePng(file: Uint8Array): Promise<ByteImage> {
  assertEquals([...file.subarray(0, 8)], [137, 80, 78, 71, 13, 10, 26, 10]);
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const chunks = new Map<string, Uint8Array<ArrayBuffer>>();
  for (let at = 8; at < file.length;) {
    const length = view.getUint32(at);
    const body = file.slice(at + 4, at + 8 + length);
    assertEquals(view.getUint32(at + 8 + length), crc32(body));
    chunks.set(new TextDecoder().decode(body.subarray(0, 4)), body.slice(4));
    at += 12 + length;
  }
  assertEquals([...chunks.keys()], ["IHDR", "IDAT", "IEND"]);
  const header = new DataView(chunks.get("IHDR")!.buffer);
  const [width, height] = [header.getUint32(0), header.getUint32(4)];
  const channels = header.getUint8(9) === 0 ? 1 : 3;
  assertEquals([8, 9, 10, 11, 12].map((at) => header.getUint8(at)), [8, channels === 1 ? 0 : 2, 0, 0, 0]);
  const inflate = new Blob([chunks.get("IDAT")!]).stream().pipeThrough(new DecompressionStream("deflate"));
  const filtered = await new Response(inflate).bytes();
  const rows = Array.from({ length: height }, (_, y) => filtered.subarray(y * (width * channels + 1)));
  assertEquals(rows.every((row) => row[0] === 0), true);
  const bytes = Uint8Array.from(rows.flatMap((row) => [...row.subarray(1, 1 + width * channels)]));
  return { width, height, channels, bytes };
}

for (const channels of [1, 3] as const) {
  Deno.test(`an image of ${channels} bytes a pixel comes back`, async () => {
    const [width, height] = [7, 5];
    const random = new Random(channels);
    const bytes = Uint8Array.from({ length: width * height * channels }, () => random.integer(0, 255));
    assertEquals(await decodePng(await encodePng({ width, height, channels, bytes })), {
      width,
      height,
      channels,
      bytes,
    });
  });
}

Deno.test("an image of the wrong size is refused", async () => {
  const image = { width: 2, height: 2, channels: 1, bytes: new Uint8Array(3) } as const;
  await assertRejects(() => encodePng(image), RangeError, "needs 4 bytes, not 3");
});

Deno.test("a contact sheet draws every patch with its own contrast", () => {
  const patches = Float32Array.of(0, 1, -2, 0, 10, 0, 0, 0, 0, 0, 0, 0);
  const { width, height, bytes } = drawContactSheet(patches, { size: 2, columns: 2, zoom: 1, gap: 1 });
  assertEquals([width, height], [5, 5]);
  const line = bytes[2]!;
  assertEquals(Array.from({ length: 5 }, (_, y) => [...bytes.subarray(5 * y, 5 * y + 5)]), [
    [128, 191, line, 255, 128],
    [0, 128, line, 128, 128],
    [line, line, line, line, line],
    [128, 128, line, line, line],
    [128, 128, line, line, line],
  ]);
});

Deno.test("zoom repeats pixels", () => {
  const { width, bytes } = drawContactSheet(Float32Array.of(1, -1, 1, -1), { size: 2, columns: 3, zoom: 2, gap: 1 });
  assertEquals([width, ...bytes.subarray(0, 4)], [4, 255, 255, 0, 0]);
});
