/**
 * `saev config`: a configuration file with every field, its default, its meaning and its range.
 *
 * @module
 */

import { configText } from "../runner/mod.ts";
import { type Command, print } from "./command.ts";

/** The command. */
export const configCommand: Command = {
  summary: "Print a configuration file for saev train: every field with its default and its meaning.",
  positionals: [],
  options: {},
  permissions: "none",
  details:
    `Lines that start with # are inactive: fields without a default, and every activation, penalty, auxiliary loss and
objective other than the default. Set data.path, and the file is ready to use:

  saev config > config.toml`,
  async run() {
    await print(configText());
    return 0;
  },
};
