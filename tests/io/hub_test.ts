/** `io/hub.ts` and the cache in `io/files.ts` against a server that speaks as the hub does. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { readCheckpoint } from "../../io/checkpoints/checkpoint.ts";
import { CheckpointError } from "../../io/errors.ts";
import { openFiles, openSource } from "../../io/files.ts";
import { formatHubAddress, type HubOptions, type HubProgress, isHubAddress, parseHubAddress } from "../../io/hub.ts";
import type { Source } from "../../io/source.ts";
import { type FileServer, type ServedFile, serveFiles } from "./file_server.ts";
import { goldenFiles, goldenUrl } from "./checkpoints/golden_files.ts";

const BYTES = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 2654435761) >>> 24);
const LARGE: ServedFile = { bytes: BYTES, etag: '"one"' };
const SMALL: ServedFile = { bytes: BYTES.slice(0, 30), etag: '"small"' };
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const PLACE = "/me/saes/resolve/main/layer 5/sae.pt";
const ADDRESS = "hf:me/saes/layer 5/sae.pt";

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
    ["hf:me/saes/../../x/y", "leads elsewhere"],
    ["hf:me/saes//x", "leads elsewhere"],
    ["hf:me/saes/a\\b", "leads elsewhere"],
    ["hf:me/saes/x@", `found the revision ""`],
    ["hf:me/saes/x@..", `found the revision ".."`],
    ["hf:me/saes/x@a/../b", `found the revision "a/../b"`],
    ["hf:me/saes/x@a b", `found the revision "a b"`],
    ["hf:me/saes@main/layer/sae.pt", `found the revision "main/layer/sae.pt" of the whole repository`],
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
  const hub = { endpoint: server.origin, cache: null };
  const answers: [status: number, options: HubOptions, message: string][] = [
    [
      401,
      {},
      "the repository is private or gated, or there is none of that name: set HF_TOKEN to a token that opens it",
    ],
    [403, {}, "set HF_TOKEN"],
    [401, { token: "hf_secret" }, "the token given (HF_TOKEN) does not open it"],
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
  await assertRejects(() => openFiles("hf:me/saes/layer 6", { hub }), CheckpointError, "neither a file nor a folder");
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
  await assertRejects(() => readCheckpoint(`${server.origin}/sae.pt`), CheckpointError, "/sae.pt: found no file");
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
    [() => json("<html>"), "expected a value"],
    [() => json({}), "is no list"],
    [() => json(["x"]), "an entry that is not in the folder"],
    [() => json([{ type: "file" }]), "an entry that is not in the folder"],
    [() => json([{ ...entry, path: "../x" }]), "an entry that is not in the folder"],
    [() => json([{ ...entry, path: "layer 5/../../x" }]), "an entry that is not in the folder"],
    [() => json([entry], '<http://127.0.0.1:9/x>; rel="next"'), `goes on at "http://127.0.0.1:9/x"`],
    [() => json([entry], '<file:///etc/passwd>; rel="next"'), "goes on at"],
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
    assertEquals([first.name, await bytesOf(first)], [ADDRESS, BYTES]);
    assertEquals([seen.at(0)!.received, seen.at(-1)!.received, seen.at(-1)!.size], [0, 300_000, 300_000]);
    assertEquals(server.seen.map(({ range }) => range), ["bytes=0-65535", "bytes=65536-299999"]);
    const files = await filesBelow(cache);
    assertEquals(Object.values(files), [300_000]);
    assert(Object.keys(files)[0]!.endsWith("/me%2Fsaes/main/layer%205/sae.pt/%22one%22"), Object.keys(files)[0]);

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

Deno.test("an interrupted download goes on where it stopped, if the file is still the same", async () => {
  await using server = serveHub();
  await inFolder(async (cache) => {
    const hub = { endpoint: server.origin, cache };
    const interrupt = async (): Promise<void> => {
      const controller = new AbortController();
      const onProgress = ({ received }: HubProgress): void => {
        if (received > 100_000) controller.abort();
      };
      server.behaviour.breakAfter = 70_000;
      const options = { hub: { ...hub, onProgress, signal: controller.signal } };
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

    // Another file stands there when it goes on: nothing of the first may be in it.
    server.behaviour.files[PLACE] = { bytes: BYTES.toReversed(), etag: '"two"' };
    await interrupt();
    server.behaviour.files[PLACE] = { bytes: BYTES.map((byte) => 255 - byte), etag: '"three"' };
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
    const hub = { endpoint: server.origin, cache };
    // The first bytes arrive whole, then one connection brings something and the next nothing.
    let n = 0;
    server.behaviour.instead = () => {
      server.behaviour.breakAfter = [Infinity, 70_000, 0][n++]!;
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
    ["no ranges, no tag", { bytes: BYTES }, false, 0],
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

// --------------------------------------------------------------------------------------------------- the environment

/** Runs a program in a process of its own and returns what it prints. */
async function runProgram(permissions: string[], env: Record<string, string>, body: string): Promise<string> {
  const files = new URL("../../io/files.ts", import.meta.url);
  const program = `import { openSource } from ${JSON.stringify(files.href)}; ${body}`;
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
