/**
 * Whether several ways to compute give the same bits.
 *
 * @module
 */

import type { Bits } from "./train_bits.ts";

/** Every result that is not the first way's, as a sentence. */
export function deviations([first, ...others]: readonly Bits[]): string[] {
  return others.flatMap(({ way, hashes }) =>
    Object.keys({ ...first?.hashes, ...hashes }).filter((activation) =>
      hashes[activation] !== first!.hashes[activation]
    )
      .map((activation) =>
        `${activation} by ${way} is ${hashes[activation]}, by ${first!.way} ${first!.hashes[activation]}`
      )
  );
}
