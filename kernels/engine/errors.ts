/**
 * The three ways in which array arithmetic on a device can go wrong.
 *
 * @module
 */

/** An array whose size does not fit what it is used for. */
export class ShapeError extends TypeError {
  /** Always `"ShapeError"`. */
  override readonly name = "ShapeError";
}

/** A kernel that does not compile, or that was given the wrong arguments. */
export class KernelError extends Error {
  /** Always `"KernelError"`. */
  override readonly name = "KernelError";
}

/** No usable GPU, a GPU that went away, or one whose limits are too small. */
export class DeviceError extends Error {
  /** Always `"DeviceError"`. */
  override readonly name = "DeviceError";
}

/** The kind of a value of the wrong type, for messages: `Float64Array`, `Array`, `Undefined`. */
export function kindOf(value: unknown): string {
  return Object.prototype.toString.call(value).slice("[object ".length, -1);
}

/** A value for messages: the string `"4"` looks different from the number 4. */
export function shown(value: unknown): string {
  if (typeof value === "string" || typeof value === "boolean" || value === null) return JSON.stringify(value);
  return typeof value === "number" || value === undefined ? String(value) : `a value of type ${typeof value}`;
}
