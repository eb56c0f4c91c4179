/**
 * A Mesa that is new enough for Dawn and for RDNA 4, unpacked into this user's cache and never installed.
 *
 * Its software driver, lavapipe, runs Deno's and Dawn's WebGPU, and writes the SPIR-V that they make into files. Its driver
 * for AMD's GPUs, RADV, compiles that for a GPU that need not be there.
 *
 * @module
 */

import { findEntry, registerUnpacked, unpackDebianPackages } from "../driver/debian_packages.ts";
import { runProgram } from "../driver/programs.ts";
import { type Environment, select } from "../driver/software_drivers.ts";
import { fillFolder, openUserCache } from "../driver/user_cache.ts";

/** `lvp` is the software driver. */
export type MesaDriver = "lvp" | "radeon";

/** The variables under which a process uses one of Mesa's drivers; unpacks Mesa (25 MB) the first time. */
export async function mesaEnvironment(driver: MesaDriver): Promise<Environment> {
  const cache = await openUserCache();
  const folder = `${cache}/mesa-25`;
  if (await findEntry(cache, /^mesa-25$/) === null) {
    console.error("mesa: unpacking Mesa 25 into a cache folder (Debian packages, 25 to 80 MB, once)");
    await fillFolder(folder, async (temporary) => {
      const more = await backports(temporary);
      await unpackDebianPackages(runProgram, ["libvulkan1", "mesa-vulkan-drivers"], temporary, more);
      if (more.sources) await Deno.remove(more.sources);
      for (const each of ["lvp", "radeon"]) await registerUnpacked(each, temporary, folder);
    });
  }
  const runtime = `${cache}/runtime`;
  await Deno.mkdir(runtime, { recursive: true, mode: 0o700 });
  const libraries = (await Deno.readTextFile(`${folder}/library_folders`)).split("\n");
  return { ...select(`${folder}/${driver}_icd.json`, libraries), XDG_RUNTIME_DIR: runtime };
}

/** On Debian 12, whose own Mesa is 22, the machine's package sources with the backports beside them. */
async function backports(temporary: string): Promise<{ readonly sources?: string; readonly release?: string }> {
  const release = await Deno.readTextFile("/etc/os-release").catch(() => "");
  if (!/^VERSION_CODENAME="?bookworm"?$/m.test(release)) return {};
  const [lists, stanzas] = await Promise.all([
    Deno.readTextFile("/etc/apt/sources.list").catch(() => ""),
    Deno.readTextFile("/etc/apt/sources.list.d/debian.sources").catch(() => ""),
  ]);
  const isStanzas = /^Suites:/m.test(stanzas);
  const sources = `${temporary}/own.${isStanzas ? "sources" : "list"}`;
  await Deno.writeTextFile(sources, withBackports(isStanzas ? stanzas : lists));
  return { sources, release: "bookworm-backports" };
}

/** Package sources of either form, in which `bookworm` also stands for its backports. */
export function withBackports(sources: string): string {
  return sources
    .replace(/^(Suites:.*\bbookworm)(?=\s|$)/gm, "$1 bookworm-backports")
    .replace(/^(deb\s.*\s)bookworm(\s.*)$/gm, "$1bookworm$2\n$1bookworm-backports$2");
}
