/** `io/files.ts`: where bytes come from, and files that are replaced whole or not at all. */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { disk, hasCode } from "../../io/disk.ts";
import { CheckpointError } from "../../io/errors.ts";
import {
  type ByteSink,
  openFiles,
  openSource,
  readBytes,
  targetAt,
  writeBytes,
  writeTogether,
} from "../../io/files.ts";
import { bytesSource, type LazyBytes } from "../../io/source.ts";
import { joined, utf8 } from "./raw_zip.ts";

const PIECES = [utf8("one "), new Uint8Array(), utf8("two "), utf8("three")];
const WHOLE = "one two three";

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "saev files " });
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function namesIn(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
}

function failingAfter(found: readonly Uint8Array[]): [LazyBytes] {
  const pieces = async function* () {
    yield* found;
    throw new Error("the device is lost");
  };
  return [{ length: 100, pieces }];
}

Deno.test("a file is written at a path, and its folders made", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/a/b c/sae.pt`;
    await writeBytes(path, PIECES);
    assertEquals(await Deno.readTextFile(path), WHOLE);
    assertEquals(namesIn(`${folder}/a/b c`), ["sae.pt"]);
  });
});

Deno.test("a new name is flushed to disk after the file", async () => {
  await inFolder(async (folder) => {
    const did: string[] = [];
    const { open, rename } = disk();
    disk().open = async (path, flags) => {
      const file = await open(path, flags);
      const sync = file.sync.bind(file);
      file.sync = () => sync().then(() => void did.push(`sync ${path === `${folder}/` ? "folder" : "file"}`));
      return file;
    };
    disk().rename = (from, to) => rename(from, to).then(() => void did.push("rename"));
    try {
      await writeBytes(`${folder}/sae.pt`, PIECES);
      await writeTogether([[`${folder}/a`, PIECES], [`${folder}/b`, PIECES]]);
    } finally {
      Object.assign(disk(), { open, rename });
    }
    const together = ["sync file", "sync file", "rename", "rename", "sync folder"];
    assertEquals(did, ["sync file", "rename", "sync folder", ...together]);
  });
});

Deno.test("a file is written at a URL, special characters included", async () => {
  await inFolder(async (folder) => {
    const url = new URL(`file://${encodeURI(folder)}/x/50%25 %23 ü.pt`);
    await writeBytes(url, PIECES);
    assertEquals(namesIn(`${folder}/x`), ["50% # ü.pt"]);
    assertEquals(new TextDecoder().decode(await readBytes(url)), WHOLE);
  });
});

Deno.test("a bare file name goes into the current folder", async () => {
  await inFolder(async (folder) => {
    const files = new URL("../../io/files.ts", import.meta.url);
    const program = `import { writeBytes } from ${JSON.stringify(files.href)};
      await writeBytes("sae.pt", [new Uint8Array([104, 105])]);`;
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const { code } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--no-lock",
        `--config=${config}`,
        `data:application/typescript,${encodeURIComponent(program)}`,
      ],
      cwd: folder,
    }).output();
    assertEquals(code, 0);
    assertEquals(namesIn(folder), ["sae.pt"]);
  });
});

Deno.test("an old file is replaced", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/sae.pt`;
    await Deno.writeTextFile(path, "an older file, longer than the new one");
    await writeBytes(path, PIECES);
    assertEquals(await Deno.readTextFile(path), WHOLE);
    assertEquals(namesIn(folder), ["sae.pt"]);
  });
});

Deno.test("a failed write leaves the old file and nothing else", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/sae.pt`;
    await Deno.writeTextFile(path, "old");
    for (const pieces of [[], PIECES]) {
      await assertRejects(() => writeBytes(path, failingAfter(pieces)), Error, "the device is lost");
      assertEquals(await Deno.readTextFile(path), "old");
      assertEquals(namesIn(folder), ["sae.pt"]);
    }
    await assertRejects(() => writeBytes(`${folder}/new.pt`, failingAfter(PIECES)), Error, "the device is lost");
    assertEquals(namesIn(folder), ["sae.pt"]);
  });
});

Deno.test("what cannot be written says how much it takes", async () => {
  await inFolder(async (folder) => {
    const script = `trap "" XFSZ; ulimit -f 1; exec "$0" "$@"`;
    const program = `import { writeBytes } from ${JSON.stringify(new URL("../../io/files.ts", import.meta.url).href)};
      const parts = [new Uint8Array(3000), { length: 2000, async *pieces() { yield new Uint8Array(2000); } }];
      await writeBytes("sae.pt", parts).catch((error) => console.log(error.message));`;
    await Deno.writeTextFile(`${folder}/sae.pt`, "old");
    const args = ["-c", script, Deno.execPath(), "eval", program];
    const { stdout } = await new Deno.Command("sh", { args, cwd: folder }).output();
    assertMatch(
      new TextDecoder().decode(stdout),
      /^writing sae\.pt: File too large.*; the file needs 5,000 bytes; the old file, if any, is unchanged\n$/,
    );
    assertEquals(await Deno.readTextFile(`${folder}/sae.pt`), "old");
    assertEquals(namesIn(folder), ["sae.pt"]);
  });
});

Deno.test("a target that cannot be replaced leaves nothing behind", async () => {
  await inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/sae.pt/inside`, { recursive: true });
    await assertRejects(() => writeBytes(`${folder}/sae.pt`, PIECES));
    assertEquals(namesIn(folder), ["sae.pt"]);
    assertEquals(namesIn(`${folder}/sae.pt`), ["inside"]);
    await Deno.writeTextFile(`${folder}/file`, "old");
    await assertRejects(() => writeBytes(`${folder}/file/sae.pt`, PIECES), Error, "a file is in the way of the folder");
    await assertRejects(
      () => writeBytes(`${folder}/file/a/sae.pt`, PIECES),
      Error,
      "a file is in the way of the folder",
    );
    assertEquals(await Deno.readTextFile(`${folder}/file`), "old");
  });
});

Deno.test("the old file is whole until the new one is complete", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/sae.pt`;
    await Deno.writeTextFile(path, "old");
    const seen: string[] = [];
    async function* watched(): AsyncGenerator<Uint8Array> {
      for (const piece of PIECES) {
        seen.push(Deno.readTextFileSync(path));
        yield piece;
      }
      seen.push(Deno.readTextFileSync(path));
    }
    await writeBytes(path, [{ length: WHOLE.length, pieces: watched }]);
    assertEquals(seen, Array(PIECES.length + 1).fill("old"));
    assertEquals(await Deno.readTextFile(path), WHOLE);
  });
});

Deno.test("a link is followed to its target, also where nothing stands there yet", async () => {
  await inFolder(async (folder) => {
    await Deno.mkdir(`${folder}/there`);
    await Deno.writeTextFile(`${folder}/there/old.pt`, "old");
    const links: readonly [link: string, to: string, target: string][] = [
      ["relative", "there/old.pt", "there/old.pt"],
      ["absolute", `${folder}/there/old.pt`, "there/old.pt"],
      ["chain", "relative", "there/old.pt"],
      ["dangling", "there/new.pt", "there/new.pt"],
      ["deep", "made/new.pt", "made/new.pt"],
    ];
    for (const [link, to, target] of links) {
      await Deno.symlink(to, `${folder}/${link}`);
      await writeBytes(`${folder}/${link}`, [utf8(link)]);
      assertEquals(await Deno.readTextFile(`${folder}/${target}`), link);
      assert((await Deno.lstat(`${folder}/${link}`)).isSymlink, link);
      assertEquals(namesIn(`${folder}/${target.split("/")[0]}`).filter((name) => name.endsWith(".tmp")), []);
    }
    await Deno.symlink("circle", `${folder}/circle`);
    await assertRejects(() => writeBytes(`${folder}/circle`, PIECES), RangeError, "leads back to itself");
  });
});

async function makePipe(path: string): Promise<void> {
  assertEquals((await new Deno.Command("mkfifo", { args: [path] }).output()).code, 0);
}

Deno.test("a device and a pipe are written into, and stay what they are", async () => {
  await inFolder(async (folder) => {
    await Deno.symlink("/dev/null", `${folder}/device`);
    await writeBytes(`${folder}/device`, PIECES);
    assert((await Deno.stat(`${folder}/device`)).isCharDevice);
    await makePipe(`${folder}/pipe`);
    const [read] = await Promise.all([
      Deno.readTextFile(`${folder}/pipe`),
      writeBytes(new URL(`file://${encodeURI(folder)}/pipe`), PIECES),
    ]);
    assertEquals(read, WHOLE);
    assert((await Deno.stat(`${folder}/pipe`)).isFifo);
    assertEquals(namesIn(folder), ["device", "pipe"]);
    assertEquals(await targetAt(`${folder}/device`), "stream");
    assertEquals(await targetAt(`${folder}/pipe`), "pipe");
    assertEquals(await targetAt("/dev/stdout"), "stream");
  });
});

Deno.test("a device that takes no more is named", async () => {
  const error = await assertRejects(() => writeBytes("/dev/full", PIECES), Error, "writing /dev/full: No space left");
  assert(hasCode(error, "ENOSPC"), error.message);
});

Deno.test("a pipe whose reader ends early is named", async () => {
  await inFolder(async (folder) => {
    await makePipe(`${folder}/pipe`);
    const reader = new Deno.Command("head", { args: ["-c", "1", `${folder}/pipe`], stdout: "null" }).output();
    const parts = Array.from({ length: 64 }, () => new Uint8Array(65_536));
    const error = await assertRejects(
      () => writeBytes(`${folder}/pipe`, parts),
      Error,
      "its reader stopped before everything",
    );
    assert(hasCode(error, "EPIPE") && error.message.startsWith(`writing ${folder}/pipe: `), error.message);
    await reader;
  });
});

Deno.test("a pipe without a writer is refused at once, and not waited for", async () => {
  await inFolder(async (folder) => {
    await makePipe(`${folder}/pipe`);
    for (const open of [openSource, openFiles]) {
      await assertRejects(() => open(`${folder}/pipe`), RangeError, "found a pipe, which can be read only once");
      await assertRejects(() => open("/dev/null"), RangeError, "found a device");
    }
  });
});

Deno.test("a handle gets everything, however little it takes at a time, and is flushed once", async () => {
  const got: Uint8Array[] = [];
  const calls: string[] = [];
  const sink: ByteSink = {
    write(bytes) {
      assert(bytes.length > 0);
      got.push(bytes.slice(0, 2));
      calls.push("write");
      return Math.min(2, bytes.length);
    },
    sync() {
      calls.push("sync");
    },
  };
  await writeBytes(sink, PIECES);
  assertEquals(new TextDecoder().decode(joined(got)), WHOLE);
  assertEquals(calls.filter((call) => call === "sync").length, 1);
  assertEquals(calls.at(-1), "sync");
});

Deno.test("an open file stays open", async () => {
  await inFolder(async (folder) => {
    using file = await Deno.open(`${folder}/x`, { write: true, create: true });
    await writeBytes(file, PIECES);
    await file.write(utf8("!"));
    assertEquals(await Deno.readTextFile(`${folder}/x`), `${WHOLE}!`);
  });
});

Deno.test("a handle that does not write is an error, not a wait", async () => {
  for (const count of [0, -1, NaN, 5.5, 99]) {
    await assertRejects(
      () => writeBytes({ write: () => count }, PIECES),
      TypeError,
      `the handle reports ${count} bytes written`,
    );
  }
});

Deno.test("a stream gets everything and stays open", async () => {
  const got: Uint8Array[] = [];
  const stream = new WritableStream<Uint8Array>({ write: (chunk) => void got.push(chunk) });
  await writeBytes(stream, PIECES);
  await writeBytes(stream, [utf8("!")]);
  await stream.close();
  assertEquals(new TextDecoder().decode(joined(got)), `${WHOLE}!`);
});

Deno.test("a stream that fails is passed on and released", async () => {
  const stream = new WritableStream<Uint8Array>({
    write() {
      throw new Error("the pipe is broken");
    },
  });
  await assertRejects(() => writeBytes(stream, PIECES), Error, "the pipe is broken");
  assertEquals(stream.locked, false);
});

Deno.test("there is no writing to an address", async () => {
  await assertRejects(
    () => writeBytes(new URL("http://127.0.0.1:9/sae.pt"), PIECES),
    TypeError,
    "no file system here that has it",
  );
});

Deno.test("bytes are read from memory without a copy", async () => {
  const bytes = Uint8Array.from(utf8(WHOLE));
  assertEquals(await readBytes(bytes), bytes);
  assertEquals((await readBytes(bytes)).buffer, bytes.buffer);
  assertEquals((await readBytes(bytes.buffer)).buffer, bytes.buffer);
  assertEquals(await readBytes(new Blob([bytes])), bytes);
  assertEquals(await readBytes(new URL("data:application/octet-stream;base64,b25lIHR3byB0aHJlZQ==")), bytes);
});

Deno.test("bytes are read from a path, and a missing file says so", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/x`, WHOLE);
    assertEquals(await readBytes(`${folder}/x`), utf8(WHOLE));
    const error = await assertRejects(() => readBytes(`${folder}/y`), Error, `${folder}/y`);
    assert(hasCode(error, "ENOENT"), error.message);
  });
});

Deno.test("a file is read in parts, and by many at once", async () => {
  await inFolder(async (folder) => {
    const bytes = Uint8Array.from({ length: 400_000 }, (_, i) => (i * 2654435761) >>> 24);
    await Deno.writeFile(`${folder}/x`, bytes);
    const source = await openSource(`${folder}/x`);
    assertEquals([source.name, source.size], [`${folder}/x`, 400_000]);
    const starts = Array.from({ length: 50 }, (_, i) => i * 6007);
    const parts = await Promise.all(starts.map((start) => source.read(start, start + 10 + 1000 * (start % 100))));
    for (const [i, start] of starts.entries()) assertEquals(parts[i]!.at(-1), bytes[start + parts[i]!.length - 1]);
    assertEquals(await source.read(100_000, 300_000), bytes.slice(100_000, 300_000));
    await assertRejects(() => source.read(0, 400_001), CheckpointError, "expected bytes 0 to 400001");
    await assertRejects(() => openSource(folder), RangeError, "found a folder");
  });
});

Deno.test("a file that is written or replaced between two reads is an error", async () => {
  const changes: ((path: string) => Promise<void>)[] = [
    (path) => Deno.writeFile(path, new Uint8Array(200_001)),
    (path) => Deno.truncate(path, 5),
    (path) => Deno.utime(path, 0, 1),
    async (path) => {
      await Deno.writeFile(`${path}.new`, new Uint8Array(200_000));
      await Deno.rename(`${path}.new`, path);
    },
  ];
  await inFolder(async (folder) => {
    for (const change of changes) {
      await Deno.writeFile(`${folder}/x`, new Uint8Array(200_000));
      const source = await openSource(`${folder}/x`);
      await source.read(0, 100_000);
      await change(`${folder}/x`);
      await assertRejects(
        () => source.read(100_000, 200_000),
        CheckpointError,
        "the file changed while it was being read",
      );
    }
  });
});

Deno.test("once its signal is aborted, nothing is read any more, from wherever it comes", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/x`, WHOLE);
    await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => new Response(WHOLE));
    const aborter = new AbortController();
    const { signal } = aborter;
    const address = `http://127.0.0.1:${server.addr.port}/x`;
    const sources = [await openSource(`${folder}/x`, { signal }), await openSource(utf8(WHOLE), { signal })];
    for (const from of [folder, address, [new File([WHOLE], "x")]]) {
      const files = await openFiles(from, { signal });
      sources.push((await files.find("x"))!);
    }
    for (const source of sources) assertEquals(await source.read(0, source.size), utf8(WHOLE));
    aborter.abort(new RangeError("enough"));
    for (const source of sources) await assertRejects(() => source.read(0, 1), RangeError, "enough");
    await assertRejects(() => openSource(address, { signal }), RangeError, "enough");
  });
});

Deno.test("a source and a browser's file handle are opened as what they are", async () => {
  const source = bytesSource(utf8(WHOLE));
  assertEquals(await openSource(source), source);
  const handle = { getFile: () => Promise.resolve(new File(["one two three"], "sae.pt")) };
  const opened = await openSource(handle);
  assertEquals([opened.name, await opened.read(0, opened.size)], ["sae.pt", utf8(WHOLE)]);
});

Deno.test("bytes are read from a server, and its refusals are errors", async () => {
  const handler = ({ url }: Request): Response =>
    new URL(url).pathname === "/sae.pt" ? new Response(WHOLE) : new Response("no", { status: 404, statusText: "Gone" });
  await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, handler);
  const { port } = server.addr;
  assertEquals(await readBytes(`http://127.0.0.1:${port}/sae.pt`), utf8(WHOLE));
  assertEquals(await readBytes(new URL(`http://127.0.0.1:${port}/sae.pt`)), utf8(WHOLE));
  await assertRejects(() => readBytes(`http://127.0.0.1:${port}/x`), CheckpointError, "the server answered 404");
});
