/** Photographs: decoding, cropping, cutting, and loading from a folder and from a server. @module */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  COMMITTED,
  concatenate,
  crop,
  cutPatches,
  decodeJpeg,
  type GreyImage,
  loadPhotograph,
} from "../../../examples/demo/patches.ts";
import { assertVanishes } from "../../support/tolerance.ts";

const FOLDER = new URL("../../../examples/demo/photos/", import.meta.url);

/** Every pixel tells its place. */
function numbered(width: number, height: number): GreyImage {
  return { width, height, pixels: Float32Array.from({ length: width * height }, (_, i) => i) };
}

Deno.test("every committed photograph is used once, and decodes to greys", async () => {
  const files = await Array.fromAsync(Deno.readDir(FOLDER));
  const names = files.flatMap(({ name }) => name.endsWith(".jpg") ? [name.slice(0, -4)] : []);
  assertEquals([...COMMITTED.training, ...COMMITTED.heldOut].sort(), names.sort());
  for (const name of names) {
    const { width, height, pixels } = decodeJpeg(await Deno.readFile(new URL(`${name}.jpg`, FOLDER)));
    assertEquals(Math.max(width, height), 512, name);
    assertEquals(pixels.length, width * height);
    assert(pixels.every((value) => value >= 0 && value <= 1 + 2 ** -20), name);
    assert(new Set(pixels).size > 100, `${name} has hardly any greys`);
  }
});

Deno.test("a photograph out of a server is the one out of the folder", async () => {
  await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
    const name = new URL(request.url).pathname.slice(1);
    const bytes = await Deno.readFile(new URL(name, FOLDER)).catch(() => null);
    return bytes === null ? new Response(null, { status: 404 }) : new Response(bytes);
  });
  const address = new URL(`http://127.0.0.1:${server.addr.port}/`);
  assertEquals(await loadPhotograph("march-pastoral", address), await loadPhotograph("march-pastoral"));
  await assertRejects(() => loadPhotograph("no-such-photograph", address), Error, "answered 404");
});

Deno.test("a crop takes the same number of pixels off every side", () => {
  assertEquals(crop(numbered(4, 5), 1), { width: 2, height: 3, pixels: Float32Array.of(5, 6, 9, 10, 13, 14) });
  assertEquals(crop(numbered(4, 5), 0), numbered(4, 5));
  assertThrows(() => crop(numbered(4, 5), 2), RangeError, "4×5");
});

Deno.test("patches lie on the grid, less their mean", () => {
  const { values, corners } = cutPatches(numbered(7, 6), { size: 3, stride: 2 });
  assertEquals([...corners], [0, 0, 2, 0, 4, 0, 0, 2, 2, 2, 4, 2]);
  for (let i = 0; i < 6; i++) {
    // On this image a patch's mean is its middle pixel.
    assertEquals([...values.subarray(9 * i, 9 * i + 9)], [-8, -7, -6, -1, 0, 1, 6, 7, 8]);
  }
  assertEquals(cutPatches(numbered(2, 9), { size: 3, stride: 1 }).values.length, 0);
});

Deno.test("flat patches are left out when asked", () => {
  const image = { width: 4, height: 2, pixels: Float32Array.of(1, 1, 0, 1, 1, 1, 1, 0) };
  const cut = (leastContrast: number) => [...cutPatches(image, { size: 2, stride: 2, leastContrast }).corners];
  assertEquals(cut(0), [0, 0, 2, 0]);
  assertEquals(cut(0.5), [2, 0]);
  assertEquals(cut(0.51), []);
});

Deno.test("patches of a photograph have no mean", async () => {
  const { values } = cutPatches(await loadPhotograph("black-canyon"), { size: 12, stride: 16 });
  const sums = Float64Array.from(
    { length: values.length / 144 },
    (_, i) => values.subarray(144 * i, 144 * i + 144).reduce((sum, value) => sum + value, 0),
  );
  assertVanishes(sums, 144, "sum of a patch");
});

Deno.test("concatenate joins in order", () => {
  assertEquals(concatenate([Float32Array.of(1), Float32Array.of(), Float32Array.of(2, 3)]), Float32Array.of(1, 2, 3));
});
