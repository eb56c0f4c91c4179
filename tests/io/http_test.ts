/** `io/http.ts` against servers that keep to the protocol, and servers that do not. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { CheckpointError } from "../../io/errors.ts";
import { openHttp, shownAddress, StatusError } from "../../io/http.ts";
import { joinBytes } from "../../io/source.ts";
import { FakeClock } from "../support/clock.ts";
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

Deno.test("an answer that a server packs all the same is refused, and not taken for the file", async () => {
  for (const status of [200, 206]) {
    const headers = { "content-encoding": "gzip", "content-range": "bytes 0-99/100" };
    await using server = serve({ instead: () => new Response(BYTES.slice(0, 100), { status, headers }) });
    const message = 'the server sends it compressed with "gzip", although it was asked not to';
    await assertRejects(() => openHttp(`${server.origin}/x.pt`), CheckpointError, message);
  }
});

Deno.test("a connection that breaks is taken up where it broke", async () => {
  await using server = serve();
  const clock = new FakeClock();
  const source = await openHttp(`${server.origin}/x.pt`, { clock });
  server.behaviour.breakAfter = 70_000;
  assertEquals(await source.read(80_000, 300_000), BYTES.slice(80_000));
  const ranges = server.seen.slice(1).map(({ range }) => range);
  assert(ranges.length > 3, ranges.join());
  assertEquals([ranges[0], ranges.at(-1)!.endsWith("-299999")], ["bytes=80000-299999", true]);
  // Each connection brought something.
  assertEquals(clock.waits, Array(ranges.length - 1).fill(1000));
  server.behaviour.breakAfter = 0;
  clock.waits.length = 0;
  await assertRejects(
    () => source.read(80_000, 300_000),
    CheckpointError,
    "the connection ended after 0 of 220000 bytes (tried 4 times)",
  );
  assertEquals(clock.waits, [1000, 2000, 4000]);
});

Deno.test("a whole file or a first answer that breaks is an error", async () => {
  for (const hasRanges of [false, true]) {
    await using server = serve({ hasRanges, breakAfter: 1000 });
    const clock = new FakeClock();
    const message = "the connection ended after 1000 bytes (tried 4 times)";
    await assertRejects(() => openHttp(`${server.origin}/x.pt`, { clock }), CheckpointError, message);
    assertEquals([server.seen.length, clock.waits], [4, [1000, 2000, 4000]]);
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
      /the file changed while it was being read|it sent 100000 to 200000 of 299999/.test(message),
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
  await assertRejects(() => source.read(70_000, 150_000), CheckpointError, "the file changed while it was being read");
});

Deno.test("answers that are no file are errors that name the status", async () => {
  await using server = serve({
    instead: (_request, path) => path === "/down" ? new Response("x", { status: 503 }) : undefined,
  });
  const error = await assertRejects(() => openHttp(`${server.origin}/y.pt`), StatusError, "answered 404 Not Found");
  assertEquals(error.status, 404);
  await assertRejects(
    () => openHttp(`${server.origin}/down`, { clock: new FakeClock() }),
    StatusError,
    "the server answered 503 Service Unavailable (tried 4 times)",
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
    [() => partial("bytes 0-65535/9999999999999999", head), "the server gives its size as 10000000000000000 bytes"],
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
    await assertRejects(
      () => openHttp(`${server.origin}/x.pt`, { clock: new FakeClock() }),
      CheckpointError,
      message,
    );
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
    const source = await openHttp(`${server.origin}/x.pt`, { clock: new FakeClock() });
    server.behaviour.instead = answer;
    await assertRejects(() => source.read(100_000, 200_000), CheckpointError, message);
  }
});

Deno.test("a whole file that is too long is given up, told or not, and so is one that never ends", async () => {
  const maxBytes = 1_000_000;
  let sent = 0;
  const endless = (bytes: number) =>
    new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull(controller) {
        sent += bytes;
        controller.enqueue(new Uint8Array(bytes));
      },
    });
  for (const bytes of [2 ** 16, 100]) {
    sent = 0;
    await using server = serve({ instead: () => new Response(endless(bytes)) });
    const message = `reading ${server.origin}/x.pt: it sends more than 1000000 bytes`;
    await assertRejects(() => openHttp(`${server.origin}/x.pt`, { maxBytes }), CheckpointError, message);
    assertEquals(server.seen.length, 1);
    // What the sockets hold besides.
    assert(sent < 20_000_000, `${sent} bytes were taken`);
  }
  await using server = serve({ hasRanges: false }, { bytes: new Uint8Array(1_000_001) });
  await assertRejects(
    () => openHttp(`${server.origin}/x.pt`, { maxBytes }),
    CheckpointError,
    "it sends 1000001 bytes; expected at most 1000000",
  );
});

Deno.test("what may pass is tried four times, later each time, as the server asks, and said", async () => {
  const setbacks: [status: number, retryAfter: string | undefined, wait: number][] = [
    [429, "7", 7000],
    [429, "Wed, 01 Jan 2025 00:01:00 GMT", 60_000],
    [429, "Wed, 01 Jan 2020 00:00:00 GMT", 1000],
    [503, "soon", 1000],
    [503, "0", 1000],
    [500, undefined, 1000],
    [502, undefined, 1000],
    [504, undefined, 1000],
  ];
  for (const [status, retryAfter, wait] of setbacks) {
    await using server = serve({ setbacks: [{ status, ...retryAfter !== undefined && { retryAfter } }] });
    const [clock, said] = [new FakeClock(), [] as string[]];
    const source = await openHttp(`${server.origin}/x.pt`, { clock, onNotice: (line) => void said.push(line) });
    assertEquals([source.size, clock.waits], [300_000, [wait]], `${status} ${retryAfter}`);
    assertEquals(said.length, 1);
    assert(
      said[0]!.includes(`answered ${status} `) && said[0]!.endsWith(`; trying again in ${wait / 1000} s`),
      said[0],
    );
  }
  await using server = serve({ setbacks: Array(4).fill({ status: 502 }) });
  const clock = new FakeClock();
  await assertRejects(
    () => openHttp(`${server.origin}/x.pt`, { clock }),
    StatusError,
    "the server answered 502 Bad Gateway (tried 4 times)",
  );
  assertEquals([server.seen.length, clock.waits], [4, [1000, 2000, 4000]]);
  // Later reads too, and nobody waits for an hour.
  const source = await openHttp(`${server.origin}/x.pt`, { clock });
  server.behaviour.setbacks = [{ status: 503 }, { status: 429 }];
  assertEquals(await source.read(100_000, 200_000), BYTES.slice(100_000, 200_000));
  server.behaviour.setbacks = [{ status: 429, retryAfter: "3600" }];
  await assertRejects(() => source.read(100_000, 200_000), StatusError, "it asks to wait 3600 s");
  server.behaviour.setbacks = [{ status: 404 }, { status: 404 }];
  await assertRejects(() => source.read(100_000, 200_000), StatusError, "answered 404 Not Found");
  assertEquals(server.behaviour.setbacks.length, 1);
});

Deno.test("a signal ends the wait before the next try", async () => {
  await using server = serve({ setbacks: [{ status: 503 }] });
  const controller = new AbortController();
  const options = { signal: controller.signal, onNotice: () => controller.abort() };
  await assertRejects(() => openHttp(`${server.origin}/x.pt`, options), DOMException, "aborted");
});

Deno.test("no answer, and no further byte, for thirty seconds is tried again", async () => {
  await using server = serve({ setbacks: ["silence"] });
  const [clock, said] = [new FakeClock(), [] as string[]];
  const opening = openHttp(`${server.origin}/x.pt`, { clock, onNotice: (line) => void said.push(line) });
  while (server.seen.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await clock.passIdle();
  const source = await opening;
  assertEquals(said, [
    `reading ${server.origin}/x.pt: no answer: nothing arrived for 30 s; trying again in 1 s`,
  ]);

  server.behaviour.stallAfter = 50_000;
  const pieces = source.stream(100_000, 200_000)[Symbol.asyncIterator]();
  let length = 0;
  while (length < 50_000) length += (await pieces.next()).value!.length;
  const next = pieces.next();
  delete server.behaviour.stallAfter;
  await clock.passIdle();
  length += (await next).value!.length;
  for (let piece = await pieces.next(); !piece.done; piece = await pieces.next()) length += piece.value.length;
  assertEquals([length, server.seen.at(-1)!.range], [100_000, "bytes=150000-199999"]);
  assert(said[1]!.includes("nothing arrived for 30 s after 50000 of 100000 bytes"), said[1]);
  // Time that the reader takes does not count.
  assertEquals(clock.waits, [1000, 1000]);
});

Deno.test("a web page in place of a file is refused, with and without ranges", async () => {
  for (const page of ["<!DOCTYPE html><title>Login</title>", " \n<HTML lang=en>", "\ufeff<html>"]) {
    for (const hasRanges of [true, false]) {
      await using server = serve({}, { bytes: new TextEncoder().encode(page) });
      server.behaviour.hasRanges = hasRanges;
      await assertRejects(() => openHttp(`${server.origin}/x.pt`), CheckpointError, "the server sent a web page");
    }
  }
  await using server = serve({ page: "<!doctype html>" });
  assertEquals((await openHttp(`${server.origin}/x.html`)).size, 15);
});

Deno.test("no message has a user, a password, a query or a fragment", async () => {
  await using server = serve();
  const secrets = /us3r|p4ss|s3cret|Signature|fr4gment/;
  const address = (origin: string, path = "/x.pt"): string =>
    `${origin.replace("//", "//us3r:p4ss%20w@")}${path}?Signature=s3cret#fr4gment`;
  const source = await openHttp(address(server.origin));
  assertEquals([source.name, server.seen[0]!.authorization], [
    `${server.origin}/x.pt`,
    `Basic ${btoa("us3r:p4ss w")}`,
  ]);
  const gone = serve();
  await gone[Symbol.asyncDispose]();
  const to = (location: string) => (): Response => new Response(null, { status: 302, headers: { location } });
  const cases: [open: () => Promise<unknown>, message: string][] = [
    [() => openHttp(address(server.origin, "/y.pt")), "answered 404"],
    [() => openHttp(address(gone.origin), { clock: new FakeClock() }), `reading ${gone.origin}/x.pt: no answer: `],
    [() => source.read(0, 300_001), "expected bytes"],
    [() => openHttp("https://us3r:p4ss@:1/?Signature=s3cret"), "expected an http or https address"],
    [() => openHttp("ftp://us3r:p4ss@host/?Signature=s3cret"), "expected an http or https address"],
  ];
  for (const location of ["ftp://us3r:p4ss@host/x?Signature=s3cret", "http://us3r:p4ss@:1/x?Signature=s3cret"]) {
    cases.push([() => {
      server.behaviour.instead = to(location);
      return openHttp(`${server.origin}/x.pt`);
    }, "the server redirected to"]);
  }
  cases.push([() => {
    server.behaviour.instead = to(address(gone.origin));
    return openHttp(`${server.origin}/x.pt`, { clock: new FakeClock() });
  }, `no answer from ${gone.origin}/x.pt: `]);
  for (const [open, message] of cases) {
    const error = await assertRejects(open, Error, message);
    assert(!secrets.test(Deno.inspect(error)), Deno.inspect(error));
  }
  assertEquals(shownAddress("data/us?r#1.npy"), "data/us?r#1.npy");
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
  const clock = new FakeClock();
  const error = await assertRejects(() => openHttp(`${server.origin}/x.pt`, { clock }), TypeError, "refused");
  // A second later there would be none either.
  assertEquals([error.cause, clock.waits], [undefined, []]);
});

Deno.test("what is no address of the web is refused by name", async () => {
  for (const address of ["/sae.pt", "file:///etc/passwd", "ftp://x/y", ""]) {
    await assertRejects(() => openHttp(address), TypeError, `reading ${JSON.stringify(address)}: expected an http`);
  }
});
