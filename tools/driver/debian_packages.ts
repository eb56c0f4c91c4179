/**
 * Unpacks Debian packages without root into a folder, with the dependencies that the machine lacks.
 *
 * @module
 */
import { must, type Run } from "./programs.ts";

/** A C library other than the one the dynamic loader belongs to crashes every program that is told to load it. */
const NEVER_UNPACKED = new Set(["libc6", "libc-bin"]);

/** For every `apt-get`. */
export const NON_INTERACTIVE = { DEBIAN_FRONTEND: "noninteractive" };

/**
 * Unpacks packages into `${temporary}/unpacked`, those that are not installed, by the package manager's own plan.
 *
 * @param more `sources`, a file with package sources in place of the machine's; `release`, from which they are taken.
 */
export async function unpackDebianPackages(
  run: Run,
  names: readonly string[],
  temporary: string,
  more: { readonly sources?: string; readonly release?: string } = {},
): Promise<void> {
  const apt = `${temporary}/apt`;
  await Deno.mkdir(`${apt}/lists/partial`, { recursive: true });
  await Deno.mkdir(`${apt}/archives/partial`, { recursive: true });
  // Package lists of our own: the machine's may be missing or stale, and only root may renew them.
  const options = [
    `Dir::State::Lists=${apt}/lists/`,
    `Dir::Cache=${apt}/`,
    "Dir::Cache::Archives=archives/",
    "Acquire::Languages=none",
    "APT::Sandbox::User=root",
    "Debug::NoLocking=true",
    ...more.sources === undefined ? [] : [`Dir::Etc::SourceList=${more.sources}`, "Dir::Etc::SourceParts=/dev/null"],
    ...more.release === undefined ? [] : [`APT::Default-Release=${more.release}`],
  ].flatMap((option) => ["-o", option]);
  await run("apt-get", ["update", ...options], { env: NON_INTERACTIVE });
  const install = ["install", "-s", "--no-install-recommends", ...options, ...names];
  const plan = await must(run, "apt-get", install, { env: NON_INTERACTIVE });
  const packages = [...plan.matchAll(/^Inst (\S+)/gm)].map((match) => match[1]!)
    .filter((name) => !NEVER_UNPACKED.has(name.split(":")[0]!));
  if (packages.length === 0) throw new Error("apt-get says that Mesa's packages are installed");
  await must(run, "apt-get", ["download", ...options, ...packages], { cwd: temporary });
  for await (const { name } of Deno.readDir(temporary)) {
    if (!name.endsWith(".deb")) continue;
    await must(run, "dpkg-deb", ["-x", `${temporary}/${name}`, `${temporary}/unpacked`]);
    await Deno.remove(`${temporary}/${name}`);
  }
  await Deno.remove(apt, { recursive: true });
}

/** The path of the first entry of `folder` whose name matches. */
export async function findEntry(folder: string, pattern: RegExp): Promise<string | null> {
  try {
    const names = (await Array.fromAsync(Deno.readDir(folder))).map((entry) => entry.name).sort();
    const name = names.find((name) => pattern.test(name));
    return name === undefined ? null : `${folder}/${name}`;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/**
 * Writes the registration of a Vulkan driver (`lvp` is the software one) with the path it will have in `folder`, and the
 * list of library folders.
 */
export async function registerUnpacked(driver: string, temporary: string, folder: string): Promise<void> {
  const original = await findEntry(
    `${temporary}/unpacked/usr/share/vulkan/icd.d`,
    new RegExp(`^${driver}_icd.*\\.json$`),
  );
  if (original === null) throw new Error(`the packages hold no ${driver}_icd.json`);
  const registration = JSON.parse(await Deno.readTextFile(original));
  const library = registration.ICD.library_path.split("/").at(-1);
  for await (const { name: triple } of Deno.readDir(`${temporary}/unpacked/usr/lib`)) {
    if (!await findEntry(`${temporary}/unpacked/usr/lib/${triple}`, new RegExp(`^${RegExp.escape(library)}$`))) {
      continue;
    }
    registration.ICD.library_path = `${folder}/unpacked/usr/lib/${triple}/${library}`;
    const libraryFolders = [`${folder}/unpacked/usr/lib/${triple}`, `${folder}/unpacked/lib/${triple}`];
    await Deno.writeTextFile(`${temporary}/library_folders`, libraryFolders.join("\n"));
    await Deno.writeTextFile(`${temporary}/${driver}_icd.json`, JSON.stringify(registration));
    return;
  }
  throw new Error(`the packages hold no ${library}`);
}
