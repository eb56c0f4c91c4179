/**
 * `saev config`: a configuration file with every field at its default, each with what it is and may be.
 *
 * @module
 */

import { configText } from "../runner/mod.ts";
import { type Command, print } from "./command.ts";

/** The command. */
export const configCommand: Command = {
  summary: "Print a configuration file for saev train: every field, its default, and what it is.",
  positionals: [],
  options: {},
  permissions: "none",
  details:
    `What stands behind a # is left out: fields without a default, and the activations, penalties, auxiliary losses and
objectives that are no defaults. Change data.path and the file is ready:

  saev config > config.toml`,
  run: () => {
    print(configText());
    return Promise.resolve(0);
  },
};
