/**
 * `saev demo`: trains on the package's photographs and writes a report.
 *
 * @module
 */

import { DEMO_DEFAULTS, demoActivations, type DemoOptions, runDemo, SLOW_DRIVER_STEPS } from "../examples/demo/demo.ts";
import { ownPhotographs } from "../examples/demo/own_photographs.ts";
import { runVitDemo, VIT_DEMO_DEFAULTS } from "../examples/demo/vit_demo.ts";
import { modelSize } from "../runner/mod.ts";
import { type Arguments, type Command, say, UsageError } from "./command.ts";
import { openDecoder } from "./runtimes.ts";
import { TUNED, useTuning } from "./tuning.ts";
import { openVision, preprocessingOf, VISION_OPTIONS } from "./vision.ts";

const ACTIVATIONS = demoActivations(DEMO_DEFAULTS.top_k).map(({ key }) => key);

/** The command. */
export const demoCommand: Command = {
  summary: "Train on photographs and show what the model learned.",
  positionals: [],
  options: {
    photos: { value: "DIR", help: "folder of your own images (default: the photographs in the package)" },
    vit: { value: "MODEL", help: "with --photos: train on the activations of this vision model, an ONNX file" },
    layer: { value: "NAME", help: "with --vit: tensor to train on; saev activations --list-layers lists them" },
    ...VISION_OPTIONS,
    out: {
      value: "DIR",
      help: `output folder for sae.pt, metrics.json, features.png, report.html (default: ${DEMO_DEFAULTS.out})`,
    },
    resume: { help: "continue a demo that was stopped in that folder, with the same options" },
    steps: {
      value: "N",
      help: `training steps (default: ${DEMO_DEFAULTS.steps}; ${SLOW_DRIVER_STEPS} on SwiftShader)`,
    },
    seed: {
      value: "N",
      help: `seed of the initial values and the order of the patches (default: ${DEMO_DEFAULTS.seed})`,
    },
    activation: { value: "KEY", help: `${ACTIVATIONS.join(", ")} (default: ${DEMO_DEFAULTS.activation})` },
    "d-sae": { value: "N", help: `number of latents (default: ${DEMO_DEFAULTS.d_sae})` },
    "top-k": { value: "N", help: `active latents per patch (default: ${DEMO_DEFAULTS.top_k})` },
    "batch-size": { value: "N", help: `patches per step (default: ${DEMO_DEFAULTS.batch_size})` },
    lr: { value: "X", help: `peak learning rate (default: ${DEMO_DEFAULTS.lr})` },
  },
  permissions:
    `--allow-read=DIR,examples/demo/photos --allow-write=DIR; --allow-net=jsr.io if the package was loaded from
jsr.io; all (-A) with --photos, which loads native code. To use the results of saev tune: --allow-env=HOME,XDG_CACHE_HOME and --allow-read for the cache folder.`,
  details:
    `The demo trains on three quarters of the photographs and evaluates on the rest: a run like those of saev train, which
saev compare shows too. The npm package sharp reads your
own images; the first run downloads it (17 MB). If there are more than 200 images, the demo uses 200 of them.

With --vit the rows are the patch activations of a vision transformer on all images, and the report shows heat maps of
what activates each latent. The defaults are then 1024 latents, 16 active per patch, and 1000 steps of 1024 patches.`,
  run,
};

async function run(args: Arguments, signal: AbortSignal): Promise<number> {
  const variable = "SAEV_SOFTWARE_DRIVER";
  const mayAsk = Deno.permissions.querySync({ name: "env", variable }).state === "granted";
  const isSlow = mayAsk && Deno.env.get(variable) === "swiftshader";
  const steps = args.integer("steps", 1);
  const given = {
    out: args.text("out"),
    steps: steps ?? (isSlow ? SLOW_DRIVER_STEPS : undefined),
    seed: args.integer("seed", 0),
    activation: args.choice("activation", ACTIVATIONS),
    d_sae: args.integer("d-sae", 1),
    top_k: args.integer("top-k", 1),
    batch_size: args.integer("batch-size", 1),
    lr: args.number("lr", 0),
  };
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  const options = { ...Object.fromEntries(set), resumes: args.flag("resume") };
  if (isSlow && steps === undefined) {
    say(
      `SwiftShader is about ten times slower than Mesa: running ${SLOW_DRIVER_STEPS} steps, not ${DEMO_DEFAULTS.steps}`,
    );
  }
  if (await useTuning()) say(TUNED);
  const [model, layer] = [args.text("vit"), args.text("layer")];
  const photos = args.text("photos");
  if ((model === undefined) !== (layer === undefined)) throw new UsageError("--vit and --layer must be given together");
  if (model !== undefined && layer !== undefined) {
    if (photos === undefined) throw new UsageError("--vit needs --photos, a folder of images");
    if (given.activation !== undefined) throw new UsageError("--vit always uses top-k; leave out --activation");
    const vision = await openVision(args, model);
    const preprocessing = await preprocessingOf(args, model, modelSize(vision.model));
    const asked = { ...VIT_DEMO_DEFAULTS, ...options as Partial<DemoOptions> };
    const result = await runVitDemo({ ...asked, photos, vision, layer, preprocessing, openDecoder }, { say, signal });
    if (result === null) throw signal.reason;
    return 0;
  }
  const photographs = photos === undefined ? undefined : await ownPhotographs(photos, openDecoder);
  if (photographs) {
    const { n_found, training, heldOut } = photographs;
    say(`using ${training.length + heldOut.length} of the ${n_found} images in ${photos}`);
  }
  const surroundings = { say, signal, ...photographs && { photographs } };
  const result = await runDemo({ ...DEMO_DEFAULTS, ...options as Partial<DemoOptions> }, surroundings);
  if (result === null) throw signal.reason;
  return 0;
}
