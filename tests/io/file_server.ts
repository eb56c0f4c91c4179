/**
 * Servers on the loopback that serve files by ranges, as those of a hub do, and that misbehave when told to.
 *
 * @module
 */

/** A file as a server has it. */
export interface ServedFile {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly etag?: string;
  /** What a hub says of it, in `X-Linked-ETag`, `X-Linked-Size` and `X-Repo-Commit`. */
  readonly linked?: { readonly etag?: string; readonly size?: number; readonly commit?: string };
}

/** What goes wrong with one request: an answer of that status, or none at all. */
export type Setback = { readonly status: number; readonly retryAfter?: string } | "silence";

/** What a server does. Fields may be changed while it runs. */
export interface Behaviour {
  /** By path, such as `/a/b.pt`, decoded. */
  files: Record<string, ServedFile>;
  /** Whether it knows ranges. */
  hasRanges?: boolean;
  /** Whether it looks at `If-Range`. */
  hasIfRange?: boolean;
  /** Breaks the connection of an answer after so many bytes. */
  breakAfter?: number;
  /** Sends nothing more after so many bytes, and keeps the connection. */
  stallAfter?: number;
  /** What goes wrong with the next requests, one after the other. */
  setbacks?: Setback[];
  /** Sends a body without length and without end, with the status 200. */
  isEndless?: boolean;
  /** Sends a page in place of every file, with the status 200. */
  page?: string;
  /** Answers something else to some requests. */
  instead?: (request: Request, path: string) => Response | undefined;
}

/** A request as it arrived. */
export interface SeenRequest {
  readonly path: string;
  readonly range: string | null;
  readonly ifRange: string | null;
  readonly authorization: string | null;
}

/** A running server. */
export interface FileServer extends AsyncDisposable {
  readonly origin: string;
  readonly behaviour: Behaviour;
  readonly seen: SeenRequest[];
}

/** Starts a server. */
export function serveFiles(behaviour: Behaviour): FileServer {
  const seen: SeenRequest[] = [];
  const closing = Promise.withResolvers<void>();
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {}, onError: () => new Response() },
    (request) => {
      const path = decodeURIComponent(new URL(request.url).pathname);
      const { headers } = request;
      seen.push({
        path,
        range: headers.get("range"),
        ifRange: headers.get("if-range"),
        authorization: headers.get("authorization"),
      });
      const setback = behaviour.setbacks?.shift();
      if (setback === "silence") return closing.promise.then(() => new Response());
      if (setback !== undefined) {
        const { status, retryAfter } = setback;
        return new Response("x", { status, headers: retryAfter === undefined ? {} : { "retry-after": retryAfter } });
      }
      return behaviour.instead?.(request, path) ?? answer(request, behaviour.files[path], behaviour);
    },
  );
  return {
    origin: `http://127.0.0.1:${server.addr.port}`,
    behaviour,
    seen,
    async [Symbol.asyncDispose]() {
      closing.resolve();
      await server.shutdown();
    },
  };
}

function answer(request: Request, file: ServedFile | undefined, behaviour: Behaviour): Response {
  const { hasRanges = true, hasIfRange = true, isEndless = false, page } = behaviour;
  if (page !== undefined) return new Response(page, { headers: { etag: '"page"', "content-type": "text/html" } });
  if (file === undefined) return new Response("no", { status: 404, statusText: "Not Found" });
  const { bytes, etag, linked = {} } = file;
  const headers = new Headers(etag === undefined ? {} : { etag });
  if (linked.etag !== undefined) headers.set("x-linked-etag", linked.etag);
  if (linked.size !== undefined) headers.set("x-linked-size", String(linked.size));
  if (linked.commit !== undefined) headers.set("x-repo-commit", linked.commit);
  if (isEndless) return new Response(endless(), { headers });
  const ifRange = request.headers.get("if-range");
  const isOther = hasIfRange && ifRange !== null && ifRange !== etag;
  const range = hasRanges && !isOther ? /^bytes=(\d+)-(\d+)$/.exec(request.headers.get("range") ?? "") : null;
  if (range === null) return new Response(broken(bytes, behaviour), { headers });
  const [from, last] = [Number(range[1]), Math.min(Number(range[2]), bytes.length - 1)];
  if (from > last) {
    headers.set("content-range", `bytes */${bytes.length}`);
    return new Response("no such range", { status: 416, headers });
  }
  headers.set("content-range", `bytes ${from}-${last}/${bytes.length}`);
  return new Response(broken(bytes.subarray(from, last + 1), behaviour), { status: 206, headers });
}

function endless(): ReadableStream<Uint8Array> {
  return new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(2 ** 16)) });
}

/** A body whose connection breaks or stalls, where it is to. */
function broken(
  bytes: Uint8Array<ArrayBuffer>,
  { breakAfter = Infinity, stallAfter = Infinity }: Behaviour,
): Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> {
  if (bytes.length > stallAfter) {
    return new ReadableStream({ start: (controller) => controller.enqueue(bytes.subarray(0, stallAfter)) });
  }
  if (bytes.length <= breakAfter) return bytes;
  let isSent = false;
  return new ReadableStream({
    // The bytes must have left before the connection breaks.
    async pull(controller) {
      if (isSent) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        return controller.error(new Error("broken"));
      }
      isSent = true;
      controller.enqueue(bytes.subarray(0, breakAfter));
    },
  });
}
