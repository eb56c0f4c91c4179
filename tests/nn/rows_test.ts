/**
 * Rows know their width: every entrance refuses rows of another, and gives of rows and of sources what it gives of arrays.
 *
 * @module
 */

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ShapeError } from "../../kernels/engine/errors.ts";
import { Tensor } from "../../kernels/engine/tensor.ts";
import type { Batch, RowSource } from "../../nn/rows.ts";
import { countRows, SparseAutoencoder } from "../../nn/sparse_autoencoder.ts";
import { TrainState } from "../../nn/state.ts";
import { getObjective } from "../../objectives/objective.ts";
import { rowsOf } from "../../data/rows.ts";
import { batchesInOrder, shuffledBatches } from "../../data/order.ts";
import { evaluate } from "../../eval/evaluate.ts";
import { train, trainMany } from "../../train/train.ts";
import { sharedDevice } from "../support/gpu.ts";
import { Random } from "../support/random.ts";
import { assertExact, assertScalarClose } from "../support/tolerance.ts";

const D = 6;
const CFG = { d_model: D, d_sae: 20, activation: { key: "top-k", top_k: 3 } } as const;
const OBJECTIVE = getObjective({ key: "vanilla" });
const DATA = new Random(1).normal(40 * D);

async function newModel(): Promise<SparseAutoencoder> {
  return await SparseAutoencoder.create(CFG, { device: await sharedDevice() });
}

/** Trains on some batches, and says what became of the model. */
async function trained(batches: Parameters<typeof train>[2], options: Parameters<typeof train>[3] = {}) {
  using sae = await newModel();
  for await (const _ of train(sae, OBJECTIVE, batches, { lr: 1e-2, n_lr_warmup: 0, ...options }));
  return await sae.readParameters();
}

const ENTRANCES: Readonly<Record<string, (sae: SparseAutoencoder, rows: Batch) => unknown>> = {
  encode: (sae, rows) => sae.encode(rows),
  forward: (sae, rows) => sae.forward(rows),
  initBDec: (sae, rows) => sae.initBDec(rows),
  create: async (_, rows) => {
    using _sae = await SparseAutoencoder.create(CFG, {
      device: await sharedDevice(),
      data: { x: rows as Float32Array },
    });
  },
  loss: (sae, rows) => OBJECTIVE.loss(sae, rows),
  lossAndGradients: (sae, rows) => {
    using state = new TrainState(sae);
    using _loss = OBJECTIVE.lossAndGradients(sae, rows, { state }).loss;
  },
  train: (sae, rows) => train(sae, OBJECTIVE, [rows]).next(),
  trainMany: (sae, rows) => trainMany([{ sae, objective: OBJECTIVE }], [rows]).next(),
  validation: (sae, rows) =>
    train(sae, OBJECTIVE, [new Float32Array(D)], { validation: { every: 1, batches: () => [rows] } }).next(),
  evaluate: (sae, rows) => evaluate(sae, [rows]),
};

for (const [name, enter] of Object.entries(ENTRANCES)) {
  Deno.test(`${name} refuses rows of another width, also where they are whole rows of its own`, async () => {
    using sae = await newModel();
    const x = new Float32Array(2 * D * 4);
    using tensor = Tensor.from(sae.context, x, [4, 2 * D], "x");
    for (const rows of [{ x, d_model: 2 * D }, { x: tensor, d_model: 2 * D }]) {
      await assertRejects(async () => await enter(sae, rows), ShapeError, `rows of d_model ${2 * D}`);
    }
  });
}

const SOURCES: Readonly<Record<string, (sae: SparseAutoencoder, source: RowSource) => unknown>> = {
  loss: (sae, source) => OBJECTIVE.loss(sae, source),
  train: (sae, source) => train(sae, OBJECTIVE, source, { n_steps: 1 }).next(),
  trainMany: (sae, source) => trainMany([{ sae, objective: OBJECTIVE }], source, { n_steps: 1 }).next(),
  evaluate: (sae, source) => evaluate(sae, source),
};

for (const [name, enter] of Object.entries(SOURCES)) {
  Deno.test(`${name} refuses a source of another width before it reads any of it`, async () => {
    using sae = await newModel();
    const unread = { n_rows: 40, d_model: 2 * D, read: () => Promise.reject(new Error("it was read")) };
    await assertRejects(async () => await enter(sae, unread), ShapeError, `rows of d_model ${2 * D}`);
  });
}

Deno.test("rows, bare arrays, tensors and rows of tensors are the same", async () => {
  using sae = await newModel();
  using tensor = Tensor.from(sae.context, DATA, [40, D], "x");
  const kinds: readonly Batch[] = [DATA, { x: DATA, d_model: D }, tensor, { x: tensor, d_model: D }];
  const found = [];
  for (const x of kinds) {
    assertEquals(countRows(x, sae), 40);
    using out = sae.forward(x);
    const loss = await OBJECTIVE.loss(sae, x);
    found.push([await out.x_hat.read(), loss, await evaluate(sae, [x]), await trained([DATA, x])]);
    await sae.initBDec(x);
    found.at(-1)!.push(await sae.parameters.b_dec.read());
    sae.parameters.b_dec.write(new Float32Array(D));
  }
  for (const one of found) assertEquals(one, found[0]);
  const data = [{ x: DATA }, { x: { x: DATA, d_model: D } }];
  const made = [];
  for (const x of data) {
    using again = await SparseAutoencoder.create(CFG, { device: await sharedDevice(), data: x });
    made.push(await again.readParameters());
  }
  assertEquals(made[1], made[0]);
});

Deno.test("numbers and labels of other than every row are refused, as is what is no rows at all", async () => {
  using sae = await newModel();
  const rows = { x: new Float32Array(2 * D), d_model: D };
  assertThrows(() => sae.encode({ ...rows, index: new Float64Array(3) }), ShapeError, "each of 2 rows, found 3");
  assertThrows(() => sae.encode({ ...rows, labels: new Int32Array(1) }), ShapeError, "labels must have one");
  assertThrows(() => sae.encode({ ...rows, x: new Float32Array(2 * D + 1) }), ShapeError, "found 13 values");
  for (const wrong of [[1, 2], null, undefined, 3, {}, { x: [1], d_model: D }] as unknown as Batch[]) {
    assertThrows(() => sae.encode(wrong), TypeError, "x must be Rows, a Float32Array or a Tensor");
  }
});

Deno.test("a batch alone is no batches, and the error says what is", async () => {
  using sae = await newModel();
  const alone = [DATA, { x: DATA, d_model: D }, undefined, 3, "x"] as unknown as Batch[][];
  for (const batches of alone) {
    for (const work of [() => train(sae, OBJECTIVE, batches).next(), () => evaluate(sae, batches)]) {
      await assertRejects(work, TypeError, "or a source of rows, found");
    }
  }
});

Deno.test("the loss of a source is that of all its rows at once, and its metrics are those of its batches", async () => {
  const n_rows = 2100;
  const x = new Random(2).normal(n_rows * D);
  const source = rowsOf(x, D);
  const sparsity = { key: "target-l0-sparsity", coeff: 0.3, target_l0: 4 } as const;
  for (const activation of [{ key: "relu" }, { key: "jump-relu", sparsity }] as const) {
    using sae = await SparseAutoencoder.create({ ...CFG, activation }, { device: await sharedDevice() });
    for (const prefixes of [[20], [3, 11, 20]]) {
      const [whole, parts] = [
        await OBJECTIVE.loss(sae, x, { prefixes }),
        await OBJECTIVE.loss(sae, source, { prefixes }),
      ];
      for (const name of ["loss", "mse", "sparsity", "l0", "l1", "aux", "n_dead", "sparsity_coeff"] as const) {
        assertScalarClose(parts[name], whole[name], `${activation.key}, ${name}`);
      }
    }
    assertEquals(await evaluate(sae, source), await evaluate(sae, [x]));
  }
  using sae = await newModel();
  await assertRejects(() => OBJECTIVE.loss(sae, rowsOf(new Float32Array(), D)), RangeError, "at least one row");
  await assertRejects(() => evaluate(sae, rowsOf(new Float32Array(), D)), RangeError, "at least one row");
});

Deno.test("a source trains as its shuffled batches do, and a resumed run continues in its order", async () => {
  const source = rowsOf(DATA, D);
  const [n_steps, order] = [7, { batch_size: 16, seed: 3 }];
  const want = await trained(shuffledBatches(source, { ...order, n_steps }), { n_steps });
  const found = await trained(source, { ...order, n_steps });
  for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) assertExact(found[name], want[name], name);

  using sae = await newModel();
  using state = new TrainState(sae);
  const options = { lr: 1e-2, n_lr_warmup: 0, n_steps, ...order, state };
  for await (const { step } of train(sae, OBJECTIVE, source, { ...options, log_every: 3 })) if (step === 3) break;
  for await (const _ of train(sae, OBJECTIVE, source, options));
  const resumed = await sae.readParameters();
  for (const name of ["W_enc", "b_enc", "W_dec", "b_dec"] as const) assertExact(resumed[name], want[name], name);
});

Deno.test("a source needs an end, and batches have a size and an order already", async () => {
  using sae = await newModel();
  const source = rowsOf(DATA, D);
  await assertRejects(() => train(sae, OBJECTIVE, source).next(), TypeError, "give n_steps");
  for (const option of [{ batch_size: 8 }, { seed: 1 }]) {
    const [name] = Object.keys(option);
    await assertRejects(() => train(sae, OBJECTIVE, [DATA], option).next(), TypeError, `${name} says how a source`);
  }
  const none = () => train(sae, OBJECTIVE, source, { n_steps: 1, batch_size: 0 }).next();
  await assertRejects(none, RangeError, "batch_size must be an integer of at least 1");
  const validation = { every: 1, batches: () => source };
  const [report] = await Array.fromAsync(train(sae, OBJECTIVE, [DATA], { validation }));
  assertEquals(report!.validation, await evaluate(sae, batchesInOrder(source, 40)));
});
