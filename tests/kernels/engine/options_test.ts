/** Unknown options. @module */
import { assertThrows } from "@std/assert";
import { checkOptions } from "../../../kernels/engine/options.ts";

const KNOWN = { n_steps: true, log_every: true } as const;

Deno.test("an unknown option is refused, with the one that was meant or with all there are", () => {
  checkOptions("train", { n_steps: 3, log_every: undefined }, KNOWN);
  const refused = (options: object, message: string) =>
    assertThrows(() => checkOptions("train", options, KNOWN), TypeError, message);
  refused({ n_step: 3 }, 'train has no option "n_step"; did you mean n_steps?');
  refused({ n_steps: 3, epochs: 3 }, 'train has no option "epochs"; it has n_steps, log_every');
  refused({ toString: 3 }, 'train has no option "toString"');
});
