/**
 * `saev tune`: finds the fastest matrix kernels for this device.
 *
 * @module
 */

import { defaultDevice, type ProductShape, tune, type Tuning } from "../kernels/mod.ts";
import { adapterName, TunerFile } from "../runner/mod.ts";
import { type Arguments, type Command, print, say, table } from "./command.ts";

/** The command. */
export const tuneCommand: Command = {
  summary: "Find the fastest matrix kernels for this machine and remember them.",
  positionals: [],
  options: {
    "batch-size": { value: "N", help: "rows per step (default: 1024)" },
    "d-model": { value: "N", help: "width of the rows (default: 768)" },
    "d-sae": { value: "N", help: "number of latents (default: 6144)" },
    budget: {
      value: "SECONDS",
      help: "time after which no further candidate starts, for each kind of product (default: 60)",
    },
    json: { help: "print JSON" },
  },
  permissions:
    `none. To remember the results: --allow-env=HOME,XDG_CACHE_HOME, and --allow-read and --allow-write for the
cache folder.`,
  details: `Tuning is optional: there are defaults, and every kernel gives the same bits. The results go to a file in
the cache folder (XDG_CACHE_HOME, or ~/.cache), where demo, train and evaluate look for it.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const [B, D, S] = [
    args.integer("batch-size", 1) ?? 1024,
    args.integer("d-model", 1) ?? 768,
    args.integer("d-sae", 1) ?? 6144,
  ];
  const budget = args.number("budget", 0) ?? 60;
  // The encoder, the dense decoder and its gradient; the encoder of a small model, and that of a few rows.
  const shapes: ProductShape[] = [
    { layout: "nt", M: B, N: S, K: D },
    { layout: "nn", M: B, N: D, K: S },
    { layout: "tn", M: S, N: D, K: B },
    { layout: "nt", M: 512, N: 512, K: 100 },
    { layout: "nt", M: Math.min(B, 8), N: S, K: D },
  ];
  const [device, store] = [await defaultDevice(), await TunerFile.open()];
  const tunings = await tune(device, { store, shapes, budget, signal });
  const adapter = adapterName(device);
  const { path, problem } = store;
  if (args.flag("json")) await print(JSON.stringify({ adapter, file: problem === null ? path : null, tunings }));
  else {
    await print([adapter, ...tunings.map(describeTuning)].join("\n\n"));
    if (path === null) say("found no cache folder; the results were not saved");
    else if (problem === null) say(`saved to ${path}`);
  }
  if (problem !== null) say(`the results were not saved: ${problem}`);
  return 0;
}

function describeTuning({ class: of, shape: { M, N, K }, chosen, default: usual, tiles }: Tuning): string {
  const rows = tiles.map(({ tile, state, gflops, compileMs }): [string, string] => {
    const speed = gflops === null ? "" : `${gflops.toFixed(1).padStart(8)} GFLOP/s`;
    const compiled = compileMs === null ? "" : `${(compileMs / 1000).toFixed(1).padStart(6)} s to compile`;
    const notes = [
      ...tile === chosen ? ["chosen"] : [],
      ...tile === usual ? ["default"] : [],
      ...state === "timed" ? [] : [state],
    ];
    return [tile, `${speed.padEnd(18)}${compiled.padEnd(22)}${notes.join(", ")}`.trimEnd()];
  });
  return `${of}: ${M} × ${N} × ${K}\n${table(rows)}`;
}
