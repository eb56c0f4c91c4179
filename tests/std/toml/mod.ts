/** Stands in for `jsr:@std/toml` inside this repository, so that tests need npm only. @module */
// @ts-types="./mod.d.ts"
export * from "npm:deno-std@1.4.0/toml/mod.js";
