/**
 * Runs a script of this folder in a process of its own: a process has one driver, and one WebGPU.
 *
 * @module
 */

/** What the script prints; the script's name is relative to this folder. */
export async function runScript(
  script: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-lock", new URL(script, import.meta.url).pathname, ...args],
    env,
  }).output();
  if (!success) throw new Error(`${script}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}
