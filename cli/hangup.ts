/**
 * Whether the process survives a hang-up of its terminal.
 *
 * @module
 */

/**
 * Whether this process was started to ignore SIGHUP, as `nohup` does. This is checked on load, because with the first
 * listener for any signal Deno makes SIGHUP end the process, unless SIGHUP has a listener of its own.
 *
 * Only Linux reports it. Elsewhere, and without permission, a process counts as started so if none of its outputs is a
 * terminal, as `nohup` leaves them.
 */
export const IGNORES_HANGUP: boolean = ignoredAtStart() ?? (!Deno.stdout.isTerminal() && !Deno.stderr.isTerminal());

/** Linux's answer, without asking for permission; `undefined` if there is none. */
function ignoredAtStart(): boolean | undefined {
  const path = "/proc/self/status";
  const { state } = Deno.permissions.querySync({ name: "read", path });
  if (Deno.build.os !== "linux" || state !== "granted") return undefined;
  try {
    return /^SigIgn:\s*[0-9a-f]*[13579bdf]$/m.test(Deno.readTextFileSync(path));
  } catch {
    // Deno wants more than permission to read all files here.
    return undefined;
  }
}
