/**
 * The record of a run: when it was trained, with which versions, on which adapter, on which rows.
 *
 * @module
 */

import { VERSION } from "../io/checkpoints/saev_schemas.ts";
import { mayUse } from "../io/disk.ts";
import type { ResolvedDefaults } from "./defaults.ts";
import type { DataFingerprint } from "./fingerprint.ts";

/** One start or resume of a run. */
export interface RunSession {
  /** The time, in ISO 8601. */
  readonly date: string;
  /** Steps done before. */
  readonly step: number;
  /** The version of this package. */
  readonly package: string;
  /** The version of Deno and its target. */
  readonly deno: string;
  /** What the adapter reports about itself. */
  readonly adapter: Readonly<Record<string, string>>;
  /** The driver's version, if the system reports it, and the variables that select a driver. */
  readonly driver: Readonly<Record<string, string>>;
  /** The rows. */
  readonly data: DataFingerprint & { readonly path: string };
  /** Defaults set from the length of the run. */
  readonly resolved: ResolvedDefaults;
  /** The hash of the earlier rows, if the run was resumed with other rows. */
  readonly changed_data?: { readonly from: string };
  /** The checkpoint that the run started from, if it did not start from random numbers. */
  readonly init_from?: { readonly path: string; readonly sha256: string };
}

/** The session that begins now. */
export async function newSession(
  device: GPUDevice,
  given: Pick<RunSession, "step" | "data" | "resolved" | "changed_data" | "init_from">,
): Promise<RunSession> {
  const { vendor, architecture, device: model, description } = device.adapterInfo;
  return {
    date: new Date().toISOString(),
    package: VERSION,
    deno: `${Deno.version.deno} ${Deno.build.target}`,
    adapter: { vendor, architecture, device: model, description },
    driver: await driver(),
    ...given,
  };
}

/** Variables that select the driver. */
const VARIABLES = ["DENO_WEBGPU_BACKEND", "VK_DRIVER_FILES", "VK_ICD_FILENAMES", "SAEV_SOFTWARE_DRIVER"];

async function driver(): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  // WebGPU reports no driver versions; NVIDIA's kernel module does.
  const module = "/sys/module/nvidia/version";
  const nvidia = mayUse(module, "read") ? await Deno.readTextFile(module).catch(() => "") : "";
  if (nvidia !== "") found.nvidia = nvidia.trim();
  for (const variable of VARIABLES) {
    const { state } = await Deno.permissions.query({ name: "env", variable });
    const value = state === "granted" ? Deno.env.get(variable) : undefined;
    if (value) found[variable] = value;
  }
  return found;
}
