/**
 * The tuner: takes the fastest, gives up who falls behind, refuses who computes wrongly, remembers and forgets.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { contextOf, DeviceContext } from "../../../kernels/engine/device.ts";
import { KernelError } from "../../../kernels/engine/errors.ts";
import { candidates, type ProductShape, type TileName } from "../../../kernels/matmul_tiles.ts";
import { Tensor } from "../../../kernels/engine/tensor.ts";
import { restoreTuning, tune, type Tuning } from "../../../kernels/engine/tuner.ts";
import { recordingDevice } from "../../../tools/gpu/recording_device.ts";
import { freshDevice } from "../../support/gpu.ts";

/** Few rows: the class whose candidates compile fastest. */
const SHAPE: ProductShape = { layout: "nt", M: 4, N: 40, K: 8 };
const OF = "nt, few rows";

/** Times that are made up: `fast` takes one millisecond, the others ten, or what is said. */
function fake(fast: TileName, others = 10) {
  const timed: TileName[] = [];
  const time = (_run: () => void, tile: TileName): Promise<number> => {
    timed.push(tile);
    return Promise.resolve(tile === fast ? 1 : others);
  };
  return { timed, time };
}

/** Whether this is the product by register tiles of so many rows and columns. */
function isRegisterTile(size: number, wgsl: string): boolean {
  const [inside, outside] = [`var c${size - 1}_${size - 1}`, `var c${size}_0`];
  return wgsl.includes(inside) && !wgsl.includes("subgroupBroadcast") && !wgsl.includes(outside);
}

function stateOf({ tiles }: Tuning, wanted: TileName): string | undefined {
  return tiles.find(({ tile }) => tile === wanted)?.state;
}

Deno.test("the fastest is chosen and used, whichever it is; who falls behind is given up", async () => {
  const device = await freshDevice();
  const [first] = await tune(device, { shapes: [SHAPE], budget: 1000, time: fake("register 4x4").time });
  const names = first!.tiles.map(({ tile }) => tile);
  assert(names.length > 3, `only ${names}`);
  for (const name of names) {
    const { timed, time } = fake(name);
    const [tuning] = await tune(device, { shapes: [SHAPE], budget: 1000, time });
    assertEquals([tuning!.class, tuning!.chosen], [OF, name]);
    assertEquals(contextOf(device).tuned.get(OF), name);
    for (const { tile, state, gflops } of tuning!.tiles) {
      assertEquals(state, tile === name ? "timed" : "slower", tile);
      assert(gflops !== null && gflops > 0, tile);
    }
    // The default is timed once more, to see how many products make a sample.
    const samples = timed.filter((tile) => tile !== name && tile !== tuning!.default);
    assertEquals(samples.length, new Set(samples).size, `timed again: ${samples}`);
  }
  device.destroy();
});

Deno.test("the default stays where nothing is faster by more than noise, and without time for others", async () => {
  const device = await freshDevice();
  const [even] = await tune(device, { shapes: [SHAPE], budget: 1000, time: fake("register 4x4", 1.02).time });
  assertEquals(even!.chosen, even!.default);
  const [hurried] = await tune(device, { shapes: [SHAPE], budget: 0, time: fake("register 8x8").time });
  assertEquals(hurried!.chosen, hurried!.default);
  const untried = hurried!.tiles.filter(({ state }) => state === "untried");
  assertEquals(untried.length, hurried!.tiles.length - 1);
  assertEquals(untried.map(({ gflops, compileMs }) => [gflops, compileMs]), untried.map(() => [null, null]));
  device.destroy();
});

Deno.test("a signal ends it after the measurement under way, and what was chosen before stays", async () => {
  const device = await freshDevice();
  const aborter = new AbortController();
  const store = new Map<string, string>();
  let timed = 0;
  const stopped = tune(device, {
    shapes: [SHAPE, { layout: "nt", M: 40, N: 4, K: 8 }],
    budget: 0,
    store,
    signal: aborter.signal,
    // The first class takes four: one to see how many products make a sample, and three samples.
    time: () => {
      if (++timed === 5) aborter.abort(new RangeError("enough"));
      return Promise.resolve(1);
    },
  });
  await assertRejects(() => stopped, RangeError, "enough");
  assertEquals([timed, store.size], [5, 1]);
  const none = tune(device, { shapes: [SHAPE], signal: aborter.signal, time: fake("register 4x4").time });
  await assertRejects(() => none, RangeError, "enough");
  device.destroy();
});

Deno.test("a tile that computes wrongly is refused, however fast it is", async () => {
  const broken: readonly (readonly [from: string, to: string])[] = [
    // Integers show a wrong term, fractions a sum in another order.
    ["b1[3]", "b1[2]"],
    [
      "c7_7 = fma(a7[3], b7[3], fma(a7[2], b7[2], fma(a7[1], b7[1], fma(a7[0], b7[0], c7_7))));",
      "c7_7 = fma(a7[0], b7[0], fma(a7[1], b7[1], fma(a7[2], b7[2], fma(a7[3], b7[3], c7_7))));",
    ],
  ];
  const tile = "register 8x8";
  for (const [from, to] of broken) {
    let found = false;
    const device = await freshDevice({
      rewriteShader: (_name, wgsl) => {
        if (!isRegisterTile(8, wgsl)) return wgsl;
        found ||= wgsl.includes(from);
        return wgsl.replaceAll(from, to);
      },
    });
    const [tuning] = await tune(device, { shapes: [SHAPE], budget: 1000, time: fake(tile).time });
    assert(found, `no ${from} in ${tile}`);
    assertEquals(stateOf(tuning!, tile), "wrong", to);
    assert(tuning!.chosen !== tile);
    device.destroy();
  }
});

Deno.test("a tile that the device refuses is left out, and the others are measured; the default must compile", async () => {
  const refusing = (isRefused: (wgsl: string) => boolean) =>
    freshDevice({ rewriteShader: (_name, wgsl) => isRefused(wgsl) ? `${wgsl}\nfn broken() -> u32 {}` : wgsl });
  const device = await refusing((wgsl) => isRegisterTile(4, wgsl));
  const [tuning] = await tune(device, { shapes: [SHAPE], budget: 1000, time: fake("register 8x8").time });
  assertEquals(stateOf(tuning!, "register 4x4"), "refused");
  assertEquals(tuning!.chosen, "register 8x8");
  assertEquals(await Tensor.from(contextOf(device), Float32Array.of(1, 2), [2], "after").read(), Float32Array.of(1, 2));
  device.destroy();

  const hopeless = await refusing((wgsl) => wgsl.includes("var c0_0"));
  await assertRejects(() => tune(hopeless, { shapes: [SHAPE], budget: 1000 }), KernelError, "does not compile");
  hopeless.destroy();
});

Deno.test("choices are remembered for the device and the class, and nothing else is believed", async () => {
  const store = new Map<string, string>();
  {
    const device = await freshDevice();
    await tune(device, { store, shapes: [SHAPE], budget: 1000, time: fake("register 8x8").time });
    device.destroy();
  }
  assertEquals([...store.values()], ["register 8x8"]);
  const [key] = [...store.keys()];
  const { description } = (await freshDevice()).adapterInfo;
  assert(key!.includes(JSON.stringify(description)) && key!.includes(OF), key);

  const device = await freshDevice();
  assertEquals(await restoreTuning(device, store), 1);
  assertEquals([...contextOf(device).tuned], [[OF, "register 8x8"]]);
  device.destroy();

  for (const value of ["register 7x7", "workgroup 8x8", "__proto__", ""]) {
    const device = await freshDevice();
    assertEquals(await restoreTuning(device, new Map([[key!, value]])), 0, value);
    assertEquals(contextOf(device).tuned.size, 0);
    device.destroy();
  }
});

Deno.test("the first shape of each class is measured, on the clock of the CPU if none is given", async () => {
  const device = await freshDevice();
  const shapes: ProductShape[] = [SHAPE, { ...SHAPE, M: 3 }, { ...SHAPE, layout: "nn" }];
  const tunings = await tune(device, { shapes, budget: 0 });
  assertEquals(tunings.map(({ class: of }) => of), [OF, "nn, few rows"]);
  assertEquals(tunings[0]!.shape, SHAPE);
  assert(tunings.every(({ tiles }) => tiles[0]!.gflops! > 0));
  device.destroy();
});

Deno.test("tiles that spill the registers of a GPU are candidates on software drivers alone", () => {
  const of = (lanes: number) => candidates(new DeviceContext(recordingDevice().device, { lanes }), "nt, large");
  for (const tile of ["register 16x8", "register 16x16"] as const) {
    assertEquals([of(8).includes(tile), of(32).includes(tile)], [true, false], tile);
  }
  assert(of(32).includes("workgroup 8x8"));
});
