/**
 * Whether a hang-up of the terminal is to be survived.
 *
 * @module
 */

/**
 * Whether this process was started to ignore SIGHUP, as `nohup` does. It is asked when this is loaded: with the first
 * listener of any signal, Deno makes SIGHUP end the process, and a listener of that alone prevents it.
 *
 * Only Linux tells. Elsewhere a process counts as started so if neither of its outputs is a terminal, which is how `nohup`
 * leaves them.
 */
export const IGNORES_HANGUP: boolean = Deno.build.os === "linux"
  ? /^SigIgn:\s*[0-9a-f]*[13579bdf]$/m.test(Deno.readTextFileSync("/proc/self/status"))
  : !Deno.stdout.isTerminal() && !Deno.stderr.isTerminal();
