/**
 * The clock for network access, which tests replace.
 *
 * @module
 */

/** A clock. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls `then` after this time, unless the returned function is called before. */
  after(milliseconds: number, then: () => void): () => void;
}

/** The platform's clock. */
export const SYSTEM_CLOCK: Clock = {
  now: () => Date.now(),
  after(milliseconds, then) {
    const timer = setTimeout(then, milliseconds);
    return () => clearTimeout(timer);
  },
};

/** Waits; throws the signal's reason if that ends the wait. */
export async function sleep(clock: Clock, milliseconds: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve } = Promise.withResolvers<void>();
  const cancel = clock.after(milliseconds, resolve);
  signal?.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  cancel();
  signal?.throwIfAborted();
}
