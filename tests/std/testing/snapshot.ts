/** Stands in for `jsr:@std/testing/snapshot` inside this repository; the file format is the same. @module */

/** Compares with the committed snapshot, or writes it under `--update-snapshots`. */
export async function assertSnapshot(t: Deno.TestContext, actual: unknown): Promise<void> {
  await t.assertSnapshot(actual);
}
