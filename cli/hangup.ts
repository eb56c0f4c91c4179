/**
 * Whether a hang-up of the terminal is to be survived.
 *
 * @module
 */

/**
 * Whether this process was started to ignore SIGHUP, as `nohup` does. It is asked when this is loaded: with the first
 * listener of any signal, Deno makes SIGHUP end the process, and a listener of that alone prevents it.
 *
 * Only Linux tells. Elsewhere, and where that may not be read, a process counts as started so if neither of its outputs is
 * a terminal, which is how `nohup` leaves them.
 */
export const IGNORES_HANGUP: boolean = ignoredAtStart() ?? (!Deno.stdout.isTerminal() && !Deno.stderr.isTerminal());

/** What Linux says of this process, without asking anybody for permission; `undefined` where it does not. */
function ignoredAtStart(): boolean | undefined {
  const path = "/proc/self/status";
  const { state } = Deno.permissions.querySync({ name: "read", path });
  if (Deno.build.os !== "linux" || state !== "granted") return undefined;
  try {
    return /^SigIgn:\s*[0-9a-f]*[13579bdf]$/m.test(Deno.readTextFileSync(path));
  } catch {
    // Permission to read all files is not enough for Deno here.
    return undefined;
  }
}
