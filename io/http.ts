/**
 * Files behind `http(s)` addresses, read by ranges.
 *
 * A range that a broken connection cuts off is asked for again from where it broke. A file that changes between two
 * reads is an error: each answer must have the entity tag (or else the date) and the length of the first.
 *
 * Protocol: RFC 9110, sections 13 and 14.
 *
 * @module
 */

import { CheckpointError, quote } from "./errors.ts";
import { buffered, bytesSource, checkRange, joinBytes, type Source } from "./source.ts";

/** How to ask a server. */
export interface HttpOptions {
  /** What messages call the file; its address if left out. */
  readonly name?: string;
  /**
   * Sent as `Authorization: Bearer …` to the address's own origin, and to nowhere that it redirects to. In a browser,
   * which hides redirects from its programs, this is the promise of the Fetch standard, kept by browsers since 2023.
   */
  readonly token?: string;
  /** Ends every request. */
  readonly signal?: AbortSignal;
  /** Called for each piece that arrives, with its length. */
  readonly onBytes?: (count: number) => void;
  /** What a message adds to an answer that is no file. */
  readonly explain?: (answer: Response) => string;
}

/** {@link HttpOptions} with a name. */
export type NamedOptions = HttpOptions & { readonly name: string };

/** A server answered, but not with the file. */
export class StatusError extends CheckpointError {
  /** The answer's status code. */
  readonly status: number;

  /** An answer of that status. */
  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

/** A file on a server. */
export interface RemoteSource extends Source {
  /** Its entity tag, as the server spells it. */
  readonly etag: string | null;
  /** The bytes from `from` up to, but not including, `to`, as they arrive. */
  stream(from: number, to: number): AsyncIterable<Uint8Array>;
}

/** Asked for at first; most headers and directories lie within it. */
const FIRST_BYTES = 2 ** 16;
/** A server that knows no ranges sends everything, which then lies in memory. */
const MAX_WHOLE_BYTES = 2 ** 30;
const MAX_REDIRECTS = 10;
/** How often a broken connection is taken up again. */
const MAX_BREAKS = 100;

/**
 * Opens the file at an address with a request for its first bytes.
 *
 * @throws {CheckpointError} where the server answers anything but the file.
 * @throws {TypeError} where no server answers.
 */
export async function openHttp(address: string | URL, options: HttpOptions = {}): Promise<RemoteSource> {
  const url = new URL(address);
  const named = { ...options, name: options.name ?? String(address) };
  const { name } = named;
  const response = await request(url, rangeHeader(0, FIRST_BYTES), named);
  const identity = identityOf(response);
  switch (response.status) {
    case 206: {
      const { size, end } = contentRange(response, name);
      if (end !== Math.min(FIRST_BYTES, size)) await refuse(response, name, `it sent bytes 0 to ${end} of ${size}`);
      const head = await readBody(response, named, end);
      if (head.length < end) fail(name, `the connection ended after ${head.length} of ${end} bytes`);
      return new RangedFile(url, named, identity, size, head);
    }
    case 200:
      return wholeFile(await readBody(response, named, MAX_WHOLE_BYTES), name, identity);
    case 416:
      // No range lies in an empty file.
      if (response.headers.get("content-range") !== "bytes */0") await refuseStatus(response, named);
      await response.body?.cancel();
      return wholeFile(new Uint8Array(), name, identity);
    default:
      return await refuseStatus(response, named);
  }
}

/** What must be the same in every answer. */
interface Identity {
  readonly etag: string | null;
  readonly lastModified: string | null;
}

function identityOf({ headers }: Response): Identity {
  return { etag: headers.get("etag"), lastModified: headers.get("last-modified") };
}

class RangedFile implements RemoteSource {
  readonly name: string;
  readonly size: number;
  readonly etag: string | null;
  readonly #url: URL;
  readonly #options: NamedOptions;
  readonly #identity: Identity;
  /** The first bytes, which came with the first answer. */
  readonly #head: Uint8Array;
  readonly #buffered: Source;

  constructor(url: URL, options: NamedOptions, identity: Identity, size: number, head: Uint8Array) {
    this.name = options.name;
    this.size = size;
    this.etag = identity.etag;
    this.#url = url;
    this.#options = options;
    this.#identity = identity;
    this.#head = head;
    this.#buffered = buffered({ name: this.name, size, read: (from, to) => this.#read(from, to) }, head);
  }

  async read(from: number, to: number): Promise<Uint8Array> {
    return await this.#buffered.read(from, to);
  }

  async *stream(from: number, to: number): AsyncGenerator<Uint8Array> {
    checkRange(this, from, to);
    let at = Math.max(from, Math.min(to, this.#head.length));
    if (at > from) yield this.#head.subarray(from, at);
    for (let breaks = 0; at < to; breaks++) {
      const start = at;
      const response = await this.#ask(at, to);
      try {
        for await (const piece of response.body ?? []) {
          at += piece.length;
          if (at > to) fail(this.name, `it sent more than the ${to - start} bytes asked for`);
          this.#options.onBytes?.(piece.length);
          yield piece;
        }
      } catch (cause) {
        if (!isBrokenConnection(cause)) throw cause;
      }
      if (at < to && (at === start || breaks === MAX_BREAKS)) {
        fail(this.name, `the connection ended after ${at - from} of ${to - from} bytes`);
      }
    }
  }

  async #read(from: number, to: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(to - from);
    let at = 0;
    for await (const piece of this.stream(from, to)) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  async #ask(from: number, to: number): Promise<Response> {
    const { name, size } = this;
    const { etag, lastModified } = this.#identity;
    const headers: Record<string, string> = rangeHeader(from, to);
    // A weak tag cannot be used so. A browser would first ask another origin whether it may send this header at all,
    // which many refuse; there the comparison below has to do.
    if (etag !== null && !etag.startsWith("W/") && !isCrossOrigin(this.#url)) headers["if-range"] = etag;
    const response = await request(this.#url, headers, this.#options);
    if (![200, 206, 416].includes(response.status)) return await refuseStatus(response, this.#options);
    const now = identityOf(response);
    const isSame = now.etag === etag && (etag !== null || now.lastModified === lastModified);
    if (!isSame || response.status !== 206) {
      return await refuse(
        response,
        name,
        "the file changed while it was read, or the server no longer sends parts of it",
      );
    }
    const found = contentRange(response, name);
    if (found.start !== from || found.end !== to || found.size !== size) {
      const [asked, sent] = [`${from} to ${to} of ${size}`, `${found.start} to ${found.end} of ${found.size}`];
      return await refuse(response, name, `asked for bytes ${asked}, it sent ${sent}`);
    }
    return response;
  }
}

function wholeFile(bytes: Uint8Array, name: string, { etag }: Identity): RemoteSource {
  const source = bytesSource(bytes, name);
  return {
    ...source,
    etag,
    async *stream(from, to) {
      yield await source.read(from, to);
    },
  };
}

function rangeHeader(from: number, to: number): Record<string, string> {
  return { range: `bytes=${from}-${to - 1}` };
}

/** `bytes 0-99/1234`, with an end behind the last byte. */
function contentRange(response: Response, name: string): { start: number; end: number; size: number } {
  const text = response.headers.get("content-range") ?? "";
  const [start, last, size] = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/.exec(text)?.slice(1).map(Number) ?? [];
  if (start === undefined || last === undefined || size === undefined || !(start <= last && last < size)) {
    return fail(name, `it sent the range ${quote(text)}; expected "bytes first-last/length"`);
  }
  if (!Number.isSafeInteger(size)) fail(name, `it has ${size} bytes, it says`);
  return { start, end: last + 1, size };
}

/** A whole answer of at most so many bytes. */
export async function readBody(response: Response, options: NamedOptions, most: number): Promise<Uint8Array> {
  const { name, onBytes } = options;
  if (Number(response.headers.get("content-length")) > most) {
    await refuse(response, name, `it sends ${response.headers.get("content-length")} bytes; expected at most ${most}`);
  }
  const pieces: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const piece of response.body ?? []) {
      length += piece.length;
      if (length > most) fail(name, `it sends more than ${most} bytes`);
      onBytes?.(piece.length);
      pieces.push(piece);
    }
  } catch (cause) {
    if (isBrokenConnection(cause)) fail(name, `the connection ended after ${length} bytes`, cause);
    throw cause;
  }
  return joinBytes(pieces);
}

/** Whether this is what the platform throws while it reads from a connection that breaks. */
function isBrokenConnection(error: unknown): boolean {
  return error instanceof TypeError;
}

/** Answers that say: elsewhere. */
const REDIRECTS = [301, 302, 303, 307, 308];

/** The answer to a `GET`, redirects followed. */
export async function request(
  url: URL,
  headers: Readonly<Record<string, string>>,
  { name, token, signal }: NamedOptions,
): Promise<Response> {
  // Ranges are of the bytes as they are sent, so they must be sent as they are. Browsers see to it themselves.
  const plain: RequestInit = {
    headers: { "accept-encoding": "identity", ...headers },
    ...(signal === undefined ? {} : { signal }),
  };
  if (token === undefined) return await fetch(url, plain);
  const secret: RequestInit = { ...plain, headers: { ...plain.headers, authorization: `Bearer ${token}` } };
  let [at, isHome] = [url, true];
  for (let n = 0; n <= MAX_REDIRECTS; n++) {
    const response = await fetch(at, { ...(isHome ? secret : plain), redirect: "manual" });
    if (response.type === "opaqueredirect") return await fetch(url, secret);
    const location = response.headers.get("location");
    if (!REDIRECTS.includes(response.status) || location === null) return response;
    await response.body?.cancel();
    at = redirected(at, location, name);
    // Who has left once gets no token any more, even back home: another host chose the address.
    isHome &&= at.origin === url.origin;
  }
  return fail(name, `the server redirected more than ${MAX_REDIRECTS} times`);
}

function redirected(from: URL, location: string, name: string): URL {
  const to = URL.canParse(location, from) ? new URL(location, from) : null;
  const allowed = from.protocol === "https:" ? ["https:"] : ["http:", "https:"];
  if (to === null || !allowed.includes(to.protocol)) {
    return fail(name, `the server redirected to ${quote(location)}; expected an address of ${allowed.join(" or ")}`);
  }
  return to;
}

/** Whether a browser's page asks for something outside its own origin. */
function isCrossOrigin(url: URL): boolean {
  return globalThis.location !== undefined && globalThis.location.origin !== url.origin;
}

/** Ends an answer that is not what it must be. */
async function refuse(response: Response, name: string, what: string): Promise<never> {
  await response.body?.cancel();
  return fail(name, what);
}

/** Ends an answer that is no file. */
export async function refuseStatus(response: Response, { name, explain }: NamedOptions): Promise<never> {
  await response.body?.cancel();
  const answer = `${response.status} ${response.statusText}`.trim();
  throw new StatusError(`reading ${name}: the server answered ${answer}${explain?.(response) ?? ""}`, response.status);
}

function fail(name: string, what: string, cause?: unknown): never {
  throw new CheckpointError(`reading ${name}: ${what}`, { cause });
}
