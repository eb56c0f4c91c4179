/**
 * The state of training is saved and restored as a whole, and only for a model that it fits.
 *
 * @module
 */

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { narrow, PARAMETER_NAMES } from "../reference/model.ts";
import { randomParameters } from "../reference/problems.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertSameBits } from "../support/tolerance.ts";

const SIZES = { d_model: 12, d_sae: 37 };

Deno.test("a fresh state has seen nothing", async () => {
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  using state = new TrainState(sae, { seed: 7 });
  const data = await state.read();
  assertEquals([data.step, data.n_tokens, data.seed], [0, 0, 7]);
  assertEquals([data.control, data.controlledL0, data.thresholdSeen, data.stepsAbove], [0, 0, 0, 0]);
  assertExact(data.recentErrors, new Float32Array(16));
  assertExact(data.tokens_since_active, new Uint32Array(37));
  for (const name of PARAMETER_NAMES) {
    assertExact(data.moment1[name], new Float32Array(data.moment1[name].length), name);
    assertExact(data.moment2[name], new Float32Array(data.moment2[name].length), name);
  }
});

Deno.test("what is read is restored, bit by bit", async () => {
  const random = new Random(1);
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  const data = {
    step: 12,
    n_tokens: 345,
    seed: 6,
    optimizer: "adam" as const,
    moment1: narrow(randomParameters(random, { D: 12, S: 37 })),
    moment2: narrow(randomParameters(random, { D: 12, S: 37 })),
    tokens_since_active: random.permutation(37),
    recentErrors: random.normal(16).map(Math.abs),
    stepsAbove: 2,
    control: -1.5,
    controlledL0: 20,
    thresholdSeen: 0.75,
  };
  using state = TrainState.restore(sae, data);
  const again = await state.read();
  assertEquals([again.step, again.n_tokens, again.seed, again.stepsAbove], [12, 345, 6, 2]);
  assertSameBits(again.recentErrors, data.recentErrors, "recentErrors");
  assertEquals([again.control, again.controlledL0, again.thresholdSeen], [-1.5, 20, 0.75]);
  assertExact(again.tokens_since_active, data.tokens_since_active);
  for (const name of PARAMETER_NAMES) {
    assertSameBits(again.moment1[name], data.moment1[name], name);
    assertSameBits(again.moment2[name], data.moment2[name], name);
  }
});

Deno.test("Muon's state has no second moments of the matrices, and is restored as it was", async () => {
  const random = new Random(2);
  using sae = await SparseAutoencoder.create(SIZES, { device: await sharedDevice() });
  using fresh = new TrainState(sae, { optimizer: "muon" });
  const [moment1, moment2] = [1, 2].map(() => narrow(randomParameters(random, { D: 12, S: 37 })));
  const none = { W_enc: new Float32Array(0), W_dec: new Float32Array(0) };
  const data = { ...await fresh.read(), moment1: moment1!, moment2: { ...moment2!, ...none } };
  using state = TrainState.restore(sae, structuredClone(data));
  const again = await state.read();
  assertEquals([fresh.optimizer, again.optimizer], ["muon", "muon"]);
  for (const name of PARAMETER_NAMES) {
    assertSameBits(again.moment1[name], data.moment1[name], name);
    assertSameBits(again.moment2[name], data.moment2[name], name);
  }
  // Each optimizer refuses the other's moments.
  assertThrows(() => TrainState.restore(sae, { ...data, optimizer: "adam" }), ShapeError, "second moment of W_dec");
  assertThrows(() => TrainState.restore(sae, { ...data, moment2: moment2! }), ShapeError, "has 0 values, found 444");
  const unknown = "sgd" as "adam";
  assertThrows(() => new TrainState(sae, { optimizer: unknown }), RangeError, 'adam or muon, found "sgd"');
});

Deno.test("a state of another model is refused, and one that was disposed of is named", async () => {
  const device = await sharedDevice();
  using sae = await SparseAutoencoder.create(SIZES, { device });
  using other = await SparseAutoencoder.create({ ...SIZES, d_sae: 38 }, { device });
  const state = new TrainState(sae);
  const data = await state.read();
  assertThrows(() => TrainState.restore(other, data), ShapeError, "38");
  const tokens_since_active = new Uint32Array(38);
  assertThrows(() => TrainState.restore(other, { ...data, tokens_since_active }), ShapeError);
  state[Symbol.dispose]();
  await assertRejects(() => state.read(), Error, "was used after it was disposed of");
});
