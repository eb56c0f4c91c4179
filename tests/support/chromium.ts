/**
 * A Chromium for tests: Debian's package if it is installed, otherwise the one in an npm package.
 *
 * @module
 */
import {
  CHROMIUM_VERSION,
  chromiumPackageObstacle,
  unpackChromiumPackage,
} from "../../tools/driver/chromium_package.ts";
import { runProgram } from "../../tools/driver/programs.ts";
import { fillFolder, openUserCache } from "../../tools/driver/user_cache.ts";

const INSTALLED = "/usr/bin/chromium";

/** How to start it. */
export interface ChromiumLaunch {
  /** The program. */
  readonly executablePath: string;
  /** Its whole environment. */
  readonly env: Record<string, string>;
}

/** Finds it, or downloads it once. */
export async function findChromium(): Promise<ChromiumLaunch> {
  // The browser brings its own Vulkan driver, which the one chosen for Deno would override.
  const { VK_DRIVER_FILES: _icd, VK_ICD_FILENAMES: _oldIcd, LD_LIBRARY_PATH: _libraries, ...env } = Deno.env.toObject();
  if (await Deno.stat(INSTALLED).catch(() => null)) return { executablePath: INSTALLED, env };
  const obstacle = chromiumPackageObstacle();
  if (obstacle !== null) throw new Error(`no ${INSTALLED} (apt-get install chromium), and ${obstacle}`);
  const folder = `${await openUserCache()}/chromium-${CHROMIUM_VERSION}`;
  if (!await Deno.stat(folder).catch(() => null)) {
    const files = ["chromium.br", "al2023.tar.br", "swiftshader.tar.br"] as const;
    await fillFolder(folder, (temporary) => unpackChromiumPackage(runProgram, files, temporary));
  }
  return { executablePath: `${folder}/chromium`, env: { ...env, LD_LIBRARY_PATH: `${folder}/lib` } };
}
