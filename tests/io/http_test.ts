/** `io/http.ts` against servers that keep to the protocol, and servers that do not. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { openHttp, readBody, StatusError } from "../../io/http.ts";
import { joinBytes } from "../../io/source.ts";
import { type Behaviour, type FileServer, type ServedFile, serveFiles } from "./file_server.ts";

const BYTES = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 2654435761) >>> 24);
const FILE: ServedFile = { bytes: BYTES, etag: '"one"' };

function serve(more: Partial<Behaviour> = {}, file = FILE): FileServer {
  return serveFiles({ files: { "/x.pt": file }, ...more });
}

async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  return joinBytes(await Array.fromAsync(pieces));
}

Deno.test("ranges are read, and nothing else", async () => {
  await using server = serve();
  const source = await openHttp(`${server.origin}/x.pt`);
  assertEquals([source.name, source.size, source.etag], [`${server.origin}/x.pt`, 300_000, '"one"']);
  // The first bytes came with the first answer.
  assertEquals(await source.read(5, 60_000), BYTES.slice(5, 60_000));
  assertEquals(server.seen.map(({ range }) => range), ["bytes=0-65535"]);
  assertEquals(await source.read(100_000, 250_000), BYTES.slice(100_000, 250_000));
  assertEquals(await source.read(299_999, 300_000), BYTES.slice(299_999));
  assertEquals(await source.read(0, 300_000), BYTES);
  assertEquals(server.seen.map(({ range, ifRange }) => [range, ifRange]), [
    ["bytes=0-65535", null],
    ["bytes=100000-249999", '"one"'],
    ["bytes=262144-299999", '"one"'],
    ["bytes=65536-299999", '"one"'],
  ]);
  await assertRejects(() => source.read(0, 300_001), CheckpointError, "expected bytes 0 to 300001");
});

Deno.test("bytes are streamed, from anywhere", async () => {
  await using server = serve();
  let arrived = 0;
  const source = await openHttp(`${server.origin}/x.pt`, { onBytes: (count) => void (arrived += count) });
  for (const [from, to] of [[0, 300_000], [10, 20], [70_000, 70_000], [65_000, 66_000], [200_000, 300_000]] as const) {
    assertEquals(await collect(source.stream(from, to)), BYTES.slice(from, to));
  }
  assertEquals(arrived, 300_000 + 464 + 100_000);
});

Deno.test("a short and an empty file are read at once", async () => {
  for (const length of [0, 1, 65_535, 65_536]) {
    await using server = serve({}, { bytes: BYTES.slice(0, length) });
    const source = await openHttp(`${server.origin}/x.pt`);
    assertEquals([source.size, source.etag], [length, null]);
    assertEquals(await source.read(0, length), BYTES.slice(0, length));
    assertEquals(await collect(source.stream(0, length)), BYTES.slice(0, length));
    assertEquals(server.seen.length, 1);
  }
});

Deno.test("a server that knows no ranges sends the whole file once", async () => {
  await using server = serve({ hasRanges: false });
  const source = await openHttp(`${server.origin}/x.pt`);
  assertEquals([source.size, source.etag], [300_000, '"one"']);
  assertEquals(await source.read(100_000, 250_000), BYTES.slice(100_000, 250_000));
  assertEquals(await collect(source.stream(299_990, 300_000)), BYTES.slice(299_990));
  assertEquals(server.seen.length, 1);
});

Deno.test("a connection that breaks is taken up where it broke", async () => {
  await using server = serve();
  const source = await openHttp(`${server.origin}/x.pt`);
  server.behaviour.breakAfter = 70_000;
  assertEquals(await source.read(80_000, 300_000), BYTES.slice(80_000));
  const ranges = server.seen.slice(1).map(({ range }) => range);
  assert(ranges.length > 3, ranges.join());
  assertEquals([ranges[0], ranges.at(-1)!.endsWith("-299999")], ["bytes=80000-299999", true]);
  server.behaviour.breakAfter = 0;
  await assertRejects(
    () => source.read(80_000, 300_000),
    CheckpointError,
    "the connection ended after 0 of 220000 bytes",
  );
});

Deno.test("a whole file or a first answer that breaks is an error", async () => {
  for (const hasRanges of [false, true]) {
    await using server = serve({ hasRanges, breakAfter: 1000 });
    await assertRejects(() => openHttp(`${server.origin}/x.pt`), CheckpointError, "the connection ended after 1000");
  }
});

Deno.test("a file that changes between two reads is an error", async () => {
  const changes: [what: string, change: Partial<Behaviour>, before: ServedFile, after: ServedFile][] = [
    ["another tag", {}, FILE, { bytes: BYTES, etag: '"two"' }],
    ["another tag, which the server does not compare", { hasIfRange: false }, FILE, { bytes: BYTES, etag: '"two"' }],
    ["another weak tag", {}, { bytes: BYTES, etag: 'W/"one"' }, { bytes: BYTES, etag: 'W/"two"' }],
    ["no tag any more", { hasIfRange: false }, FILE, { bytes: BYTES }],
    ["another length", {}, { bytes: BYTES }, { bytes: BYTES.slice(0, 299_999) }],
    ["a much shorter file", {}, { bytes: BYTES }, { bytes: BYTES.slice(0, 10) }],
  ];
  for (const [what, behaviour, before, after] of changes) {
    await using server = serve(behaviour, before);
    const source = await openHttp(`${server.origin}/x.pt`);
    await source.read(70_000, 150_000);
    server.behaviour.files["/x.pt"] = after;
    const { message } = await assertRejects(() => source.read(100_000, 200_000), CheckpointError, "", what);
    assert(
      /the file changed while it was read|it sent 100000 to 200000 of 299999/.test(message),
      `${what}: ${message}`,
    );
  }
});

Deno.test("without a tag the date must stay the same", async () => {
  let date = "Mon, 01 Jan 2024 00:00:00 GMT";
  const instead: Behaviour["instead"] = (request) => {
    const [from, last] = /bytes=(\d+)-(\d+)/.exec(request.headers.get("range")!)!.slice(1).map(Number);
    const headers = { "last-modified": date, "content-range": `bytes ${from}-${last}/300000` };
    return new Response(BYTES.slice(from, last! + 1), { status: 206, headers });
  };
  await using server = serve({ instead });
  const source = await openHttp(`${server.origin}/x.pt`);
  assertEquals(await source.read(70_000, 150_000), BYTES.slice(70_000, 150_000));
  date = "Tue, 02 Jan 2024 00:00:00 GMT";
  await assertRejects(() => source.read(70_000, 150_000), CheckpointError, "the file changed while it was read");
});

Deno.test("answers that are no file are errors that name the status", async () => {
  await using server = serve({
    instead: (_request, path) => path === "/down" ? new Response("x", { status: 503 }) : undefined,
  });
  const error = await assertRejects(() => openHttp(`${server.origin}/y.pt`), StatusError, "answered 404 Not Found");
  assertEquals(error.status, 404);
  await assertRejects(
    () => openHttp(`${server.origin}/down`),
    CheckpointError,
    "the server answered 503 Service Unavailable",
  );
  const source = await openHttp(`${server.origin}/x.pt`);
  delete server.behaviour.files["/x.pt"];
  await assertRejects(() => source.read(70_000, 80_000), StatusError, "answered 404");
});

Deno.test("lying answers are refused, with what was asked and what came", async () => {
  const partial = (range: string, body: Uint8Array<ArrayBuffer>): Response =>
    new Response(body, { status: 206, headers: { "content-range": range, etag: '"one"' } });
  const head = BYTES.slice(0, 65_536);
  const atFirst: [answer: () => Response, message: string][] = [
    [() => partial("bytes 0-65535/*", head), `it sent the range "bytes 0-65535/*"`],
    [() => partial("", head), `it sent the range ""`],
    [() => partial("bytes 0-65535/9999999999999999", head), "it has 10000000000000000 bytes, it says"],
    [() => partial("bytes 0-65535/99999999999999999999", head), "it sent the range"],
    [() => partial("bytes 0-65535/65535", head), "it sent the range"],
    [() => partial("bytes 5-4/300000", head), "it sent the range"],
    [() => partial("items 0-65535/300000", head), "it sent the range"],
    [() => partial("bytes 0-99/300000", head), "it sent bytes 0 to 100 of 300000"],
    [() => partial("bytes 0-65535/300000", BYTES.slice(0, 65_537)), "it sends 65537 bytes; expected at most 65536"],
    [() => partial("bytes 0-65535/300000", BYTES.slice(0, 65_535)), "the connection ended after 65535 of 65536"],
    [() => new Response("x", { status: 416 }), "the server answered 416"],
    [() => new Response(null, { status: 204 }), "the server answered 204"],
  ];
  for (const [answer, message] of atFirst) {
    await using server = serve({ instead: answer });
    await assertRejects(() => openHttp(`${server.origin}/x.pt`), CheckpointError, message);
  }
  const later: [answer: () => Response, message: string][] = [
    [() => partial("bytes 0-99999/300000", BYTES.slice(0, 100_000)), "it sent 0 to 100000 of 300000"],
    [() => partial("bytes 100000-199999/2", BYTES.slice(0, 100_000)), "it sent the range"],
    [
      () => partial("bytes 100000-199999/300000", BYTES.slice(0, 100_001)),
      "it sent more than the 100000 bytes asked for",
    ],
    [() => partial("bytes 100000-199999/300000", new Uint8Array()), "the connection ended after 0 of 100000 bytes"],
  ];
  for (const [answer, message] of later) {
    await using server = serve();
    const source = await openHttp(`${server.origin}/x.pt`);
    server.behaviour.instead = answer;
    await assertRejects(() => source.read(100_000, 200_000), CheckpointError, message);
  }
});

Deno.test("a whole file that is too long is given up, told or not", async () => {
  let sent = 0;
  const endless = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      sent += 2 ** 16;
      controller.enqueue(new Uint8Array(2 ** 16));
    },
  });
  const message = "it sends more than 1000000 bytes";
  await assertRejects(() => readBody(new Response(endless), { name: "x" }, 1_000_000), CheckpointError, message);
  assert(sent < 1_200_000, `${sent} bytes were taken`);
  const told = new Response("x", { headers: { "content-length": String(2 ** 40) } });
  await assertRejects(
    () => readBody(told, { name: "x" }, 2 ** 30),
    CheckpointError,
    "it sends 1099511627776 bytes; expected at most 1073741824",
  );
});

Deno.test("a token goes to the first origin and to nowhere else", async () => {
  await using other = serve();
  await using home = serve();
  const to = (location: string): Response => new Response(null, { status: 302, headers: { location } });
  home.behaviour.instead = (_request, path) => {
    if (path === "/moved.pt") return to("/x.pt");
    if (path === "/lfs.pt") return to(`${other.origin}/x.pt?signature=1`);
    if (path === "/boomerang.pt") return to(`${other.origin}/back.pt`);
    return undefined;
  };
  other.behaviour.instead = (_request, path) => path === "/back.pt" ? to(`${home.origin}/x.pt`) : undefined;
  const token = "hf_secret";

  const moved = await openHttp(`${home.origin}/moved.pt`, { token });
  assertEquals(await moved.read(100_000, 200_000), BYTES.slice(100_000, 200_000));
  assertEquals(home.seen.map(({ path, authorization }) => [path, authorization]), [
    ["/moved.pt", "Bearer hf_secret"],
    ["/x.pt", "Bearer hf_secret"],
    ["/moved.pt", "Bearer hf_secret"],
    ["/x.pt", "Bearer hf_secret"],
  ]);

  const lfs = await openHttp(`${home.origin}/lfs.pt`, { token });
  assertEquals(await lfs.read(100_000, 200_000), BYTES.slice(100_000, 200_000));
  assertEquals(other.seen.map(({ path, authorization, range }) => [path, authorization, range]), [
    ["/x.pt", null, "bytes=0-65535"],
    ["/x.pt", null, "bytes=100000-199999"],
  ]);

  home.seen.length = 0;
  await openHttp(`${home.origin}/boomerang.pt`, { token });
  assertEquals(home.seen.map(({ path, authorization }) => [path, authorization]), [
    ["/boomerang.pt", "Bearer hf_secret"],
    ["/x.pt", null],
  ]);
  assertEquals(other.seen.map(({ authorization }) => authorization), [null, null, null]);
});

Deno.test("redirects that lead nowhere, away from the web, or round in circles are refused", async () => {
  let location = "";
  await using server = serve({ instead: () => new Response(null, { status: 307, headers: { location } }) });
  const cases: [location: string, message: string][] = [
    ["file:///etc/passwd", `redirected to "file:///etc/passwd"; expected an address of http: or https:`],
    ["data:text/plain,x", "redirected to"],
    ["http://", "redirected to"],
    ["/round", "redirected more than 10 times"],
  ];
  for (const [to, message] of cases) {
    location = to;
    await assertRejects(() => openHttp(`${server.origin}/x.pt`, { token: "t" }), CheckpointError, message);
  }
  server.behaviour.instead = () => new Response("x", { status: 302 });
  await assertRejects(() => openHttp(`${server.origin}/x.pt`, { token: "t" }), CheckpointError, "answered 302");
});

Deno.test("a signal ends it", async () => {
  await using server = serve();
  const controller = new AbortController();
  const source = await openHttp(`${server.origin}/x.pt`, { signal: controller.signal });
  controller.abort();
  await assertRejects(() => source.read(100_000, 200_000), DOMException, "aborted");
});

Deno.test("no server at all is not the file's fault", async () => {
  const server = serve();
  await server[Symbol.asyncDispose]();
  await assertRejects(() => openHttp(`${server.origin}/x.pt`), TypeError);
});
