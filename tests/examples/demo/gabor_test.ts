/** Gabor fits: known functions are found again, and what is none is not called one. @module */
import { assert, assertEquals } from "@std/assert";
import { fitGabor } from "../../../examples/demo/gabor.ts";
import { Random } from "../../support/random.ts";

const SIZE = 12;

function gabor(
  g: { x: number; y: number; tilt: number; frequency: number; phase: number; along: number; across: number },
) {
  return Float32Array.from({ length: SIZE * SIZE }, (_, i) => {
    const [dx, dy] = [i % SIZE - (SIZE - 1) / 2 - g.x, Math.floor(i / SIZE) - (SIZE - 1) / 2 - g.y];
    const [u, v] = [dx * Math.cos(g.tilt) + dy * Math.sin(g.tilt), dy * Math.cos(g.tilt) - dx * Math.sin(g.tilt)];
    const bell = Math.exp(-(u ** 2) / (2 * g.along ** 2) - v ** 2 / (2 * g.across ** 2));
    return bell * Math.cos(2 * Math.PI * g.frequency * u + g.phase);
  });
}

Deno.test("Gabor functions are found", () => {
  const random = new Random(1);
  for (let i = 0; i < 20; i++) {
    const made = {
      x: 3 * random.unit() - 1.5,
      y: 3 * random.unit() - 1.5,
      tilt: Math.PI * random.unit(),
      frequency: 0.16 + 0.1 * random.unit(),
      phase: 2 * Math.PI * random.unit(),
      along: 2 + random.unit(),
      across: 2 + 2 * random.unit(),
    };
    const { r2, orientation, frequency } = fitGabor(gabor(made), SIZE);
    assert(r2 > 0.98, `${JSON.stringify(made)}: R² ${r2}`);
    assert(Math.abs(Math.sin(orientation - made.tilt)) < 0.1, `orientation ${orientation}, made with ${made.tilt}`);
    assert(Math.abs(frequency - made.frequency) < 0.05, `frequency ${frequency}, made with ${made.frequency}`);
  }
});

Deno.test("a fit depends neither on scale nor on sign", () => {
  const patch = gabor({ x: 1, y: 0, tilt: 0.5, frequency: 0.15, phase: 1, along: 2, across: 3 });
  const { r2 } = fitGabor(patch, SIZE);
  for (const factor of [-1, 4]) assertEquals(fitGabor(patch.map((value) => factor * value), SIZE).r2, r2);
});

Deno.test("noise and checkerboards of several scales are no Gabor functions", () => {
  const random = new Random(2);
  for (let i = 0; i < 10; i++) {
    const { r2 } = fitGabor(random.normal(SIZE * SIZE), SIZE);
    assert(r2 < 0.35, `noise is fitted with R² ${r2}`);
  }
  const checks = Float32Array.from(
    { length: SIZE * SIZE },
    (_, i) => (Math.floor(i / 3) + Math.floor(i / SIZE / 3)) % 2 - 0.5,
  );
  assert(fitGabor(checks, SIZE).r2 < 0.5);
});
