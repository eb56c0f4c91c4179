/** Stands in for `jsr:@std/cli/parse-args` inside this repository, so that tests need npm only. @module */
// @ts-types="./parse_args.d.ts"
export * from "npm:deno-std@1.4.0/cli/parse_args.js";
