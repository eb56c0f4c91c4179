/**
 * Running other programs to their end.
 *
 * @module
 */

/** What a process printed and whether it succeeded. */
export interface Outcome {
  /** Exit code 0. */
  readonly success: boolean;
  /** Standard output. */
  readonly stdout: string;
  /** Standard error. */
  readonly stderr: string;
}

/** How to run a program. */
export interface RunOptions {
  /** Variables besides those of this process. */
  readonly env?: Record<string, string>;
  /** The folder to run in. */
  readonly cwd?: string;
}

/** Runs a program to its end. A program that does not exist is an unsuccessful outcome. */
export type Run = (command: string, args: readonly string[], options?: RunOptions) => Promise<Outcome>;

/** Runs it on this machine. */
export const runProgram: Run = async (command, args, options = {}) => {
  try {
    const output = await new Deno.Command(command, { args: [...args], stdin: "null", ...options }).output();
    const [stdout, stderr] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
    return { success: output.success, stdout: stdout!, stderr: stderr! };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { success: false, stdout: "", stderr: `no ${command} here` };
    throw error;
  }
};

/** Runs a program that must succeed, and returns what it printed; the error carries the last line of its complaints. */
export async function must(
  run: Run,
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { success, stdout, stderr } = await run(command, args, options);
  if (!success) throw new Error(`${command} ${args[0]}: ${stderr.trim().split("\n").at(-1)?.trim() || "failed"}`);
  return stdout;
}
