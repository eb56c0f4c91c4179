/**
 * A JSR registry of a few packages on the loopback interface: it accepts what `deno publish` sends and serves it,
 * together with packages given as files, in the form that Deno expects.
 *
 * @module
 */

/** The files of a package by their paths, which start with a slash. */
export type PackageFiles = ReadonlyMap<string, Uint8Array<ArrayBuffer>>;

interface Package {
  readonly version: string;
  readonly exports: Readonly<Record<string, string>>;
  readonly files: PackageFiles;
}

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  ts: "application/typescript",
  js: "text/javascript",
  json: "application/json",
};
const TAR_BLOCK = 512;

/** The registry; its packages live as long as it does. */
export class LoopbackRegistry implements AsyncDisposable {
  readonly #packages = new Map<string, Package>();
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  /** Paths requested, in order. */
  readonly requests: string[] = [];

  constructor() {
    this.#server = Deno.serve(
      { port: 0, hostname: "127.0.0.1", onListen: () => {} },
      (request) => this.#answer(request),
    );
  }

  /** For `JSR_URL`. */
  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/`;
  }

  /** Adds a package as if it had been published. */
  add(name: string, version: string, exports: Readonly<Record<string, string>>, files: PackageFiles): void {
    this.#packages.set(name, { version, exports, files });
  }

  /** The files of a package, sorted. */
  paths(name: string): string[] {
    return [...this.#packages.get(name)?.files.keys() ?? []].sort();
  }

  /** The text of a file of a package. */
  text(name: string, path: string): string {
    return new TextDecoder().decode(this.#packages.get(name)?.files.get(path));
  }

  async #answer(request: Request): Promise<Response> {
    const path = decodeURIComponent(new URL(request.url).pathname);
    this.requests.push(`${request.method} ${path}`);
    const upload = /^\/api\/scopes\/([^/]+)\/packages\/([^/]+)(?:\/versions\/([^/]+))?$/.exec(path);
    if (upload) return await this.#publish(request, `@${upload[1]}/${upload[2]}`, upload[3]);
    const [, name, rest] = /^\/(@[^/]+\/[^/]+)\/(.+)$/.exec(path) ?? [];
    const found = this.#packages.get(name ?? "");
    if (found === undefined) return notFound(path);
    const { version, exports, files } = found;
    if (rest === "meta.json") return Response.json({ name, latest: version, versions: { [version]: {} } });
    if (rest === `${version}_meta.json`) return Response.json({ exports, manifest: await manifest(files) });
    const file = rest!.startsWith(`${version}/`) ? files.get(rest!.slice(version.length)) : undefined;
    if (file === undefined) return notFound(path);
    const type = CONTENT_TYPES[rest!.split(".").at(-1)!] ?? "application/octet-stream";
    return new Response(file, { headers: { "content-type": type } });
  }

  /**
   * Answers the three requests of `deno publish`: whether the version exists, whether the package exists, and the
   * upload.
   */
  async #publish(request: Request, name: string, version: string | undefined): Promise<Response> {
    if (version === undefined) return Response.json({ name });
    if (request.method !== "POST") return notFound(name);
    const files = untar(await gunzip(request.body!));
    const config = JSON.parse(new TextDecoder().decode(files.get("/deno.json")));
    const exports = typeof config.exports === "string" ? { ".": config.exports } : config.exports;
    this.add(name, version, exports, files);
    return Response.json({ id: "1", status: "success", error: null });
  }

  /** Stops serving. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

function notFound(what: string): Response {
  return Response.json({ code: "notFound", message: `no ${what} here` }, { status: 404 });
}

/** Size and checksum of each file, which Deno verifies. */
async function manifest(files: PackageFiles): Promise<Record<string, { size: number; checksum: string }>> {
  const entries = Array.from(files, async ([path, bytes]) => {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return [path, { size: bytes.length, checksum: `sha256-${hash.toHex()}` }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

async function gunzip(stream: ReadableStream<BufferSource>): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

/** The regular files of a tar archive. */
function untar(tar: Uint8Array<ArrayBuffer>): Map<string, Uint8Array<ArrayBuffer>> {
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  const field = (at: number, length: number): string =>
    new TextDecoder().decode(tar.subarray(at, at + length)).split("\0")[0]!;
  for (let at = 0; at + TAR_BLOCK <= tar.length && tar[at] !== 0;) {
    const size = parseInt(field(at + 124, 12), 8);
    const folder = field(at + 345, 155);
    files.set(`/${folder && `${folder}/`}${field(at, 100)}`, tar.slice(at + TAR_BLOCK, at + TAR_BLOCK + size));
    at += TAR_BLOCK * (1 + Math.ceil(size / TAR_BLOCK));
  }
  return files;
}
