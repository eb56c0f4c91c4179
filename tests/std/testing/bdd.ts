/** Stands in for `jsr:@std/testing/bdd` inside this repository: Deno runs `node:test`'s functions natively. @module */
export { after as afterAll, afterEach, before as beforeAll, beforeEach, describe, it } from "node:test";
