/**
 * How many steps may be in flight before the loop waits for the GPU.
 *
 * @module
 */

/** Largest number of steps in flight: each holds its rows in memory. */
const MAX_STEPS = 256;

/** Steps before the first wait, which measures how long a step takes. */
const FIRST_STEPS = 4;

/** Milliseconds between two waits, approximately. A wait costs some 11 ms in Deno; between two, no signal is heard. */
const BETWEEN = { least: 500, most: 2000 };

/** Waits for the GPU at intervals: rarely if steps are short, after every step if they take seconds. */
export class Pace {
  readonly #wait: () => Promise<unknown>;
  readonly #now: () => number;
  #most = FIRST_STEPS;
  #steps = 0;
  #since: number;

  /** `wait` resolves when all steps so far are done. */
  constructor(wait: () => Promise<unknown>, now: () => number = () => performance.now()) {
    this.#wait = wait;
    this.#now = now;
    this.#since = now();
  }

  /** Call after submitting a step. */
  async step(): Promise<void> {
    if (++this.#steps < this.#most) return;
    await this.#wait();
    const taken = this.#now() - this.#since;
    if (taken < BETWEEN.least) this.#most = Math.min(2 * this.#most, MAX_STEPS);
    if (taken > BETWEEN.most) this.#most = Math.ceil(this.#most / 2);
    this.restart();
  }

  /** Call after something else has waited for all steps so far. */
  restart(): void {
    this.#steps = 0;
    this.#since = this.#now();
  }
}
