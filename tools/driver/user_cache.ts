/**
 * A folder of this user's own for what is fetched once, and filling it so that a half-filled folder is never seen.
 *
 * @module
 */

/** The folder; for a user without a home of their own, a temporary one. */
export async function openUserCache(): Promise<string> {
  const home = Deno.env.get(Deno.build.os === "windows" ? "USERPROFILE" : "HOME");
  const base = Deno.env.get("XDG_CACHE_HOME") || (home && `${home}/.cache`);
  if (base) {
    try {
      await Deno.mkdir(`${base}/saev-nn`, { recursive: true, mode: 0o700 });
      return `${base}/saev-nn`;
    } catch (error) {
      if (!(error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return await Deno.makeTempDir({ prefix: "saev-nn-" });
}

/** Fills a temporary folder and gives it its final name; if another process was faster, its folder stays. */
export async function fillFolder(folder: string, fill: (temporary: string) => Promise<void>): Promise<void> {
  const parent = folder.slice(0, folder.lastIndexOf("/"));
  const temporary = await Deno.makeTempDir({ dir: parent, prefix: "partial-" });
  try {
    await fill(temporary);
    await Deno.rename(temporary, folder);
  } catch (error) {
    await Deno.remove(temporary, { recursive: true });
    if (await Deno.stat(folder).catch(() => null) === null) throw error;
  }
}
