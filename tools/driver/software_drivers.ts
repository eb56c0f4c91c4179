/**
 * Where a machine without a working GPU driver gets a software one from: Mesa's by the package manager, the same
 * packages unpacked into a cache folder when there is no root, or SwiftShader out of an npm package.
 *
 * @module
 */
import {
  CHROMIUM_PACKAGE,
  CHROMIUM_VERSION,
  chromiumPackageObstacle,
  unpackChromiumPackage,
} from "./chromium_package.ts";
import { findEntry, NON_INTERACTIVE, registerUnpacked, unpackDebianPackages } from "./debian_packages.ts";
import { must, type Run } from "./programs.ts";
import { fillFolder } from "./user_cache.ts";

/** Environment variables that select a driver. */
export type Environment = Record<string, string>;

/** The machine, as far as looking for a driver touches it. */
export interface Machine {
  /** Whether system packages may be installed. */
  readonly isRoot: boolean;
  /** A folder of this user's own for what is fetched. */
  readonly cache: string;
  /** The folder where system packages register Vulkan drivers. */
  readonly vulkanFolder: string;
  /** Whether the adapter under these variables is there and computes a known answer, if `slow` as software without subgroups. */
  probe(env: Environment): Promise<"right" | "slow" | "wrong" | "none">;
  /** Runs a program to its end. */
  readonly run: Run;
  /** Tells the user. */
  say(line: string): void;
}

/** A driver that may be on the machine already, or be fetched. */
interface SoftwareDriver {
  readonly name: string;
  /** What fetching it does, for the user. */
  readonly fetching: string;
  /** The variables that select it, or `null` when it is not on the machine. */
  locate(machine: Machine): Promise<Environment | null>;
  /** Why fetching it need not be tried, or `null`. */
  obstacle(machine: Machine): string | null | Promise<string | null>;
  /** Gets it. Throws with the reason when that is impossible. */
  fetch(machine: Machine): Promise<void>;
}

/** Only this driver and, where given, these libraries. Loaders before 1.3.207 read the second name. */
export function select(icd: string, libraryFolders: readonly string[] = []): Environment {
  const env: Environment = { DENO_WEBGPU_BACKEND: "vulkan", VK_DRIVER_FILES: icd, VK_ICD_FILENAMES: icd };
  if (libraryFolders.length > 0) {
    env.LD_LIBRARY_PATH = [...libraryFolders, Deno.env.get("LD_LIBRARY_PATH")].filter(Boolean).join(":");
  }
  return env;
}

/** Debian, Ubuntu and their like have it. */
async function aptObstacle(machine: Machine): Promise<string | null> {
  return (await machine.run("apt-get", ["--version"])).success ? null : "Mesa cannot be installed without apt-get";
}

const installedMesa: SoftwareDriver = {
  name: "Mesa",
  fetching: "installing Mesa's software driver (apt-get install mesa-vulkan-drivers, about 60 MB, once)",
  async locate(machine) {
    const icd = await findEntry(machine.vulkanFolder, /^lvp_icd.*\.json$/);
    return icd === null ? null : select(icd);
  },
  async obstacle(machine) {
    return machine.isRoot ? await aptObstacle(machine) : "installing Mesa needs root";
  },
  async fetch(machine) {
    const lock = ["-o", "DPkg::Lock::Timeout=120"];
    // A third-party source that cannot be reached fails the update; Debian's own lists may be fresh all the same.
    await machine.run("apt-get", ["update", ...lock], { env: NON_INTERACTIVE });
    await must(machine.run, "apt-get", ["install", "-y", "--no-install-recommends", ...lock, "mesa-vulkan-drivers"], {
      env: NON_INTERACTIVE,
    });
  },
};

const unpackedMesa: SoftwareDriver = {
  name: "unpacked Mesa",
  fetching: "unpacking Mesa's software driver into a cache folder (Debian packages, about 60 MB, once, without root)",
  async locate(machine) {
    const folder = `${machine.cache}/mesa`;
    const icd = await findEntry(folder, /^lvp_icd\.json$/);
    if (icd === null) return null;
    return select(icd, (await Deno.readTextFile(`${folder}/library_folders`)).split("\n"));
  },
  obstacle: aptObstacle,
  fetch(machine) {
    const folder = `${machine.cache}/mesa`;
    return fillFolder(folder, async (temporary) => {
      await unpackDebianPackages(machine.run, ["libvulkan1", "mesa-vulkan-drivers"], temporary);
      await registerUnpacked("lvp", temporary, folder);
    });
  },
};

const swiftShader: SoftwareDriver = {
  name: "SwiftShader",
  fetching: `fetching SwiftShader (npm package ${CHROMIUM_PACKAGE}, about 70 MB, once; 7 to 15 times slower than Mesa)`,
  async locate(machine) {
    const folder = `${machine.cache}/swiftshader-${CHROMIUM_VERSION}`;
    const icd = await findEntry(folder, /^vk_swiftshader_icd\.json$/);
    return icd === null ? null : { ...select(icd, [folder]), SAEV_SOFTWARE_DRIVER: "swiftshader" };
  },
  obstacle: chromiumPackageObstacle,
  fetch(machine) {
    return fillFolder(
      `${machine.cache}/swiftshader-${CHROMIUM_VERSION}`,
      (temporary) => unpackChromiumPackage(machine.run, ["swiftshader.tar.br"], temporary),
    );
  },
};

const DRIVERS = [installedMesa, unpackedMesa, swiftShader];

/** What is wrong with an adapter. */
const COMPLAINTS = {
  none: "no GPU adapter found",
  wrong: "the GPU adapter computes wrong results",
  slow: "the GPU adapter is slow software",
} as const;

/**
 * The variables under which this machine has a working adapter; fetches a driver when there is none, and Mesa's for Vulkan
 * instead of slow software.
 */
export async function findDriver(machine: Machine): Promise<Environment> {
  const found = await machine.probe({});
  if (found === "right") return {};
  const why = COMPLAINTS[found];
  const drivers = found === "slow" ? DRIVERS.filter((driver) => driver !== swiftShader) : DRIVERS;
  const isBetter = async (env: Environment | null): Promise<boolean> => {
    const answer = env === null ? "none" : await machine.probe(env);
    return answer === "right" || (answer === "slow" && found !== "slow");
  };
  for (const driver of drivers) {
    const env = await driver.locate(machine);
    if (env === null || !await isBetter(env)) continue;
    machine.say(`${why}; using ${driver.name} (${env.VK_DRIVER_FILES})`);
    return env;
  }
  const reasons = new Set<string>();
  for (const driver of drivers) {
    const obstacle = await driver.obstacle(machine);
    if (obstacle !== null) {
      reasons.add(obstacle);
      continue;
    }
    machine.say([why, ...reasons, driver.fetching].join("; "));
    try {
      await driver.fetch(machine);
      const env = await driver.locate(machine);
      if (env !== null && await isBetter(env)) return env;
      reasons.add(`${driver.name} did not work`);
    } catch (error) {
      reasons.add(`${driver.name} could not be installed (${error instanceof Error ? error.message : error})`);
    }
  }
  machine.say([why, ...reasons, found === "slow" ? "continuing with it" : "continuing without"].join("; "));
  return {};
}
