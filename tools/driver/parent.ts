/**
 * Ends a process when its parent has ended, however that was killed: `kill -9` lets a parent pass nothing on.
 *
 * Loaded by `--preload` as `parent.ts?id=PARENT`, it sends SIGTERM to the process that loads it. An orphan gets another
 * parent at once, so that the parent's id tells. Windows keeps the old id: there a command runs to its end.
 *
 * @module
 */

/** Milliseconds between two looks. */
const EVERY = 500;

/** Acts once when this process has another parent than that of the given id. */
export function whenParentEnds(id: number, act: () => void): void {
  const timer = setInterval(() => {
    if (Deno.ppid === id) return;
    clearInterval(timer);
    act();
  }, EVERY);
  Deno.unrefTimer(timer);
}

const id = new URL(import.meta.url).searchParams.get("id");
if (id !== null) whenParentEnds(Number(id), () => Deno.kill(Deno.pid, "SIGTERM"));
