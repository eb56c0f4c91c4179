/** The tuner's file: keeps what others add, is replaced as a whole, and starts afresh when it is damaged. @module */
import { assertEquals } from "@std/assert";
import { TunerFile } from "../../runner/tuner_store.ts";

Deno.test("what is set is there for the next program, beside what others set meanwhile", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/deep/tuning.json`;
  const [one, two] = [await TunerFile.open(path), await TunerFile.open(path)];
  assertEquals([one.path, one.get("a")], [path, undefined]);
  await one.set("a", "1");
  await two.set("b", "2");
  await two.set("b", "3");
  assertEquals([one.get("a"), one.get("b")], ["1", undefined]);
  const next = await TunerFile.open(path);
  assertEquals([next.get("a"), next.get("b"), next.get("toString")], ["1", "3", undefined]);
  const names = await Array.fromAsync(Deno.readDir(`${folder}/deep`), ({ name }) => name);
  assertEquals(names, ["tuning.json"]);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a damaged file holds nothing and can be written", async () => {
  const path = await Deno.makeTempFile();
  for (const text of ["", "{", "null", "3", '["a"]', '{"a":{}}', '{"__proto__":"1"}']) {
    await Deno.writeTextFile(path, text);
    const store = await TunerFile.open(path);
    assertEquals(store.get("a"), undefined, text);
    await store.set("a", "1");
    assertEquals((await TunerFile.open(path)).get("a"), "1", text);
  }
  await Deno.remove(path);
});

Deno.test("without a folder nothing is kept but in memory", async () => {
  const store = await TunerFile.open(null);
  await store.set("a", "1");
  assertEquals([store.path, store.get("a"), (await TunerFile.open(null)).get("a")], [null, "1", undefined]);
});

Deno.test("a file that cannot be used keeps nothing but in memory, and says why", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/file`, "");
  await Deno.mkdir(`${folder}/tuning.json`);
  for (const [path, why] of [["file/tuning.json", "a file is in the way of the folder"], ["tuning.json", ""]]) {
    const store = await TunerFile.open(`${folder}/${path}`);
    await store.set("a", "1");
    await store.set("b", "2");
    assertEquals([store.get("a"), store.get("b")], ["1", "2"]);
    assertEquals(store.problem!.startsWith(`${folder}/${path}: ${why}`), true, store.problem!);
  }
  const store = await TunerFile.open(`${folder}/new/tuning.json`);
  await store.set("a", "1");
  assertEquals(store.problem, null);
  await Deno.remove(folder, { recursive: true });
});
