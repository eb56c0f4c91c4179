/**
 * Fits a Gabor function to a patch: a wave under a Gaussian envelope, the shape of an edge or a bar with a position,
 * width and orientation.
 *
 *     g(x, y) = exp(−u²/2σᵤ² − v²/2σᵥ²) (a cos 2πfu + b sin 2πfu),  (u, v) = (x − x₀, y − y₀) turned by θ
 *
 * Cells of the primary visual cortex respond to this shape, and sparse coding of photographs finds it (Olshausen and
 * Field 1996).
 *
 * @module
 */

/** A fitted Gabor function; lengths in pixels from the centre of the patch. */
export interface GaborFit {
  /** The share of the patch's sum of squares, around its mean, that the function explains. */
  readonly r2: number;
  /** The position of its centre. */
  readonly x: number;
  /** The position of its centre. */
  readonly y: number;
  /** The direction of the wave, in radians. */
  readonly orientation: number;
  /** Periods per pixel. */
  readonly frequency: number;
  /** Phase of the wave at the centre, in radians. */
  readonly phase: number;
  /** Standard deviation of the envelope along the wave. */
  readonly widthAlong: number;
  /** Standard deviation of the envelope across the wave. */
  readonly widthAcross: number;
}

/** x₀, y₀, θ, f, ln σᵤ, ln σᵥ. Phase and amplitude are linear and solved exactly. */
type Shape = readonly number[];

const FREQUENCIES = [0.03, 0.07, 0.12, 0.2, 0.3];
const ORIENTATIONS = 8;
const LOG_WIDTHS = [0.3, 1.1];
const LEAST_LOG_WIDTH = Math.log(0.6);
const STARTS = 3;
const ITERATIONS = 300;

/** The best Gabor function for a patch [size, size]: a coarse search, then the Nelder–Mead simplex. */
export function fitGabor(patch: Float32Array, size: number): GaborFit {
  const mean = patch.reduce((sum, value) => sum + value, 0) / patch.length;
  const target = Float64Array.from(patch, (value) => value - mean);
  const total = target.reduce((sum, value) => sum + value * value, 0);
  const error = (shape: Shape): number => (isInside(shape, size) ? project(target, size, shape).left / total : 2);

  const middle = (size - 1) / 2;
  let [x, y] = [0, 0];
  target.forEach((value, i) => {
    x += value * value / total * (i % size - middle);
    y += value * value / total * (Math.floor(i / size) - middle);
  });
  const starts: { shape: Shape; error: number }[] = [];
  for (let turn = 0; turn < ORIENTATIONS; turn++) {
    for (const frequency of FREQUENCIES) {
      for (const along of LOG_WIDTHS) {
        for (const across of LOG_WIDTHS) {
          const shape = [x, y, turn * Math.PI / ORIENTATIONS, frequency, along, across];
          starts.push({ shape, error: error(shape) });
        }
      }
    }
  }
  const [best] = starts.sort((a, b) => a.error - b.error).slice(0, STARTS).map(({ shape }) => descend(error, shape))
    .sort((a, b) => error(a) - error(b)) as [Shape];
  const { left, cosine, sine } = project(target, size, best);
  const [x0, y0, orientation, frequency, along, across] = best as [number, number, number, number, number, number];
  return {
    r2: 1 - left / total,
    x: x0,
    y: y0,
    orientation,
    frequency,
    phase: Math.atan2(-sine, cosine),
    widthAlong: Math.exp(along),
    widthAcross: Math.exp(across),
  };
}

/** Nothing wider than the patch, finer than its pixels, or outside it. */
function isInside([x, y, , frequency, along, across]: Shape, size: number): boolean {
  return Math.max(Math.abs(x!), Math.abs(y!)) <= size / 2 && frequency! >= 0 && frequency! <= 0.5 &&
    Math.min(along!, across!) >= LEAST_LOG_WIDTH && Math.max(along!, across!) <= Math.log(size);
}

/** Least squares on the shape's cosine and sine: their weights, and the remaining sum of squares. */
function project(target: Float64Array, size: number, shape: Shape): { left: number; cosine: number; sine: number } {
  const [x0, y0, theta, frequency, along, across] = shape as [number, number, number, number, number, number];
  const [cosTheta, sinTheta] = [Math.cos(theta), Math.sin(theta)];
  const [overAlong, overAcross] = [0.5 * Math.exp(-2 * along), 0.5 * Math.exp(-2 * across)];
  let [cc, cs, ss, ct, st, tt] = [0, 0, 0, 0, 0, 0];
  for (let row = 0, i = 0; row < size; row++) {
    const y = row - (size - 1) / 2 - y0;
    for (let column = 0; column < size; column++, i++) {
      const x = column - (size - 1) / 2 - x0;
      const [u, v] = [x * cosTheta + y * sinTheta, y * cosTheta - x * sinTheta];
      const bell = Math.exp(-u * u * overAlong - v * v * overAcross);
      const [c, s] = [bell * Math.cos(2 * Math.PI * frequency * u), bell * Math.sin(2 * Math.PI * frequency * u)];
      const t = target[i]!;
      cc += c * c;
      cs += c * s;
      ss += s * s;
      ct += c * t;
      st += s * t;
      tt += t * t;
    }
  }
  // A wave without a period has no sine: the ridge keeps the system solvable.
  const ridge = 1e-9 * (cc + ss) + Number.MIN_VALUE;
  const determinant = (cc + ridge) * (ss + ridge) - cs * cs;
  const cosine = (ct * (ss + ridge) - st * cs) / determinant;
  const sine = (st * (cc + ridge) - ct * cs) / determinant;
  const left = tt - 2 * (cosine * ct + sine * st) + cosine * cosine * cc + 2 * cosine * sine * cs + sine * sine * ss;
  return { left, cosine, sine };
}

/** The downhill simplex of Nelder and Mead (1965), with their coefficients. */
function descend(f: (point: Shape) => number, start: Shape): Shape {
  const steps = [1, 1, 0.3, 0.03, 0.3, 0.3];
  const simplex = [start, ...start.map((_, i) => start.map((value, j) => (i === j ? value + steps[j]! : value)))]
    .map((point) => ({ point, value: f(point) }));
  const vertex = (point: Shape) => ({ point, value: f(point) });
  const towards = (from: Shape, to: Shape, share: number): Shape =>
    from.map((value, i) => value + share * (to[i]! - value));
  for (let i = 0; i < ITERATIONS; i++) {
    simplex.sort((a, b) => a.value - b.value);
    const [best, worst, second] = [simplex[0]!, simplex.at(-1)!, simplex.at(-2)!];
    const others = simplex.slice(0, -1);
    const centre = start.map((_, j) => others.reduce((sum, { point }) => sum + point[j]!, 0) / others.length);
    const reflected = vertex(towards(worst.point, centre, 2));
    if (reflected.value < best.value) {
      const expanded = vertex(towards(worst.point, centre, 3));
      simplex[simplex.length - 1] = expanded.value < reflected.value ? expanded : reflected;
    } else if (reflected.value < second.value) {
      simplex[simplex.length - 1] = reflected;
    } else {
      const contracted = vertex(towards(worst.point, centre, reflected.value < worst.value ? 1.5 : 0.5));
      if (contracted.value < Math.min(reflected.value, worst.value)) {
        simplex[simplex.length - 1] = contracted;
      } else {
        for (let j = 1; j < simplex.length; j++) simplex[j] = vertex(towards(simplex[j]!.point, best.point, 0.5));
      }
    }
  }
  return simplex.sort((a, b) => a.value - b.value)[0]!.point;
}
