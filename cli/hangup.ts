/**
 * Whether a hang-up of the terminal is to be survived.
 *
 * @module
 */

/**
 * Whether this process was started to ignore SIGHUP, as `nohup` does. Listening for it would undo that. Only Linux tells;
 * elsewhere a process counts as started so if neither of its outputs is a terminal, which is how `nohup` leaves them.
 */
export function ignoresHangup(): boolean {
  if (Deno.build.os !== "linux") return !Deno.stdout.isTerminal() && !Deno.stderr.isTerminal();
  const [, ignored] = /^SigIgn:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status")) ?? [];
  return ignored !== undefined && (parseInt(ignored.slice(-1), 16) & 1) === 1;
}
