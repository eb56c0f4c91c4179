/**
 * An npm package that carries a headless Chromium for Linux on x64, and with it SwiftShader and a Vulkan loader, all of
 * which run without root and without any system package.
 *
 * @module
 */
import { brotliDecompressSync } from "node:zlib";
import { must, type Run } from "./programs.ts";

/** The package's name. */
export const CHROMIUM_PACKAGE = "@sparticuz/chromium";
/** Its version; the hashes belong to it. */
export const CHROMIUM_VERSION = "153.0.0";

const SHA256 = {
  "chromium.br": "38e1e1649db20fa4ea644bf5987688ce81a4c9eb10e7eae8380b74fc0d699fea",
  "al2023.tar.br": "a166168dd3e3e9d8743689fff543c5cadb3025c1816c6a154c90dc68a59edd0a",
  "swiftshader.tar.br": "b680e40a33235ecc6ad4c6897a168b70ce5164f0d62d2a64d675320d51614631",
} as const;

/** Files of the package: the browser, the libraries it may miss, and its Vulkan driver. */
export type PackageFile = keyof typeof SHA256;

/** Why there is nothing to download for this machine, or `null`. */
export function chromiumPackageObstacle(): string | null {
  const { target } = Deno.build;
  return target === "x86_64-unknown-linux-gnu" ? null : `${CHROMIUM_PACKAGE} has no build for ${target}`;
}

/** Downloads the package through Deno and unpacks some of its files into a folder, after checking their hashes. */
export async function unpackChromiumPackage(run: Run, files: readonly PackageFile[], folder: string): Promise<void> {
  const project = `${folder}/npm`;
  await Deno.mkdir(project);
  const manifest = { dependencies: { [CHROMIUM_PACKAGE]: CHROMIUM_VERSION } };
  await Deno.writeTextFile(`${project}/package.json`, JSON.stringify(manifest));
  await must(run, Deno.execPath(), ["install", "--quiet", "--node-modules-dir=auto", "--no-lock"], { cwd: project });
  for (const file of files) {
    const packed = await Deno.readFile(`${project}/node_modules/${CHROMIUM_PACKAGE}/bin/${file}`);
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", packed)).toHex();
    if (hash !== SHA256[file]) throw new Error(`${file} has SHA-256 ${hash}; expected ${SHA256[file]}`);
    const unpacked = `${folder}/${file.replace(/\.br$/, "")}`;
    await Deno.writeFile(unpacked, brotliDecompressSync(packed), { mode: 0o700 });
    if (!unpacked.endsWith(".tar")) continue;
    await must(run, "tar", ["-xf", unpacked, "-C", folder]);
    await Deno.remove(unpacked);
  }
  await Deno.remove(project, { recursive: true });
}
