/** `io/hub.ts` and the cache in `io/files.ts` against a server that speaks as the hub does. */

import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { readCheckpoint } from "../../io/checkpoints/checkpoint.ts";
import { CheckpointError } from "../../io/errors.ts";
import { openFiles, openSource } from "../../io/files.ts";
import { inspectCheckpoint } from "../../io/checkpoints/inspect.ts";
import { formatHubAddress, type HubOptions, type HubProgress, isHubAddress, parseHubAddress } from "../../io/hub.ts";
import type { Source } from "../../io/source.ts";
import { FakeClock } from "../support/clock.ts";
import { type FileServer, type ServedFile, serveFiles } from "./file_server.ts";
import { goldenFiles, goldenUrl } from "./checkpoints/golden_files.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const BYTES = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 2654435761) >>> 24);
const LARGE: ServedFile = await hosted(BYTES, '"one"');
const SMALL: ServedFile = { bytes: BYTES.slice(0, 30), etag: '"small"' };
const PLACE = "/me/saes/resolve/main/layer 5/sae.pt";
const ADDRESS = "hf:me/saes/layer 5/sae.pt";

/** A file as a hub has it, which says its SHA-256. */
async function hosted(bytes: Uint8Array<ArrayBuffer>, etag: string): Promise<ServedFile> {
  return { bytes, etag, linked: { etag: `"${await hexHash("SHA-256", bytes)}"`, size: bytes.length, commit: COMMIT } };
}

async function hexHash(kind: "SHA-1" | "SHA-256", bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest(kind, bytes)).toHex();
}

/** A hub with one repository. */
function serveHub(more: Record<string, ServedFile> = {}): FileServer {
  return serveFiles({
    files: {
      [PLACE]: LARGE,
      "/me/saes/resolve/main/layer 5/cfg.json": SMALL,
      "/me/saes/resolve/main/README.md": SMALL,
      "/me/saes/resolve/refs/pr/1/sae.pt": SMALL,
      [`/me/saes/resolve/${COMMIT}/sae.pt`]: LARGE,
      ...more,
    },
    instead: (request, path) => path.startsWith("/api/models/") ? list(request, path) : undefined,
  });
}

/** The hub's list of a folder, two entries a page. */
function list(request: Request, path: string): Response | undefined {
  const { origin, searchParams } = new URL(request.url);
  const tree: Record<string, readonly [type: string, path: string][]> = {
    "/api/models/me/saes/tree/main": [["file", "README.md"], ["directory", "layer 5"], ["file", "a@b.pt"]],
    "/api/models/me/saes/tree/main/layer 5": [
      ["file", "layer 5/cfg.json"],
      ["file", "layer 5/sae.pt"],
      ["directory", "layer 5/more"],
      ["submodule", "layer 5/elsewhere"],
    ],
    "/api/models/me/saes/tree/refs/pr/1": [["file", "sae.pt"]],
  };
  const entries = tree[path];
  if (entries === undefined) return undefined;
  const start = Number(searchParams.get("cursor") ?? 0);
  const page = entries.slice(start, start + 2).map(([type, path]) => ({ type, path, oid: "1", size: 1 }));
  const next = `<${origin}${encodeURI(path).replace("refs/pr/1", "refs%2Fpr%2F1")}?cursor=${start + 2}>; rel="next"`;
  return Response.json(page, { headers: start + 2 < entries.length ? { link: next } : {} });
}

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "saev hub " });
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The files below a folder, and their lengths. */
async function filesBelow(folder: string): Promise<Record<string, number>> {
  const files: Record<string, number> = {};
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = `${folder}/${name}`;
    if (!isDirectory) files[name] = (await Deno.stat(path)).size;
    else for (const [inner, size] of Object.entries(await filesBelow(path))) files[`${name}/${inner}`] = size;
  }
  return files;
}

async function bytesOf(source: Source): Promise<Uint8Array> {
  return await source.read(0, source.size);
}

// --------------------------------------------------------------------------------------------------------- addresses

Deno.test("addresses name a repository, a path and a revision", () => {
  const addresses: [text: string, repo: string, path: string, revision: string][] = [
    ["hf:me/saes", "me/saes", "", "main"],
    ["hf:me/saes/", "me/saes", "", "main"],
    ["hf://me/saes/a/b.pt", "me/saes", "a/b.pt", "main"],
    ["hf:me/saes/a b/ü%20.pt@v1.0", "me/saes", "a b/ü%20.pt", "v1.0"],
    ["hf:me/saes@refs/pr/1", "me/saes", "", "refs/pr/1"],
    ["hf:me/saes/sae.pt@refs/pr/1", "me/saes", "sae.pt", "refs/pr/1"],
    ["hf:me/saes/sae.pt@feature/x", "me/saes", "sae.pt", "feature/x"],
    ["hf:me/saes/a@b.pt@main", "me/saes", "a@b.pt", "main"],
    [`hf:me/saes/sae.pt@${COMMIT}`, "me/saes", "sae.pt", COMMIT],
    ["hf:Some-Org/sae_v1.0/x", "Some-Org/sae_v1.0", "x", "main"],
  ];
  for (const [text, repo, path, revision] of addresses) {
    assertEquals(parseHubAddress(text), { repo, path, revision }, text);
    assertEquals(parseHubAddress(formatHubAddress({ repo, path, revision })), { repo, path, revision }, text);
  }
  assertEquals(["hf:x", "hf://x", "hf", "HF:x", "./hf:x", "https://x"].map(isHubAddress), [
    true,
    true,
    false,
    false,
    false,
    false,
  ]);
});

Deno.test("other addresses are refused, and the message says what was understood", () => {
  const refused: [text: string, message: string][] = [
    ["hf:", `found the repository "/"`],
    ["hf:gpt2", `found the repository "gpt2/"; expected hf:owner/repository/path@revision`],
    ["hf:../saes/x", `found the repository "../saes"`],
    ["hf:me/..", `found the repository "me/.."`],
    ["hf:me//x", `found the repository "me/"`],
    ["hf:me/sa es/x", `found the repository "me/sa es"`],
    ["hf:me/saes?x=1", `found the repository "me/saes?x=1"`],
    ["hf:me/saes#x", "found the repository"],
    ["hf:me%2fyou/saes", "found the repository"],
    ["hf:me/saes/../../x/y", "leads out of it"],
    ["hf:me/saes//x", "leads out of it"],
    ["hf:me/saes/a\\b", "leads out of it"],
    ["hf:me/saes/x@", `found the revision ""`],
    ["hf:me/saes/x@..", `found the revision ".."`],
    ["hf:me/saes/x@a/../b", `found the revision "a/../b"`],
    ["hf:me/saes/x@a b", `found the revision "a b"`],
    ["hf:me/saes@main/layer/sae.pt", `found the revision "main/layer/sae.pt", but the path goes before the @`],
  ];
  for (const [text, message] of refused) assertThrows(() => parseHubAddress(text), CheckpointError, message);
});

// ------------------------------------------------------------------------------------------------- reading by ranges

Deno.test("without a cache, ranges of the remote file are read", async () => {
  await using server = serveHub();
  const seen: HubProgress[] = [];
  const hub = {
    endpoint: `${server.origin}/`,
    cache: null,
    onProgress: (progress: HubProgress) => void seen.push(progress),
  };
  const source = await openSource(ADDRESS, { hub });
  assertEquals([source.name, source.size], [ADDRESS, 300_000]);
  assertEquals(await source.read(250_000, 251_000), BYTES.slice(250_000, 251_000));
  assertEquals(server.seen.map(({ path, range }) => [path, range]), [
    [PLACE, "bytes=0-65535"],
    [PLACE, "bytes=196608-262143"],
  ]);
  assertEquals(seen.at(0), { path: "layer 5/sae.pt", received: 65_536, size: 300_000 });
  assertEquals(seen.at(-1), { path: "layer 5/sae.pt", received: 131_072, size: 300_000 });
});

Deno.test("a revision and a path arrive as they are", async () => {
  const urls: string[] = [];
  await using server = serveHub({ "/me/saes/resolve/v1.0/a?b#ü%.pt": SMALL });
  server.behaviour.instead = (request) => void urls.push(new URL(request.url).pathname) as undefined;
  const hub = { endpoint: server.origin, cache: null };
  assertEquals(await bytesOf(await openSource("hf:me/saes/sae.pt@refs/pr/1", { hub })), SMALL.bytes);
  assertEquals(await bytesOf(await openSource("hf:me/saes/a?b#ü%.pt@v1.0", { hub })), SMALL.bytes);
  assertEquals(urls, ["/me/saes/resolve/refs%2Fpr%2F1/sae.pt", "/me/saes/resolve/v1.0/a%3Fb%23%C3%BC%25.pt"]);
});

Deno.test("a token goes to the hub and not to where it keeps its large files", async () => {
  await using storage = serveFiles({ files: { "/blobs/1": LARGE } });
  await using server = serveHub();
  const to = (location: string): Response => new Response(null, { status: 302, headers: { location } });
  server.behaviour.instead = (_request, path) =>
    path === PLACE ? to(`${storage.origin}/blobs/1?signature=x`) : undefined;
  await inFolder(async (cache) => {
    for (const hub of [{ cache: null }, { cache }]) {
      const source = await openSource(ADDRESS, { hub: { ...hub, endpoint: server.origin, token: "hf_secret" } });
      assertEquals(await bytesOf(source), BYTES);
    }
    assert(server.seen.every(({ authorization }) => authorization === "Bearer hf_secret"));
    assert(storage.seen.length >= 4 && storage.seen.every(({ authorization }) => authorization === null));
  });
});

Deno.test("refusals say what to do, and never the token", async () => {
  await using server = serveHub();
  const hub = { endpoint: server.origin, cache: null, clock: new FakeClock() };
  const answers: [status: number, options: HubOptions, message: string][] = [
    [
      401,
      {},
      "the repository is private or gated, or does not exist: set HF_TOKEN to a token with access to it",
    ],
    [403, {}, "set HF_TOKEN"],
    [401, { token: "hf_secret" }, "the token given (HF_TOKEN) has no access to it"],
    [404, {}, "there is no such repository, revision or file"],
    [500, {}, "answered 500 Internal Server Error"],
  ];
  for (const [status, options, message] of answers) {
    server.behaviour.instead = () => new Response("x", { status, headers: { "x-error-message": 'Gated "repo"' } });
    for (const open of [openSource, openFiles]) {
      const wrong = () => open(ADDRESS, { hub: { ...hub, ...options } }) as Promise<unknown>;
      const error = await assertRejects(wrong, CheckpointError, message);
      assert(error.message.includes(`reading hf:me/saes/layer 5`) && error.message.includes('"Gated \\"repo\\""'));
      assert(!error.message.includes("hf_secret"), error.message);
    }
  }
  server.behaviour.instead = () => undefined;
  for (const token of ["hf secret", "hf\r\nx: y", "", "ü"]) {
    const error = await assertRejects(() => openSource(ADDRESS, { hub: { ...hub, token } }), TypeError, "HF_TOKEN");
    assert(token === "" || !error.message.includes(token));
  }
  await assertRejects(() => openSource("hf:me/saes", { hub }), CheckpointError, "expected the path of a file");
  await assertRejects(
    () => openSource(ADDRESS, { hub: { ...hub, endpoint: "ftp://x" } }),
    TypeError,
    `the hub's endpoint is "ftp://x"`,
  );
  await assertRejects(() => openSource(new URL("hf:me/saes/x")), TypeError, "as a string");
});

// -------------------------------------------------------------------------------------------------------- the folder

Deno.test("a folder, the files beside a file, and the whole repository", async () => {
  await using server = serveHub();
  const hub = { endpoint: server.origin, cache: null };
  const folder = await openFiles("hf:me/saes/layer 5", { hub });
  assertEquals([folder.name, folder.main], ["hf:me/saes/layer 5", null]);
  assertEquals(await folder.list(), ["cfg.json", "more/", "sae.pt"]);
  assertEquals(await bytesOf((await folder.find("cfg.json"))!), SMALL.bytes);
  for (const path of ["config.json", "more", "more/x", "elsewhere", "cfg.json/x"]) {
    const found = path === "more/x" ? await folder.find(path).catch(() => null) : await folder.find(path);
    assertEquals(found, null, path);
  }
  const file = await openFiles(ADDRESS, { hub });
  assertEquals([file.main, await file.list()], ["sae.pt", ["cfg.json", "more/", "sae.pt"]]);
  assertEquals(await bytesOf((await file.find(file.main!))!), BYTES);
  assertEquals(await bytesOf((await file.findAbove!("README.md"))!), SMALL.bytes);
  for (const name of ["config.json", "layer 5"]) assertEquals(await file.findAbove!(name), null);
  const root = await openFiles("hf:me/saes", { hub });
  assertEquals([root.main, await root.list()], [null, ["README.md", "a@b.pt", "layer 5/"]]);
  assertEquals(await root.findAbove!("README.md"), null);
  assertEquals(await bytesOf((await root.find("layer 5/cfg.json"))!), SMALL.bytes);
  const request = await openFiles("hf:me/saes/sae.pt@refs/pr/1", { hub });
  assertEquals(await bytesOf((await request.find("sae.pt"))!), SMALL.bytes);
  await assertRejects(() => openFiles("hf:me/saes/layer 6", { hub }), CheckpointError, "there is no file or folder");
  await assertRejects(() => openFiles("hf:me/saes/layer 6/x", { hub }), CheckpointError, "no such repository");
});

Deno.test("a model of two files is the same from a hub, by its folder and by one file, and from the web", async () => {
  const golden = goldenFiles().find(({ format, name }) => format === "saelens" && name === "topk")!;
  const served = [...golden.files].map((
    [name, bytes],
  ) => [`/me/saes/resolve/main/top k/${name}`, { bytes: bytes.slice() }]);
  await using server = serveFiles({
    files: Object.fromEntries(served),
    instead: (_, path) => {
      const entries = [...golden.files.keys()].map((name) => ({ type: "file", path: `top k/${name}` }));
      if (path === "/api/models/me/saes/tree/main/top k") return Response.json(entries);
      return path.startsWith("/api/") ? Response.json([{ type: "directory", path: "top k" }]) : undefined;
    },
  });
  const expected = await readCheckpoint(goldenUrl(golden));
  const hub = { endpoint: server.origin, cache: null };
  for (const address of ["hf:me/saes/top k", "hf:me/saes/top k/sae_weights.safetensors"]) {
    assertEquals(await readCheckpoint(address, { hub }), expected, address);
  }
  const address = `${server.origin}/me/saes/resolve/main/top%20k/sae_weights.safetensors?download=true`;
  assertEquals(await readCheckpoint(address), expected);
  await assertRejects(() => readCheckpoint(`${server.origin}/sae.pt`), CheckpointError, "/sae.pt: there is no file");
});

Deno.test("lists that lie, or never end, are refused", async () => {
  await using server = serveHub();
  const hub = { endpoint: server.origin, cache: null };
  const json = (body: unknown, link?: string): Response =>
    new Response(typeof body === "string" ? body : JSON.stringify(body), {
      headers: link === undefined ? {} : { link },
    });
  const entry = { type: "file", path: "layer 5/sae.pt" };
  const cases: [answer: () => Response, message: string][] = [
    [() => json("<html>"), "reading hf:me/saes/layer 5: the server sent a web page"],
    [() => json("no"), "reading the list of files of hf:me/saes/layer 5, character 0: expected a value"],
    [() => json({}), "is not a list"],
    [() => json(["x"]), "an entry that is not in the folder"],
    [() => json([{ type: "file" }]), "an entry that is not in the folder"],
    [() => json([{ ...entry, path: "../x" }]), "an entry that is not in the folder"],
    [() => json([{ ...entry, path: "layer 5/../../x" }]), "an entry that is not in the folder"],
    [() => json([entry], '<http://127.0.0.1:9/x>; rel="next"'), `continues at another address, "http://127.0.0.1:9/x"`],
    [() => json([entry], '<file:///etc/passwd>; rel="next"'), "continues at another address,"],
    [() => json([entry], '<?cursor=1>; rel="next"'), "more than 50 pages"],
    [() => json(`[${"{},".repeat(140_000)}{}]`), "more than 131072 objects"],
    [() => json(" ".repeat(2 ** 23 + 1)), "expected at most 8388608"],
  ];
  for (const [answer, message] of cases) {
    server.behaviour.instead = answer;
    await assertRejects(
      async () => await (await openFiles("hf:me/saes/layer 5/sae.pt", { hub })).list(),
      CheckpointError,
      message,
    );
  }
});

// --------------------------------------------------------------------------------------------------------- the cache

Deno.test("a file is downloaded once, and asked for again only whether it is still the same", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const seen: HubProgress[] = [];
    const hub = { endpoint: server.origin, cache, onProgress: (progress: HubProgress) => void seen.push(progress) };
    const first = await openSource(ADDRESS, { hub });
    assertEquals([first.name.replace(/ \(copy \/.*\)$/, ""), await bytesOf(first)], [ADDRESS, BYTES]);
    assertEquals([seen.at(0)!.received, seen.at(-1)!.received, seen.at(-1)!.size], [0, 300_000, 300_000]);
    assertEquals(server.seen.map(({ range }) => range), ["bytes=0-65535", "bytes=65536-299999"]);
    const files = await filesBelow(cache);
    assertEquals(Object.values(files), [300_000]);
    const hash = LARGE.linked!.etag!.replaceAll('"', "");
    const place = `/me%2Fsaes/main/layer%205/sae.pt/%22${hash}%22=300000=${hash}`;
    assert(Object.keys(files)[0]!.endsWith(place), Object.keys(files)[0]);

    server.seen.length = 0;
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub })), BYTES);
    assertEquals(server.seen.map(({ range }) => range), ["bytes=0-65535"]);

    // The branch moves.
    const moved = BYTES.toReversed();
    server.behaviour.files[PLACE] = { bytes: moved, etag: '"two"' };
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub })), moved);
    assertEquals(Object.values(await filesBelow(cache)), [300_000, 300_000]);
    assertEquals(await bytesOf(first), BYTES);
  });
});

Deno.test("of a commit that is in the cache nothing is asked at all", async () => {
  await inFolder(async (cache) => {
    const address = `hf:me/saes/sae.pt@${COMMIT}`;
    let endpoint: string;
    {
      await using server = serveHub();
      endpoint = server.origin;
      assertEquals(await bytesOf(await openSource(address, { hub: { endpoint, cache } })), BYTES);
    }
    assertEquals(await bytesOf(await openSource(address, { hub: { endpoint, cache } })), BYTES);
    await assertRejects(() => openSource(ADDRESS, { hub: { endpoint, cache } }), TypeError);
    await assertRejects(() => openSource(address, { hub: { endpoint: "http://127.0.0.1:9", cache } }), TypeError);
  });
});

Deno.test("an interrupted download continues where it stopped, if the file is still the same", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const interrupt = async (): Promise<void> => {
      const controller = new AbortController();
      const onProgress = ({ received }: HubProgress): void => {
        if (received > 100_000) controller.abort();
      };
      server.behaviour.breakAfter = 70_000;
      const options = { hub: { ...hub, onProgress, signal: controller.signal, clock: new FakeClock() } };
      await assertRejects(() => openSource(ADDRESS, options), DOMException, "aborted");
      delete server.behaviour.breakAfter;
    };
    await interrupt();
    const [[name, have]] = Object.entries(await filesBelow(cache)) as [[string, number]];
    assert(name.endsWith(".partial") && have > 100_000 && have < 300_000, `${name}: ${have}`);

    server.seen.length = 0;
    const seen: number[] = [];
    const onProgress = ({ received }: HubProgress): void => void seen.push(received);
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub: { ...hub, onProgress } })), BYTES);
    assertEquals(seen[0], have);
    assertEquals(server.seen.map(({ range, ifRange }) => [range, ifRange]), [
      ["bytes=0-65535", null],
      [`bytes=${have}-299999`, '"one"'],
    ]);
    assertEquals(Object.values(await filesBelow(cache)), [300_000]);

    // Another file stands there when it continues: nothing of the first may be in it.
    server.behaviour.files[PLACE] = await hosted(BYTES.toReversed(), '"two"');
    await interrupt();
    server.behaviour.files[PLACE] = await hosted(BYTES.map((byte) => 255 - byte), '"three"');
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub })), BYTES.map((byte) => 255 - byte));
  });
});

Deno.test("a file that changes during its download is an error, and no copy of it is kept", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const onProgress = (): void => {
      server.behaviour.files[PLACE] = { bytes: BYTES.toReversed(), etag: '"two"' };
    };
    const hub = { endpoint: server.origin, cache };
    await assertRejects(
      () => openSource(ADDRESS, { hub: { ...hub, onProgress } }),
      CheckpointError,
      "the file changed",
    );
    assert(Object.keys(await filesBelow(cache)).every((name) => name.endsWith(".partial")));
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub })), BYTES.toReversed());
  });
});

Deno.test("a body that is cut off each time is an error, and what came stays for the next time", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache, clock: new FakeClock() };
    // The first bytes arrive whole, then one connection brings something and the next ones nothing.
    let n = 0;
    server.behaviour.instead = () => {
      server.behaviour.breakAfter = [Infinity, 70_000][n++] ?? 0;
      return undefined;
    };
    await assertRejects(() => openSource(ADDRESS, { hub }), CheckpointError, "the connection ended after");
    const [have] = Object.values(await filesBelow(cache));
    assertEquals(have, 65_536 + 70_000);
    server.behaviour.instead = () => undefined;
    server.behaviour.breakAfter = Infinity;
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub })), BYTES);
    assertEquals(server.seen.at(-1)!.range, `bytes=${have}-299999`);
  });
});

Deno.test("many downloads of one file at once make one request for its bytes", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const sources = await Promise.all(Array.from({ length: 8 }, () => openSource(ADDRESS, { hub })));
    for (const source of sources) assertEquals(await bytesOf(source), BYTES);
    assertEquals(server.seen.filter(({ range }) => range !== "bytes=0-65535").length, 1);
    assertEquals(Object.values(await filesBelow(cache)), [300_000]);
  });
});

Deno.test("a server without ranges, without tags, or with weak ones", async () => {
  const cases: [what: string, file: ServedFile, hasRanges: boolean, copies: number][] = [
    ["no ranges", LARGE, false, 1],
    ["no ranges, no tag", { bytes: BYTES }, false, 1],
    ["no tag", { bytes: BYTES }, true, 0],
    ["a weak tag", { bytes: BYTES, etag: 'W/"one"' }, true, 1],
    ["an empty file", { bytes: new Uint8Array(), etag: '"empty"' }, true, 1],
  ];
  for (const [what, file, hasRanges, copies] of cases) {
    await using server = serveHub({ [PLACE]: file });
    server.behaviour.hasRanges = hasRanges;
    await inFolder(async (cache) => {
      const hub = { endpoint: server.origin, cache };
      for (let n = 0; n < 2; n++) assertEquals(await bytesOf(await openSource(ADDRESS, { hub })), file.bytes, what);
      assertEquals(Object.keys(await filesBelow(cache)).length, copies, what);
    });
  }
});

Deno.test("what names files on disk cannot leave the cache", async () => {
  const etag = '"../../../../evil"';
  await using server = serveHub({ "/me/saes/resolve/main/ab:c*d": { bytes: BYTES, etag } });
  await inFolder(async (folder) => {
    await openSource("hf:me/saes/ab:c*d", { hub: { endpoint: server.origin, cache: `${folder}/x/y/cache` } });
    const [path] = Object.keys(await filesBelow(folder));
    assert(path!.startsWith("x/y/cache/") && !path!.split("/").includes(".."), path);
    assert(!/[:*?"<>|\\]/.test(path!), path);
  });
});

// ------------------------------------------------------------------------------------------------- what proves wrong

Deno.test("what arrives otherwise than the hub says is not kept", async () => {
  const git = await hexHash("SHA-1", Uint8Array.of(...new TextEncoder().encode("blob 30\0"), ...SMALL.bytes));
  const small = { ...SMALL, etag: `"${git}"`, linked: { commit: COMMIT } };
  const cases: [what: string, file: ServedFile, hasRanges: boolean, message: string | null][] = [
    ["another hash", { ...LARGE, bytes: BYTES.toReversed() }, true, `expected`],
    ["another hash, without ranges", { ...LARGE, bytes: BYTES.toReversed() }, false, "expected"],
    ["a git id", small, true, null],
    ["another git id", { ...small, bytes: BYTES.slice(1, 31) }, true, "expected"],
    [
      "another length",
      { ...LARGE, linked: { size: 299_999 } },
      true,
      "sends 300000 bytes, but gives its size as 299999",
    ],
    ["another length, without ranges", { ...LARGE, linked: { size: 299_999 } }, false, "expected"],
    ["a tag that is no hash", { ...SMALL, etag: `"${git.replaceAll(/./g, "0")}"` }, true, null],
  ];
  for (const [what, file, hasRanges, message] of cases) {
    await using server = serveHub({ [PLACE]: file });
    server.behaviour.hasRanges = hasRanges;
    await inFolder(async (cache) => {
      const open = () => openSource(ADDRESS, { hub: { endpoint: server.origin, cache } });
      if (message === null) assertEquals(await bytesOf(await open()), file.bytes, what);
      else {
        await assertRejects(open, CheckpointError, message === "expected" ? "No copy is kept" : message, what);
        assertEquals(await filesBelow(cache), {}, what);
      }
    });
  }
});

Deno.test("what the bytes must be is said by the hub that redirects, and not by who has them", async () => {
  const claims = { etag: `"${"0".repeat(64)}"`, size: 3, commit: COMMIT };
  await using storage = serveFiles({ files: { "/blob": { bytes: BYTES, etag: '"s3"', linked: claims } } });
  await using server = serveHub();
  const { etag, size, commit } = LARGE.linked!;
  const headers = { "x-linked-etag": etag!, "x-linked-size": `${size}`, "x-repo-commit": commit! };
  server.behaviour.instead = (_, path) =>
    path === PLACE
      ? new Response(null, { status: 302, headers: { ...headers, location: `${storage.origin}/blob?Signature=x` } })
      : undefined;
  await inFolder(async (cache) => {
    const open = () => openSource(ADDRESS, { hub: { endpoint: server.origin, cache } });
    const source = await open();
    assertEquals(await bytesOf(source), BYTES);
    assert(copyOf(source.name).endsWith(etag!.replaceAll('"', "")), source.name);
    await Deno.remove(copyOf(source.name));
    storage.behaviour.files["/blob"] = { bytes: BYTES.toReversed(), etag: '"s3"' };
    await assertRejects(open, CheckpointError, "No copy is kept");
  });
});

Deno.test("a partial that is not the start of the file is thrown away, and all is read again", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const { name } = await openSource(ADDRESS, { hub });
    const path = copyOf(name);
    const partial = path.replace(/=.*/, ".partial");
    await Deno.remove(path);
    await Deno.writeFile(partial, new Uint8Array(100_000));
    const said: string[] = [];
    const source = await openSource(ADDRESS, { hub: { ...hub, onNotice: (line) => void said.push(line) } });
    assertEquals(await bytesOf(source), BYTES);
    assertEquals(said, [
      `reading ${ADDRESS}: ${partial} is not the start of this file; removing it and downloading the whole file again`,
    ]);
    assertEquals(Object.values(await filesBelow(cache)), [300_000]);
  });
});

/** The path of the copy that a source's name tells. */
function copyOf(name: string): string {
  return / \(copy (.*)\)$/.exec(name)![1]!;
}

Deno.test("a network's own page is never taken for the file, also where the file never changes", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const address = `hf:me/saes/sae.pt@${COMMIT}`;
    server.behaviour.page = "<!DOCTYPE html><title>Please log in</title>";
    for (const page of [server.behaviour.page, "\n\n<html><head>"]) {
      server.behaviour.page = page;
      await assertRejects(() => openSource(address, { hub }), CheckpointError, "the server sent a web page");
    }
    assertEquals(await filesBelow(cache), {});
    delete server.behaviour.page;
    assertEquals(await bytesOf(await openSource(address, { hub })), BYTES);
  });
});

/** A repository with a golden checkpoint of two files, at a commit. */
function servePinned(): { server: FileServer; address: string; bytes: Uint8Array } {
  const golden = goldenFiles().find(({ format, name }) => format === "saelens" && name === "topk")!;
  const names = [...golden.files.keys()];
  const server = serveFiles({
    files: Object.fromEntries(
      [...golden.files].map((
        [name, bytes],
      ) => [`/me/saes/resolve/${COMMIT}/x/${name}`, { bytes: bytes.slice(), etag: `"${name}"` }]),
    ),
    instead: (_, path) =>
      path === `/api/models/me/saes/tree/${COMMIT}/x`
        ? Response.json(names.map((name) => ({ type: "file", path: `x/${name}` })))
        : path.startsWith("/api/")
        ? Response.json([{ type: "directory", path: "x" }])
        : undefined,
  });
  return { server, address: `hf:me/saes/x@${COMMIT}`, bytes: golden.files.get("sae_weights.safetensors")! };
}

Deno.test("a model at a commit needs no network once it was read: folder, file and list", async () => {
  await inFolder(async (cache) => {
    const { server, address } = servePinned();
    const hub = { endpoint: server.origin, cache };
    const file = `hf:me/saes/x/sae_weights.safetensors@${COMMIT}`;
    const expected = await readCheckpoint(address, { hub });
    assertEquals(await readCheckpoint(file, { hub }), expected);
    await server[Symbol.asyncDispose]();
    const asked = server.seen.length;
    for (const from of [address, file]) assertEquals(await readCheckpoint(from, { hub }), expected, from);
    assertEquals(server.seen.length, asked);

    // What was never read is still missing, and a damaged list is asked for again.
    const error = await assertRejects(
      () => openFiles(`hf:me/saes/y@${COMMIT}`, { hub }),
      CheckpointError,
      "there is no file or folder",
    );
    assert(!error.message.includes("127.0.0.1"));
    const [list] = Object.keys(await filesBelow(cache)).filter((name) => name.endsWith(`${COMMIT}/x/=list.json`));
    await Deno.writeTextFile(`${cache}/${list}`, "[3]");
    await assertRejects(
      () => readCheckpoint(address, { hub }),
      TypeError,
      `no answer from ${server.origin}/api/models/me/saes/tree/${COMMIT}/x: `,
    );
  });
});

Deno.test("a copy that proves wrong is named and removed; a whole one that cannot be read is named", async () => {
  const { server, address } = servePinned();
  await using _ = server;
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const expected = await readCheckpoint(address, { hub });
    const [name] = Object.keys(await filesBelow(cache)).filter((name) => name.includes("/sae_weights.safetensors/"));
    const path = `${cache}/${name}`;
    const whole = await Deno.readFile(path);

    // Of the same length: seen when it is read.
    for (const read of [readCheckpoint, inspectCheckpoint]) {
      await Deno.writeFile(path, whole.map((byte, i) => i < 8 ? 255 : byte));
      const error = await assertRejects(() => read(address, { hub }) as Promise<unknown>, CheckpointError);
      assert(error.message.includes(`the copy ${path} was damaged and has been removed; try again`), error.message);
      assertEquals(await readCheckpoint(address, { hub }), expected);
    }

    // Of another length: seen at once.
    await Deno.writeFile(path, whole.subarray(1));
    const said: string[] = [];
    assertEquals(
      await readCheckpoint(address, { hub: { ...hub, onNotice: (line) => void said.push(line) } }),
      expected,
    );
    assertEquals(said, [
      `removing the damaged copy ${path}: it has ${whole.length - 1} bytes; expected ${whole.length}`,
    ]);

    // As the hub has it, and no checkpoint.
    server.behaviour.instead = (_, path) =>
      path.startsWith("/api/") ? Response.json([{ type: "file", path: "y/b.pt" }]) : undefined;
    server.behaviour.files[`/me/saes/resolve/${COMMIT}/y/b.pt`] = { bytes: Uint8Array.of(1, 2, 3), etag: '"b"' };
    const error = await assertRejects(() => readCheckpoint(`hf:me/saes/y/b.pt@${COMMIT}`, { hub }), CheckpointError);
    const [copy] = Object.keys(await filesBelow(cache)).filter((name) => name.includes("/b.pt/"));
    assert(error.message.includes(`${cache}/${copy}`), error.message);
  });
});

// --------------------------------------------------------------------------------------- other processes, full disks

Deno.test("a process that waits for another says so, and continues when that ends", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const path = copyOf((await openSource(ADDRESS, { hub })).name);
    await Deno.remove(path);
    const partial = path.replace(/=.*/, ".partial");
    using other = await Deno.open(partial, { write: true, create: true });
    await other.lock(true);
    const said: string[] = [];
    const onNotice = (line: string): void => {
      said.push(line);
      other.unlockSync();
    };
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub: { ...hub, onNotice } })), BYTES);
    assertEquals(said, [`reading ${ADDRESS}: waiting for another process that is writing ${partial}`]);
  });
});

Deno.test("a download that brings nothing for ten minutes is taken over, and cannot disturb the new one", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const path = copyOf((await openSource(ADDRESS, { hub })).name);
    await Deno.remove(path);
    const partial = path.replace(/=.*/, ".partial");
    using stuck = await Deno.open(partial, { write: true, create: true });
    await stuck.lock(true);
    await stuck.write(new Uint8Array(10));
    const [clock, said] = [new FakeClock(), [] as string[]];
    const onNotice = (line: string): void => void said.push(line);
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub: { ...hub, clock, onNotice } })), BYTES);
    assertEquals(said.length, 2);
    assert(said[1]!.includes(`${partial} has not grown for 10 minutes; taking it over`), said[1]);
    const waited = clock.waits.reduce((sum, wait) => sum + wait, 0);
    assert(waited >= 600_000 && waited <= 602_000, `${waited} ms`);
    await stuck.write(new Uint8Array(10));
    assertEquals(await Deno.readFile(path), BYTES);

    // The other way round: this one is taken over while it waits for bytes.
    await Deno.remove(path);
    const onProgress = ({ received }: HubProgress): void => {
      if (received === 300_000) Deno.removeSync(partial);
    };
    await assertRejects(
      () => openSource(ADDRESS, { hub: { ...hub, onProgress } }),
      Error,
      `keeping ${ADDRESS} in ${partial}: another process took it over`,
    );
    assertEquals(await filesBelow(cache), {});
  });
});

Deno.test("a full disk leaves no partial, and is named", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const { write } = Deno.FsFile.prototype;
    let left = 100_000;
    Deno.FsFile.prototype.write = function (bytes) {
      left -= bytes.length;
      const full = Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });
      return left < 0 ? Promise.reject(full) : write.call(this, bytes);
    };
    try {
      for (const hasRanges of [true, false]) {
        server.behaviour.hasRanges = hasRanges;
        const error = await assertRejects(() => openSource(ADDRESS, { hub: { endpoint: server.origin, cache } }));
        assertMatch(
          (error as Error).message,
          /^keeping hf:me\/saes\/layer 5\/sae\.pt in \/.*\.partial: the disk is full; the partial file is removed$/,
        );
        assertEquals(await filesBelow(cache), {});
      }
    } finally {
      Deno.FsFile.prototype.write = write;
    }
  });
});

Deno.test("a body without end goes to the disk, not into memory, and is given up at the bound", async () => {
  await using server = serveHub();
  server.behaviour.isEndless = true;
  await inFolder(async (cache) => {
    let most = 0;
    const onProgress = ({ received }: HubProgress): void => {
      most = Math.max(most, received, ...Object.values(sizesBelow(cache)));
    };
    const hub = { endpoint: server.origin, cache, maxBytes: 1_000_000, onProgress };
    for (const address of [ADDRESS, `${server.origin}${encodeURI(PLACE)}?Signature=s3cret`]) {
      most = 0;
      await assertRejects(() => openSource(address, { hub }), CheckpointError, "it sends more than 1000000 bytes");
      assert(most > 900_000 && most <= 1_000_000, `${most} bytes`);
      assertEquals(await filesBelow(cache), {});
    }
  });
});

/** Sizes of the files below a folder. */
function sizesBelow(folder: string): number[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
    isDirectory ? sizesBelow(`${folder}/${name}`) : [Deno.statSync(`${folder}/${name}`).size]
  );
}

Deno.test("a web server without ranges fills a copy once, whose path holds no signature", async () => {
  await using server = serveHub();
  server.behaviour.hasRanges = false;
  await inFolder(async (cache) => {
    const address = `${server.origin.replace("//", "//us3r:p4ss@")}${encodeURI(PLACE)}?Signature=s3cret`;
    for (let n = 0; n < 2; n++) {
      const source = await openSource(address, { hub: { cache } });
      assertEquals(await bytesOf(source), BYTES);
      assert(source.name.startsWith(`${server.origin}/me/saes/`), source.name);
    }
    const files = await filesBelow(cache);
    assertEquals(Object.values(files), [300_000]);
    assert(!/us3r|p4ss|s3cret/.test(Object.keys(files)[0]!));
  });
});

Deno.test("a whole answer that breaks on its way into a copy is begun again, and says its length where it has one", async () => {
  await using server = serveHub();
  server.behaviour.hasRanges = false;
  await inFolder(async (cache) => {
    const [clock, sizes] = [new FakeClock(), new Set<number | null>()];
    server.behaviour.instead = (_, path) => {
      server.behaviour.breakAfter = server.seen.length === 1 ? 70_000 : Infinity;
      if (path !== PLACE || server.seen.length < 3) return undefined;
      return new Response(new Blob([BYTES.slice(0, 30)]).stream(), { headers: { etag: '"two"' } });
    };
    const onProgress = ({ size }: HubProgress): void => void sizes.add(size);
    const hub = { endpoint: server.origin, cache, clock, onProgress };
    assertEquals(await bytesOf(await openSource(ADDRESS, { hub })), BYTES);
    assertEquals([server.seen.length, clock.waits], [2, [1000]]);
    assert(sizes.has(300_000));
    assertEquals((await openSource(ADDRESS, { hub })).size, 30);
    assert(sizes.has(null));
    assertEquals(Object.values(await filesBelow(cache)).sort(), [30, 300_000]);
  });
});

Deno.test("names that no file system takes are cut and end with a hash", async () => {
  const long = "ü".repeat(120);
  const etag = `"${"x".repeat(400)}"`;
  await using server = serveHub({
    [`/me/saes/resolve/main/${long}a.pt`]: { bytes: BYTES, etag },
    [`/me/saes/resolve/main/${long}b.pt`]: { bytes: SMALL.bytes, etag },
  });
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    for (let n = 0; n < 2; n++) {
      assertEquals(await bytesOf(await openSource(`hf:me/saes/${long}a.pt`, { hub })), BYTES);
      assertEquals(await bytesOf(await openSource(`hf:me/saes/${long}b.pt`, { hub })), SMALL.bytes);
    }
    const paths = Object.keys(await filesBelow(cache));
    assertEquals(paths.length, 2);
    for (const part of paths.flatMap((path) => path.split("/"))) assert(part.length <= 255, part);
  });
});

Deno.test("a hub's own password is in no path and no message", async () => {
  await using server = serveHub();
  const endpoint = server.origin.replace("//", "//us3r:p4ss@");
  await inFolder(async (cache) => {
    const source = await openSource(ADDRESS, { hub: { endpoint, cache } });
    assertEquals(server.seen[0]!.authorization, `Basic ${btoa("us3r:p4ss")}`);
    assert(!/us3r|p4ss/.test(source.name + Object.keys(await filesBelow(cache))));
  });
  for (const wrong of ["http://us3r:p4ss@:1", "ftp://us3r:p4ss@x"]) {
    const error = await assertRejects(() => openSource(ADDRESS, { hub: { endpoint: wrong, cache: null } }), TypeError);
    assert(!/us3r|p4ss/.test(Deno.inspect(error)), error.message);
  }
});

Deno.test("a folder for copies that the program gives must be usable", async () => {
  await using server = serveHub();
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    const hub = { endpoint: server.origin, cache: `${folder}/file` };
    const error = await assertRejects(() => openSource(ADDRESS, { hub }));
    assertMatch((error as Error).message, /\/file\/.*: a file is in the way of the folder$/);
  });
});

// --------------------------------------------------------------------------------------------------- the environment

/** Runs a program in a process of its own and returns what it prints. */
async function runProgram(permissions: string[], env: Record<string, string>, body: string): Promise<string> {
  const files = new URL("../../io/files.ts", import.meta.url);
  const program = `import { openFiles, openSource } from ${JSON.stringify(files.href)}; ${body}`;
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const entry = `data:application/typescript,${encodeURIComponent(program)}`;
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-lock", `--config=${config}`, ...permissions, entry],
    env,
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).trim();
}

Deno.test("the environment says where the hub is, what the token is, and where copies go", async () => {
  await using server = serveHub();
  await inFolder(async (home) => {
    const env = { HF_ENDPOINT: server.origin, HF_TOKEN: "hf_env\n", XDG_CACHE_HOME: `${home}/cache`, HOME: home };
    const body = `const source = await openSource(${JSON.stringify(ADDRESS)}); console.log(source.size);`;
    assertEquals(await runProgram(["-A"], env, body), "300000");
    assertEquals(server.seen[0]!.authorization, "Bearer hf_env");
    // Deno keeps its own cache there too.
    const [path] = Object.keys(await filesBelow(home)).filter((path) => path.includes("saev-nn"));
    assert(path!.startsWith("cache/saev-nn/hub/http%3A%2F%2F127.0.0.1"), path);
  });
});

Deno.test("without permissions nothing is asked: no environment, no folder", async () => {
  await using server = serveHub();
  await inFolder(async (home) => {
    const env = { HF_ENDPOINT: "http://127.0.0.1:9", HF_TOKEN: "hf_env", HOME: home };
    const hub = `{ endpoint: ${JSON.stringify(server.origin)} }`;
    const body = `const source = await openSource(${JSON.stringify(ADDRESS)}, { hub: ${hub} });
      console.log((await source.read(100000, 100002)).length);`;
    const permissions = ["--allow-net=127.0.0.1", "--allow-import"];
    assertEquals(await runProgram(permissions, env, body), "2");
    assertEquals(server.seen[0]!.authorization, null);
    assertEquals(Object.keys(await filesBelow(home)).filter((path) => path.includes("saev-nn")), []);
  });
});

Deno.test("a cache of the user's that cannot be used is said once, and does without", async () => {
  await using server = serveHub();
  await inFolder(async (home) => {
    await Deno.writeTextFile(`${home}/cache`, "");
    const env = { HF_ENDPOINT: server.origin, XDG_CACHE_HOME: `${home}/cache`, HOME: home };
    const body = `const hub = { onNotice: (line) => console.log(line) };
      for (let n = 0; n < 2; n++) console.log((await openSource(${JSON.stringify(ADDRESS)}, { hub })).size);
      const pinned = await openFiles("hf:me/saes@refs/pr/1", { hub });
      console.log(pinned.main);`;
    const lines = (await runProgram(["-A"], env, body)).split("\n");
    assertEquals(lines.slice(1), ["300000", "300000", "null"]);
    assertMatch(lines[0]!, /\/cache\/saev-nn\/hub\/.*: a file is in the way of the folder; continuing without copies$/);
  });
});
