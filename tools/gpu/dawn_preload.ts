/**
 * Makes Dawn the WebGPU of a process, before anything else runs: `deno test --preload=tools/gpu/dawn_preload.ts`.
 *
 * @module
 */

import { useDawn } from "./dawn.ts";

await useDawn();
