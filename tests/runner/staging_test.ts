/** Copies of rows: what is copied, what is not copied again, and what is left of a copy that cannot be made. @module */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { stageRows } from "../../runner/staging.ts";

async function inFolder(
  use: (path: string, say: (line: string) => void, said: string[]) => Promise<void>,
): Promise<void> {
  const path = await Deno.makeTempDir();
  const said: string[] = [];
  try {
    await use(path, (line) => said.push(line), said);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

async function namesIn(path: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(path), ({ name }) => name)).toSorted();
}

Deno.test("a file goes with what says what it is, a pattern with its files, a folder whole", async () => {
  await inFolder(async (path) => {
    await Deno.mkdir(`${path}/rows/inner`, { recursive: true });
    for (const name of ["a.f32", "a.json", "b-1.npy", "b-2.npy", "other.bin"]) {
      await Deno.writeTextFile(`${path}/rows/${name}`, name);
    }
    const staged = async (what: string, to: string) => {
      const found = await stageRows(what, `${path}/${to}`);
      return [found.slice(found.lastIndexOf("/") + 1), await namesIn(found.replace(/\/[^/]*$/, ""))];
    };
    assertEquals(await staged(`${path}/rows/a.f32`, "1"), ["a.f32", ["a.f32", "a.json"]]);
    assertEquals(await staged(`${path}/rows/b-*.npy`, "2"), ["b-*.npy", ["a.json", "b-1.npy", "b-2.npy"]]);
    const folder = await stageRows(`${path}/rows/`, `${path}/3`);
    assertEquals(await namesIn(folder), ["a.f32", "a.json", "b-1.npy", "b-2.npy", "other.bin"]);
    assertEquals(await Deno.readTextFile(`${folder}/b-2.npy`), "b-2.npy");
    // A missing file is reported where it is opened.
    for (const other of ["hf:me/rows/a.npy", "https://host/a.npy", `${path}/rows/none.npy`]) {
      assertEquals(await stageRows(other, `${path}/4`), other);
    }
  });
});

Deno.test("what is there is not copied again, and what has changed is", async () => {
  await inFolder(async (path, say, said) => {
    const file = `${path}/a.npy`;
    await Deno.writeTextFile(file, "one");
    const copy = await stageRows(file, `${path}/stage`, { say });
    await stageRows(file, `${path}/stage`, { say });
    await Deno.writeTextFile(file, "two");
    await Deno.utime(file, new Date(), new Date(2030, 1));
    assertEquals(await stageRows(file, `${path}/stage`, { say }), copy);
    assertEquals(await Deno.readTextFile(copy), "two");
    assertEquals(said.map((line) => line.split(" ")[0]), ["copying", "reading", "copying"]);
    // Another folder's file of the same name is another file.
    await Deno.mkdir(`${path}/b`);
    await Deno.writeTextFile(`${path}/b/a.npy`, "three");
    assert(await stageRows(`${path}/b/a.npy`, `${path}/stage`) !== copy);
  });
});

Deno.test("a copy that is stopped or cannot be made leaves nothing half", async () => {
  await inFolder(async (path) => {
    await Deno.writeTextFile(`${path}/a.npy`, "one");
    const reason = new Error("stopped");
    const signal = AbortSignal.abort(reason);
    assertEquals(await assertRejects(() => stageRows(`${path}/a.npy`, `${path}/stage`, { signal })), reason);
    const [folder] = await namesIn(`${path}/stage`);
    assertEquals(await namesIn(`${path}/stage/${folder}`), []);
    await Deno.mkdir(`${path}/stage/${folder}/a.npy/in the way`, { recursive: true });
    await assertRejects(() => stageRows(`${path}/a.npy`, `${path}/stage`), Error, "it has 3 bytes");
    assertEquals(await namesIn(`${path}/stage/${folder}`), ["a.npy"]);
  });
});
