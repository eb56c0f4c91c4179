/** `io/file_set.ts` and folders in `io/files.ts`: files that belong together, wherever they are. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { checkPath, type FileSet, pickedFiles, requireFile } from "../../io/file_set.ts";
import { hasCode } from "../../io/disk.ts";
import { openFiles } from "../../io/files.ts";
import type { Source } from "../../io/source.ts";
import { FakeClock } from "../support/clock.ts";
import { serveFiles } from "./file_server.ts";
import { utf8 } from "./raw_zip.ts";

const CONFIG = "{}\n";
const WEIGHTS = "weights";
const DEEP = "deep";

async function textOf(source: Source | null): Promise<string | null> {
  return source && new TextDecoder().decode(await source.read(0, source.size));
}

/** What every kind of folder with these three files must do. */
async function checkFolder(files: FileSet): Promise<void> {
  assertEquals(files.main, null);
  assertEquals(await files.list(), ["a b%20.safetensors", "cfg.json", "layers/"]);
  assertEquals(await textOf(await files.find("cfg.json")), CONFIG);
  assertEquals(await textOf(await files.find("a b%20.safetensors")), WEIGHTS);
  assertEquals(await textOf(await files.find("layers/ü.pt")), DEEP);
  for (const path of ["cfg", "CFG.json", "layers", "layers/cfg.json", "cfg.json/x", "no/x", "a b .safetensors"]) {
    assertEquals(await files.find(path), null, path);
  }
  await assertRejects(
    () => requireFile(files, "config.json"),
    CheckpointError,
    `found no file "config.json"; there is "a b%20.safetensors", "cfg.json", "layers/"`,
  );
  for (const path of ["../cfg.json", "layers/../cfg.json", "/etc/passwd", ""]) {
    await assertRejects(() => files.find(path), CheckpointError, "leads out of it");
  }
}

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "saev files " });
  try {
    await Deno.writeTextFile(`${folder}/cfg.json`, CONFIG);
    await Deno.writeTextFile(`${folder}/a b%20.safetensors`, WEIGHTS);
    await Deno.mkdir(`${folder}/layers`);
    await Deno.writeTextFile(`${folder}/layers/ü.pt`, DEEP);
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function folderUrl(folder: string): URL {
  return new URL(`file://${encodeURI(folder)}`);
}

Deno.test("a local folder, by path and by URL", async () => {
  await inFolder(async (folder) => {
    for (const from of [folder, `${folder}/`, folderUrl(folder), folderUrl(`${folder}/`)]) {
      await checkFolder(await openFiles(from));
    }
  });
});

Deno.test("what is neither file nor folder is not there, and a link is what it leads to", async () => {
  await inFolder(async (folder) => {
    await Deno.symlink(`${folder}/cfg.json`, `${folder}/link.json`);
    await Deno.symlink(`${folder}/nowhere`, `${folder}/dangling.json`);
    await Deno.symlink(`${folder}/round.json`, `${folder}/round.json`);
    const files = await openFiles(folder);
    assertEquals(await files.list(), ["a b%20.safetensors", "cfg.json", "layers/", "link.json"]);
    assertEquals(await textOf(await files.find("link.json")), CONFIG);
    for (const name of ["dangling.json", "round.json"]) assertEquals(await files.find(name), null);
    const error = await assertRejects(() => openFiles(`${folder}/nothing`), Error, `${folder}/nothing`);
    assert(hasCode(error, "ENOENT"), error.message);
  });
});

Deno.test("a local file stands for the files beside it", async () => {
  await inFolder(async (folder) => {
    for (const from of [`${folder}/a b%20.safetensors`, new URL("a%20b%2520.safetensors", `${folderUrl(folder)}/`)]) {
      const files = await openFiles(from);
      assertEquals(files.main, "a b%20.safetensors");
      assertEquals(await textOf(await files.find(files.main!)), WEIGHTS);
      assertEquals(await textOf(await requireFile(files, "cfg.json")), CONFIG);
    }
    const program = `import { openFiles } from ${JSON.stringify(new URL("../../io/files.ts", import.meta.url).href)};
      const files = await openFiles("cfg.json");
      console.log(JSON.stringify([files.main, await files.list(), (await files.find("cfg.json")).size]));`;
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--no-lock",
        `--config=${config}`,
        `data:application/typescript,${encodeURIComponent(program)}`,
      ],
      cwd: folder,
    }).output();
    const expected = ["cfg.json", ["a b%20.safetensors", "cfg.json", "layers/"], 3];
    assertEquals(JSON.parse(new TextDecoder().decode(stdout)), expected);
  });
});

/** A file as a browser's folder picker gives it. */
function picked(path: string, text: string): File {
  const file = new File([text], path.slice(path.lastIndexOf("/") + 1));
  return path.includes("/") ? Object.defineProperty(file, "webkitRelativePath", { value: path }) : file;
}

Deno.test("a folder that was picked in a browser", async () => {
  const files = [
    picked("layer 5/layers/ü.pt", DEEP),
    picked("layer 5/cfg.json", CONFIG),
    picked("layer 5/a b%20.safetensors", WEIGHTS),
  ];
  const set = pickedFiles(files);
  assertEquals(set.name, "layer 5");
  await checkFolder(set);
  await checkFolder(await openFiles(files));
});

Deno.test("files that were picked one by one", async () => {
  const both = pickedFiles([picked("ae.pt", WEIGHTS), picked("config.json", CONFIG)]);
  assertEquals([both.name, both.main, await both.list()], ["the files picked", null, ["ae.pt", "config.json"]]);
  assertEquals(await textOf(await both.find("config.json")), CONFIG);
  const one = await openFiles([picked("ae.pt", WEIGHTS)]);
  assertEquals([one.main, await one.list()], ["ae.pt", ["ae.pt"]]);
  const none = await openFiles([]);
  assertEquals([none.main, await none.list()], [null, []]);
  assertThrows(
    () => pickedFiles([picked("ae.pt", WEIGHTS), picked("ae.pt", DEEP)]),
    CheckpointError,
    `"ae.pt" was picked twice`,
  );
  // A folder and a file beside it.
  const mixed = pickedFiles([picked("trainer/ae.pt", WEIGHTS), picked("x.json", CONFIG)]);
  assertEquals(await mixed.list(), ["trainer/", "x.json"]);
});

Deno.test("one file without others", async () => {
  for (const from of [utf8(WEIGHTS), utf8(WEIGHTS).slice().buffer, new Blob([WEIGHTS]), new File([WEIGHTS], "the x")]) {
    const files = await openFiles(from);
    assertEquals(await files.list(), [files.main!]);
    assertEquals(await textOf(await files.find(files.main!)), WEIGHTS);
    assertEquals(await files.find("cfg.json"), null);
    assertEquals(await openFiles(files), files);
  }
  const handle = { getFile: () => Promise.resolve(new File([WEIGHTS], "sae.pt")) };
  assertEquals((await openFiles(handle)).main, "sae.pt");
});

Deno.test("the folder above is looked into for one name, on disk and on the web", async () => {
  await inFolder(async (folder) => {
    const inner = `${folderUrl(folder)}/layers`;
    for (const from of [`${folder}/layers`, `${folder}/layers/ü.pt`, new URL(inner), new URL(`${inner}/%C3%BC.pt`)]) {
      const files = await openFiles(from);
      assertEquals(await textOf(await files.findAbove!("cfg.json")), CONFIG);
      for (const name of ["config.json", "layers"]) assertEquals(await files.findAbove!(name), null);
      await assertRejects(() => files.findAbove!("../cfg.json"), CheckpointError, "leads out of it");
    }
  });
  await using server = serveFiles({
    files: {
      "/a/layers/ü.pt": { bytes: Uint8Array.from(utf8(DEEP)) },
      "/a/cfg.json": { bytes: Uint8Array.from(utf8(CONFIG)) },
    },
  });
  for (const path of ["layers/%C3%BC.pt?x=1", "layers/"]) {
    const files = await openFiles(`${server.origin}/a/${path}`);
    assertEquals(await textOf(await files.findAbove!("cfg.json")), CONFIG);
    assertEquals(await files.findAbove!("config.json"), null);
  }
  const top = await openFiles(`${server.origin}/sae.pt`);
  assertEquals(await top.findAbove!("cfg.json"), null);
});

Deno.test("a web address stands for the files beside it, though nobody can list them", async () => {
  await using server = serveFiles({
    files: {
      "/a b/sae.safetensors": { bytes: Uint8Array.from(utf8(WEIGHTS)) },
      "/a b/cfg.json": { bytes: Uint8Array.from(utf8(CONFIG)) },
      "/a b/layers/ü.pt": { bytes: Uint8Array.from(utf8(DEEP)) },
    },
  });
  const files = await openFiles(`${server.origin}/a%20b/sae.safetensors?signature=1`);
  assertEquals([files.main, await files.list()], ["sae.safetensors", ["sae.safetensors"]]);
  assertEquals(await textOf(await files.find("sae.safetensors")), WEIGHTS);
  assertEquals(await textOf(await files.find("cfg.json")), CONFIG);
  assertEquals(await files.find("config.json"), null);
  const folder = await openFiles(new URL(`${server.origin}/a%20b/`), { hub: { clock: new FakeClock() } });
  assertEquals([folder.main, await folder.list()], [null, []]);
  assertEquals(await textOf(await folder.find("layers/ü.pt")), DEEP);
  await assertRejects(() => folder.find("//x/cfg.json"), CheckpointError, "leads out of it");
  server.behaviour.instead = () => new Response("x", { status: 500 });
  await assertRejects(() => folder.find("cfg.json"), CheckpointError, "answered 500");
});

Deno.test("paths that lead elsewhere on any system are refused", () => {
  for (const path of ["a", "a/b.c", "..a", "a..", "ü x%2F", "ab:c/d"]) checkPath(path);
  const refused = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "./a",
    "a/.",
    "a/../b",
    "..\\a",
    "a\\b",
    "C:a",
    "c:/a",
    "a\0b",
  ];
  for (const path of [...refused, "a\nb"]) assertThrows(() => checkPath(path), CheckpointError, "leads out of it");
});
