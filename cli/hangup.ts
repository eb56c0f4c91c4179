/**
 * Whether a hang-up of the terminal is to be survived.
 *
 * @module
 */

/** What Linux says of this process. */
const STATUS = "/proc/self/status";

/** Whether the program may read that, without asking anybody. */
const MAY_READ = Deno.permissions.querySync({ name: "read", path: STATUS }).state === "granted";

/**
 * Whether this process was started to ignore SIGHUP, as `nohup` does. It is asked when this is loaded: with the first
 * listener of any signal, Deno makes SIGHUP end the process, and a listener of that alone prevents it.
 *
 * Only Linux tells. Elsewhere, and where that may not be read, a process counts as started so if neither of its outputs is
 * a terminal, which is how `nohup` leaves them.
 */
export const IGNORES_HANGUP: boolean = Deno.build.os === "linux" && MAY_READ
  ? /^SigIgn:\s*[0-9a-f]*[13579bdf]$/m.test(Deno.readTextFileSync(STATUS))
  : !Deno.stdout.isTerminal() && !Deno.stderr.isTerminal();
