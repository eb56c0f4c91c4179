/**
 * How many steps are on their way to the GPU before somebody waits for it.
 *
 * @module
 */

/** Steps that wait at most: each holds its rows in memory. */
const MAX_STEPS = 256;

/** Steps before the first wait, which tells how long one takes. */
const FIRST_STEPS = 4;

/** Milliseconds between two waits, about. A wait costs some 11 ms in Deno; between two, no signal is heard. */
const BETWEEN = { least: 500, most: 2000 };

/** Waits for the GPU now and then: seldom where steps are short, after each one where they take seconds. */
export class Pace {
  readonly #wait: () => Promise<unknown>;
  readonly #now: () => number;
  #most = FIRST_STEPS;
  #steps = 0;
  #since: number;

  /** `wait` ends when all steps so far are done. */
  constructor(wait: () => Promise<unknown>, now: () => number = () => performance.now()) {
    this.#wait = wait;
    this.#now = now;
    this.#since = now();
  }

  /** After a step was submitted. */
  async step(): Promise<void> {
    if (++this.#steps < this.#most) return;
    await this.#wait();
    const taken = this.#now() - this.#since;
    if (taken < BETWEEN.least) this.#most = Math.min(2 * this.#most, MAX_STEPS);
    if (taken > BETWEEN.most) this.#most = Math.ceil(this.#most / 2);
    this.restart();
  }

  /** After something else has waited for all steps so far. */
  restart(): void {
    this.#steps = 0;
    this.#since = this.#now();
  }
}
