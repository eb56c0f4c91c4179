/** The controller of L0 again, in float64: what the penalty's weight is multiplied with. @module */

/** What it keeps between steps. */
export interface Controller {
  /** u */
  readonly integral: number;
  /** The L0 that it is at on its way to the target; 0 before the first step. */
  readonly reference: number;
}

/** Nothing seen yet: a factor of 1, where nothing is wrong. */
export const FRESH: Controller = { integral: Math.asinh(1 / 2), reference: 0 };

/** One step, from its L0. */
export function control(
  { integral, reference }: Controller,
  { l0, target_l0, lr, stepsToTarget = Infinity, isOnL0 }: {
    readonly l0: number;
    readonly target_l0: number;
    readonly lr: number;
    /** In how many steps it is at the target at the latest. */
    readonly stepsToTarget?: number;
    /** Whether the penalty is on L0, so that it may become a reward, is fast and waits. */
    readonly isOnL0: boolean;
  },
): { readonly next: Controller; readonly factor: number } {
  const speed = lr / 0.002;
  const reached = Math.log(Math.max(l0, target_l0 / 100));
  const before = reference === 0 ? reached : Math.log(reference);
  const distance = Math.log(target_l0) - before;
  const pace = (isOnL0 ? 0.02 : 0.003) * speed;
  const paced = within(distance, Math.max(pace, Math.abs(distance) / Math.max(1, stepsToTarget)));
  const lead = isOnL0 ? Math.log(1.35) : Infinity;
  // On the way down it is no lower than the lead allows, unless it was; on the way up no higher.
  const at = distance < 0
    ? Math.max(before + paced, Math.min(before, reached - lead))
    : Math.min(before + paced, Math.max(before, reached + lead));
  const error = within(reached - at, 0.5);
  const moved = integral + 0.03 * Math.max(speed, Math.sqrt(speed)) * error;
  const u = Math.min(15, Math.max(isOnL0 ? -15 : 0, moved));
  const factor = 2 * (Math.sinh(u) + 6 * error * Math.cosh(u));
  return { next: { integral: u, reference: Math.exp(at) }, factor: isOnL0 ? factor : Math.max(0, factor) };
}

function within(value: number, most: number): number {
  return Math.min(most, Math.max(-most, value));
}
