/**
 * A clock that tests control: waits end at once and are recorded; time-outs end when the test says so.
 *
 * @module
 */
import type { Clock } from "../../io/clock.ts";

/** Milliseconds that a request may be idle; no test waits for them by itself. */
const IDLE = 30_000;

/** A clock whose time passes only in waits. */
export class FakeClock implements Clock {
  /** Milliseconds of every wait, in order. */
  readonly waits: number[] = [];
  #now = Date.parse("2025-01-01T00:00:00Z");
  readonly #idle = new Set<() => void>();

  now(): number {
    return this.#now;
  }

  after(milliseconds: number, then: () => void): () => void {
    if (milliseconds === IDLE) {
      this.#idle.add(then);
      return () => void this.#idle.delete(then);
    }
    this.waits.push(milliseconds);
    const timer = setTimeout(() => {
      this.#now += milliseconds;
      then();
    }, 0);
    return () => clearTimeout(timer);
  }

  /** Waits for a request, and lets it time out. */
  async passIdle(): Promise<void> {
    while (this.#idle.size === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    for (const then of this.#idle) then();
    this.#idle.clear();
  }
}
