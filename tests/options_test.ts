/** An unknown option is refused, with the one that was meant, by every public function that takes options. @module */

import { assertEquals, assertStringIncludes } from "@std/assert";
import { examineRows, openRows, openShards, patchLabels, rowsOf, shuffledBatches } from "../data/mod.ts";
import {
  evaluate,
  fitProbes,
  type LabelledCodes,
  measureCoherence,
  measureStability,
  openFeatures,
  readAnnotations,
  stabilityMember,
  topRows,
} from "../eval/mod.ts";
import * as io from "../io/mod.ts";
import { contextOf, DeviceContext, tune } from "../kernels/mod.ts";
import * as nn from "../mod.ts";
import * as runner from "../runner/mod.ts";
import { fitKMeans, fitPca, train, trainMany } from "../train/mod.ts";
import { sharedDevice } from "./support/gpu.ts";

const ROOT = new URL("../", import.meta.url);
const MODULES = ["", "data/", "eval/", "io/", "kernels/", "runner/", "train/"].map((folder) => `${folder}mod.ts`);

/** What types of options are called. */
const OPTIONS = /(?:Options|Surroundings)$/;

/** A configuration, whose fields its own table checks; where a GPU is looked for; and an error that only training makes. */
const OTHERS = new Set(["getObjective", "requestDevice", "DivergenceError"]);

/** A call with unknown options, by the function's name. */
const CALLS: Readonly<Record<string, (given: Given) => unknown>> = {
  examineRows: ({ wrong }) => examineRows(new Float32Array(4), 2, wrong),
  rowsOf: ({ wrong }) => rowsOf(new Float32Array(4), 2, wrong),
  shuffledBatches: ({ wrong, rows }) => shuffledBatches(rows, { batch_size: 1, n_steps: 1, ...wrong }).next(),
  openRows: ({ wrong }) => openRows("nowhere", wrong),
  openShards: ({ wrong }) => openShards("nowhere", wrong),
  patchLabels: ({ wrong }) =>
    patchLabels(new Uint8Array(4), { width: 2, patch_size: 1, pixel_agg: "majority", ...wrong }),
  evaluate: ({ wrong, sae, rows }) => evaluate(sae, rows, wrong),
  measureCoherence: ({ wrong, sae }) => measureCoherence(sae, wrong),
  topRows: ({ wrong, sae, rows }) => topRows(sae, rows, wrong),
  measureStability: ({ wrong }) => measureStability([], wrong),
  stabilityMember: ({ wrong, sae }) => stabilityMember(sae, wrong),
  openFeatures: ({ wrong }) => openFeatures("nowhere", wrong),
  load: ({ wrong }) => io.load("nowhere", wrong),
  readCheckpoint: ({ wrong }) => io.readCheckpoint("nowhere", wrong),
  inspectCheckpoint: ({ wrong }) => io.inspectCheckpoint("nowhere", wrong),
  parseCheckpoint: ({ wrong }) => io.parseCheckpoint(io.bytesSource(new Uint8Array()), wrong),
  openSource: ({ wrong }) => io.openSource("nowhere", wrong),
  openFiles: ({ wrong }) => io.openFiles("nowhere", wrong),
  openNpz: ({ wrong }) => io.openNpz(io.bytesSource(new Uint8Array()), wrong),
  dump: ({ wrong, sae }) => io.dump("/nowhere/sae.pt", sae, wrong),
  dumpBytes: ({ wrong, sae }) => io.dumpBytes(sae, wrong),
  formatCheckpoint: ({ wrong, model: { cfg, parameters, input } }) =>
    io.formatCheckpoint(cfg, parameters, input, wrong),
  findTargets: ({ wrong }) => io.findTargets("nowhere", { format: "saev", ...wrong }),
  formatModel: ({ wrong, model }) => io.formatModel(model, { format: "saev", ...wrong }),
  writeCheckpoint: ({ wrong, model }) => io.writeCheckpoint("/nowhere/sae.pt", model, { format: "saev", ...wrong }),
  tune: ({ wrong, sae }) => tune(sae.device, { shapes: [], ...wrong }),
  DeviceContext: ({ wrong, sae }) => new DeviceContext(sae.device, wrong),
  Tensor: ({ wrong, sae }) => new nn.Tensor(contextOf(sae.device), "f32", [1], "one", wrong),
  create: ({ wrong, model: { cfg } }) => nn.SparseAutoencoder.create(cfg, wrong),
  fromParameters: ({ wrong, model: { cfg, parameters } }) =>
    nn.SparseAutoencoder.fromParameters(cfg, parameters, wrong),
  fromPieces: ({ wrong, model: { cfg }, sae }) => nn.SparseAutoencoder.fromPieces(cfg, sae.readPieces(), wrong),
  ParameterTensors: ({ wrong, sae }) =>
    new nn.ParameterTensors(contextOf(sae.device), { d_model: 1, d_sae: 1, own: [] }, "", wrong),
  TrainState: ({ wrong, sae }) => new nn.TrainState(sae, wrong),
  loss: ({ wrong, sae, rows }) => nn.getObjective({ key: "vanilla" }).loss(sae, rows, wrong),
  lossAndGradients: ({ wrong, sae }) => {
    using state = new nn.TrainState(sae);
    return nn.getObjective({ key: "vanilla" }).lossAndGradients(sae, new Float32Array(2), { state, ...wrong });
  },
  meanSquaredErr: ({ wrong, sae }) => {
    using x = new nn.Tensor(contextOf(sae.device), "f32", [1], "one");
    return nn.meanSquaredErr(x, x, wrong);
  },
  train: ({ wrong, sae }) => train(sae, nn.getObjective({ key: "vanilla" }), [], wrong).next(),
  trainMany: ({ wrong, sae }) => trainMany([{ sae, objective: nn.getObjective({ key: "vanilla" }) }], [], wrong).next(),
  configText: ({ wrong }) => runner.configText(wrong),
  completeSweep: ({ wrong }) => runner.completeSweep({}, wrong),
  open: ({ wrong }) => runner.RunDirectory.open("/nowhere", wrong),
  openDemo: ({ wrong }) => runner.RunDirectory.openDemo("/nowhere", wrong),
  openSweep: ({ wrong }) => runner.RunDirectory.openSweep("/nowhere", 2, wrong),
  openTask: ({ wrong }) => runner.RunDirectory.openTask("/nowhere", { n_runs: 2, places: [0], ...wrong }),
  collectSweep: ({ wrong }) => runner.collectSweep("/nowhere", {}, wrong),
  stageRows: ({ wrong }) => runner.stageRows("/nowhere", "/nowhere", wrong),
  runSweep: ({ wrong }) => runner.runSweep([], wrong),
  runTraining: ({ wrong, rows }) =>
    runner.runTraining(runner.completeRunConfig({ data: { path: "nowhere" } }), rows, wrong as runner.RunOptions),
  extractToShards: ({ wrong }) => runner.extractToShards({} as runner.ExtractionPlan, wrong),
  readAnnotations: ({ wrong }) => readAnnotations("nowhere", wrong),
  fitPca: ({ wrong, rows }) => fitPca(rows, { n_components: 1, ...wrong }),
  fitKMeans: ({ wrong, rows }) => fitKMeans(rows, { n_clusters: 1, ...wrong }),
  fitProbes: ({ wrong }) => fitProbes({} as LabelledCodes, wrong),
  openLabels: ({ wrong }) => runner.openLabels("nowhere", wrong),
  makeFeatures: ({ wrong }) => runner.makeFeatures({} as runner.FeaturesPlan, wrong, () => Promise.resolve()),
  compareStability: ({ wrong }) => runner.compareStability([], wrong),
  encodeToFolder: ({ wrong }) => runner.encodeToFolder({} as runner.EncodingPlan, wrong),
  findBadImages: ({ wrong }) =>
    runner.findBadImages({ root: "", paths: [], classes: null }, {} as never, {} as never, wrong),
  CountLine: ({ wrong }) => new runner.CountLine("rows", 1, wrong),
  DownloadLine: ({ wrong }) => new runner.DownloadLine(wrong),
  ProgressLine: ({ wrong }) => new runner.ProgressLine({ batch_size: 1, ...wrong }),
  RunTable: ({ wrong }) => new runner.RunTable({ runs: [], ...wrong }),
};

/** What calls are made with. */
interface Given {
  /** Options of which there are none. */
  readonly wrong: Record<never, never>;
  readonly sae: nn.SparseAutoencoder;
  readonly model: io.ParsedCheckpoint;
  readonly rows: nn.RowSource;
}

/** A part of what `deno doc --json` says. */
interface Parameter {
  readonly kind: string;
  readonly optional?: boolean;
  readonly left?: Parameter;
  readonly tsType?: { readonly kind: string; readonly value: { readonly typeName?: string } };
}
interface Callable {
  readonly name: string;
  readonly accessibility?: string;
  readonly params?: readonly Parameter[];
  readonly functionDef?: { readonly params: readonly Parameter[] };
}
interface Declaration {
  readonly kind: string;
  readonly def: {
    readonly params?: readonly Parameter[];
    readonly constructors?: Callable[];
    readonly methods?: Callable[];
  };
}

/** Whether a parameter is an object of options. */
function isOptions({ kind, optional, left, tsType = left?.tsType }: Parameter): boolean {
  const isOptional = kind === "assign" || optional === true;
  const name = tsType?.kind === "typeRef" ? tsType.value.typeName ?? "" : "";
  return OPTIONS.test(name) ||
    isOptional && (name === "Omit" || ["typeLiteral", "intersection"].includes(tsType?.kind ?? ""));
}

/** The public functions, methods and constructors that take options. */
async function takingOptions(): Promise<Set<string>> {
  const args = ["doc", "--json", ...MODULES];
  const { stdout } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT, stderr: "null" }).output();
  const { nodes } = JSON.parse(new TextDecoder().decode(stdout)) as {
    nodes: Record<string, { symbols: { name: string; declarations: Declaration[] }[] }>;
  };
  const found = new Set<string>();
  const add = (name: string, params: readonly Parameter[] = []) => void (params.some(isOptions) && found.add(name));
  for (const { name, declarations } of Object.values(nodes).flatMap(({ symbols }) => symbols)) {
    for (const { kind, def } of declarations) {
      if (kind === "function") add(name, def.params);
      if (kind !== "class") continue;
      for (const { accessibility, params } of def.constructors ?? []) accessibility || add(name, params);
      for (const method of def.methods ?? []) {
        if (!method.accessibility) add(method.name, method.functionDef?.params ?? method.params);
      }
    }
  }
  return found;
}

Deno.test("every public function with options is among those that are called here", async () => {
  const found = (await takingOptions()).difference(OTHERS);
  assertEquals([...found.difference(new Set(Object.keys(CALLS)))], [], "add a call of each to CALLS");
});

Deno.test("an unknown option is refused before anything is done", async (t) => {
  using sae = await nn.SparseAutoencoder.create({ d_model: 2, d_sae: 4 }, { device: await sharedDevice() });
  const { cfg, input } = sae;
  const given = {
    wrong: { singal: new AbortController().signal },
    sae,
    model: { cfg, parameters: await sae.readParameters(), input },
    rows: rowsOf(new Float32Array(4), 2),
  };
  for (const [name, call] of Object.entries(CALLS)) {
    await t.step(name, async () => {
      let thrown: unknown;
      try {
        await call(given);
      } catch (error) {
        thrown = error;
      }
      assertEquals(thrown instanceof TypeError, true, `${name}: ${thrown}`);
      assertStringIncludes((thrown as Error).message, 'has no option "singal"; ');
    });
  }
});

Deno.test("an unknown option of the hub is refused too", async () => {
  const hub = { chache: null } as io.HubOptions;
  for (const open of [io.load, io.readCheckpoint, io.inspectCheckpoint, io.openFiles, openRows, openShards]) {
    let message = "";
    await open("nowhere", { hub }).catch((error) => message = String(error));
    assertEquals(message, 'TypeError: hub has no option "chache"; did you mean cache?', open.name);
  }
});
