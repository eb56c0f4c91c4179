/** Heat-maps: where a latent fires is coloured, where it does not the photograph is dimmed. @module */
import { assert, assertEquals } from "@std/assert";
import { drawHeatMap, sideBySide } from "../../../examples/demo/heat_map.ts";

const WHITE = { height: 8, width: 8, data: new Uint8Array(8 * 8 * 3).fill(255) };
const GRID = { height: 2, width: 2 };

Deno.test("a patch is as bright as it excites a latent, on one scale", () => {
  const { bytes, width, height, channels } = drawHeatMap(
    { image: WHITE, values: Float32Array.of(0, 1, 2, -1), grid: GRID },
    { side: 8, largest: 2 },
  );
  assertEquals([width, height, channels, bytes.length], [8, 8, 3, 192]);
  const at = (x: number, y: number): number[] => [...bytes.subarray((y * 8 + x) * 3, (y * 8 + x) * 3 + 3)];
  const dimmed = Math.round(0.45 * 255);
  assertEquals(at(0, 0), [dimmed, dimmed, dimmed]);
  assertEquals(at(7, 7), [dimmed, dimmed, dimmed]);
  assertEquals([at(3, 3), at(0, 0)], [at(0, 0), at(3, 0)]);
  const light = (colour: readonly number[]): number => 0.299 * colour[0]! + 0.587 * colour[1]! + 0.114 * colour[2]!;
  assert(light(at(0, 7)) > light(at(7, 0)) && light(at(7, 0)) > 0);
  assert(at(0, 7)[0]! > 250 && at(0, 7)[2]! < 255, "the strongest patch is yellow and not white");
  assertEquals(at(4, 0), at(7, 3));
});

Deno.test("a latent that fires nowhere leaves the photograph dimmed", () => {
  const { bytes } = drawHeatMap({ image: WHITE, values: new Float32Array(4), grid: GRID }, { side: 4, largest: 0 });
  assertEquals(new Set(bytes), new Set([Math.round(0.45 * 255)]));
});

Deno.test("pictures stand beside each other with a line between", () => {
  const picture = { width: 2, height: 1, channels: 3, bytes: Uint8Array.of(1, 2, 3, 4, 5, 6) } as const;
  const { width, height, bytes } = sideBySide([picture, picture]);
  assertEquals([width, height], [8, 1]);
  assertEquals([...bytes], [1, 2, 3, 4, 5, 6, ...new Array(12).fill(0), 1, 2, 3, 4, 5, 6]);
});
