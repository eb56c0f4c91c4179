/**
 * Time, as far as reading over a network needs it; tests bring their own.
 *
 * @module
 */

/** What tells the time and waits. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls `then` after so many milliseconds, unless what it returns is called before. */
  after(milliseconds: number, then: () => void): () => void;
}

/** The platform's own. */
export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  after(milliseconds, then) {
    const timer = setTimeout(then, milliseconds);
    return () => clearTimeout(timer);
  },
};

/** Waits; the signal's reason is thrown where it ends the wait. */
export async function sleep(clock: Clock, milliseconds: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = clock.after(milliseconds, resolve);
  signal?.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  cancel();
  signal?.throwIfAborted();
}
