/** `io/disk.ts`: Node's functions for files where there are some, and how their failures are told apart. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { disk, environment, hasCode, hasDisk, isForbidden, lacksPermission, mayUse, retold } from "../../io/disk.ts";
import { openSource, userCacheFolder, writeBytes } from "../../io/files.ts";

/** Does something as if the runtime had no `process`, or this one. */
async function withProcess(process: unknown, use: () => Promise<void>): Promise<void> {
  const kept = Object.getOwnPropertyDescriptor(globalThis, "process")!;
  Object.defineProperty(globalThis, "process", { value: process, configurable: true });
  try {
    await use();
  } finally {
    Object.defineProperty(globalThis, "process", kept);
  }
}

Deno.test("without Node's modules, as in a browser, there is no disk, no environment and no cache", async () => {
  assert(hasDisk());
  // Bundlers give pages a `process` without modules.
  for (const process of [undefined, { env: {}, platform: "browser" }]) {
    await withProcess(process, async () => {
      assert(!hasDisk() && !mayUse(".", "read"));
      assertEquals([environment("HOME"), userCacheFolder()], [undefined, null]);
      assertThrows(() => disk(), TypeError, "no file system");
      await assertRejects(() => writeBytes("sae.pt", []), TypeError, "there is no file system here that has it");
      // A string is an address that may be relative to a page's, of which there is none here.
      await assertRejects(() => openSource("sae.pt"), Error, "sae.pt");
    });
  }
  assert(hasDisk());
});

Deno.test("failures are told apart by their codes, whatever made them", async () => {
  const missing = await assertRejects(() => disk().stat("/nowhere at all"), Error);
  const ofDeno = await assertRejects(() => Deno.stat("/nowhere at all"), Error);
  for (const error of [missing, ofDeno, retold("reading x: nothing", missing)]) {
    assert(hasCode(error, "EACCES", "ENOENT") && !hasCode(error, "EACCES") && !isForbidden(error), error.message);
  }
  assertEquals(retold("reading x: nothing", missing).cause, missing);
  assert(!("code" in retold("again", new Error("no code"))));
  assert(isForbidden(Object.assign(new Error(), { code: "EPERM" })));
  const withheld = new Deno.errors.NotCapable();
  assert(isForbidden(withheld) && lacksPermission(withheld));
  for (const other of [null, undefined, "ENOENT", { code: "ENOENT" }]) assert(!hasCode(other, "ENOENT"));
});
