/** Resizing, byte by byte as Pillow. @module */
import { assertEquals } from "@std/assert";
import { resample, type Resampling } from "../../data/resample.ts";

interface Case {
  readonly height: number;
  readonly width: number;
  readonly to: readonly [number, number];
  readonly image: readonly number[];
  readonly resized: Readonly<Record<Resampling, readonly number[]>>;
}

const { cases } = JSON.parse(
  await Deno.readTextFile(new URL("../goldens/vit/pillow_resize.json", import.meta.url)),
) as { cases: Case[] };

Deno.test("every filter gives Pillow's bytes, larger, smaller, and both at once", () => {
  for (const { height, width, to: [H, W], image, resized } of cases) {
    const plan = { resized: { height: H, width: W }, crop: { height: H, width: W, top: 0, left: 0 } };
    for (const filter of Object.keys(resized) as Resampling[]) {
      const { data } = resample({ height, width, data: Uint8Array.from(image) }, plan, { filter, channels: 3 });
      assertEquals(Array.from(data), resized[filter], `${filter}, ${height} × ${width} to ${H} × ${W}`);
    }
  }
});

Deno.test("a crop is a part of the whole, and one channel is resized as three", () => {
  const { height, width, to: [H, W], image } = cases[1]!;
  const resized = { height: H, width: W };
  const whole = resample({ height, width, data: Uint8Array.from(image) }, {
    resized,
    crop: { ...resized, top: 0, left: 0 },
  }, { filter: "bicubic", channels: 3 });
  const crop = { top: 2, left: 3, height: 5, width: 4 };
  const part = resample({ height, width, data: Uint8Array.from(image) }, { resized, crop }, {
    filter: "bicubic",
    channels: 3,
  });
  const red = resample(
    { height, width, data: Uint8Array.from(image.filter((_, i) => i % 3 === 0)) },
    { resized, crop },
    { filter: "bicubic", channels: 1 },
  );
  for (let y = 0; y < crop.height; y++) {
    const from = ((y + crop.top) * W + crop.left) * 3;
    assertEquals(part.data.slice(y * 12, y * 12 + 12), whole.data.slice(from, from + 12));
  }
  assertEquals(red.data, part.data.filter((_, i) => i % 3 === 0));
});
