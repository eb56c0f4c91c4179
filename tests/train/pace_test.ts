/** How often the loop waits for the GPU, by a clock that the test moves. @module */
import { assertEquals } from "@std/assert";
import { Pace } from "../../train/pace.ts";

/** After how many steps each wait comes, when a step takes so many milliseconds. */
async function waits(milliseconds: readonly number[]): Promise<number[]> {
  const found: number[] = [];
  let [time, steps] = [0, 0];
  const pace = new Pace(() => {
    found.push(steps);
    steps = 0;
    return Promise.resolve();
  }, () => time);
  for (const taken of milliseconds) {
    time += taken;
    steps++;
    await pace.step();
  }
  return found;
}

Deno.test("short steps are waited for ever more seldom, up to 256 of them", async () => {
  assertEquals(await waits(Array(1100).fill(1)), [4, 8, 16, 32, 64, 128, 256, 256, 256]);
});

Deno.test("steps of a tenth of a second are waited for twice a second or less, steps of seconds each", async () => {
  assertEquals(await waits(Array(40).fill(100)), [4, 8, 8, 8, 8]);
  assertEquals(await waits(Array(10).fill(3000)), [4, 2, 1, 1, 1, 1]);
});

Deno.test("steps that become slow are waited for more often", async () => {
  const found = await waits([...Array(508).fill(1), ...Array(520).fill(100)]);
  assertEquals(found, [4, 8, 16, 32, 64, 128, 256, 256, 128, 64, 32, 16, 16]);
});
